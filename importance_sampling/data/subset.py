"""A part of the rows of an `ArraySource` as a source of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.data.arrays import ArraySource, read_column
from importance_sampling.data.lazy_arrays import LazyArray


def subset(source: ArraySource, rows: np.ndarray) -> ArraySource:
    """Return some rows of a source; lazily read arrays stay on disk.

    Args:
        source: the rows.
        rows: int `(n,)`, row indices in ascending order.
    """
    return ArraySource(source.pack(_rows_of(column, rows) for column in source.columns))


def _rows_of(column: Any, rows: np.ndarray) -> Any:
    if isinstance(column, LazyArray):
        return LazyArray(_View(column, rows))
    return read_column(column, rows)


class _View:
    """Some rows of a lazily read array, as an array."""

    def __init__(self, column: LazyArray, rows: np.ndarray):
        self._column, self._rows = column, rows
        self.shape = (len(rows), *column.shape[1:])
        self.dtype = column.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return self._column.read(self._rows[indices])
