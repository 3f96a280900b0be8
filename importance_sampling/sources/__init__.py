"""Sources: whatever the user handed to `fit`, as candidates. One file a kind."""

from importance_sampling.sources.arrays import ArraySource
from importance_sampling.sources.prepare import prepare, prepare_own_fit
from importance_sampling.sources.prepared import Prepared
from importance_sampling.sources.stores import (
    StoreBatches,
    StoreColumn,
    is_mapped,
    is_store,
    keras_dtype,
    with_stores_unread,
)
from importance_sampling.sources.streams import StreamSource, unpacked

__all__ = [
    "ArraySource",
    "Prepared",
    "StoreBatches",
    "StoreColumn",
    "StreamSource",
    "is_mapped",
    "is_store",
    "keras_dtype",
    "prepare",
    "prepare_own_fit",
    "unpacked",
    "with_stores_unread",
]
