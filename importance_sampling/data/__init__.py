"""The user's data as sources of candidates: arrays, lazily read arrays and streams."""

from importance_sampling.data.arrays import ArraySource
from importance_sampling.data.batches import unpack_batch
from importance_sampling.data.lazy_arrays import (
    LazyArray,
    LazyBatches,
    is_lazy,
    is_mapped,
    keras_dtype,
    with_lazy_validation_data,
)
from importance_sampling.data.streams import StreamSource

__all__ = [
    "ArraySource",
    "LazyArray",
    "LazyBatches",
    "StreamSource",
    "is_lazy",
    "is_mapped",
    "keras_dtype",
    "unpack_batch",
    "with_lazy_validation_data",
]
