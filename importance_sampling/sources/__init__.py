"""Sources: whatever the user handed to `fit`, as candidates. One file a kind."""

from importance_sampling.sources.arrays import (
    ArraySource,
    MappedBatches,
    MappedColumn,
    Prepared,
    is_mapped,
    keras_dtype,
    prepare,
    unread,
)

__all__ = [
    "ArraySource",
    "MappedBatches",
    "MappedColumn",
    "Prepared",
    "is_mapped",
    "keras_dtype",
    "prepare",
    "unread",
]
