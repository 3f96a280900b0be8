"""Sources: whatever the user handed to `fit`, as candidates. One file a kind."""

from importance_sampling.sources.arrays import ArraySource
from importance_sampling.sources.prepare import prepare
from importance_sampling.sources.prepared import Prepared
from importance_sampling.sources.stores import StoreBatches, StoreColumn, is_mapped, is_store, with_stores_unread

__all__ = [
    "ArraySource",
    "Prepared",
    "StoreBatches",
    "StoreColumn",
    "is_mapped",
    "is_store",
    "prepare",
    "with_stores_unread",
]
