"""Pass the rows of a data set to `fit` as lazily read arrays."""

from __future__ import annotations

import threading
from typing import Any

import keras
import numpy as np


def lazy_arrays(rows: Any) -> tuple:
    """Return the rows of a data set as `(x, y)` of lazily read arrays.

    Args:
        rows: an object for which `rows[idxs]` is `(x, y)` and `len(rows)` the number of rows.

    Returns:
        `(x, y)`, with a `DatasetArray` for every array in their structure.
    """
    reader = _RowReader(rows)
    example = rows[np.array([0])]
    leaves = [DatasetArray(reader, i, np.asarray(leaf)) for i, leaf in enumerate(keras.tree.flatten(example))]
    x, y = keras.tree.pack_sequence_as(example, leaves)
    return x, y


class DatasetArray:
    """One array of a data set, with `shape`, `dtype` and `len`; `array[idxs]` reads rows.

    Args:
        reader: reads rows of all arrays of the data set.
        number: int >= 0, the position of this array among them.
        example: `(1, ...)`, a row of this array.
    """

    def __init__(self, reader: _RowReader, number: int, example: np.ndarray):
        self._reader = reader
        self._number = number
        self.shape = (len(reader.rows), *example.shape[1:])
        self.dtype = example.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, idxs: Any) -> np.ndarray:
        return np.asarray(self._reader.read(idxs)[self._number])


class _RowReader:
    """Reads rows of all arrays at once, and keeps them for the next request for the same rows."""

    def __init__(self, rows: Any):
        self.rows = rows
        self._lock = threading.Lock()  # Keras's pipeline and this library's may read at the same time
        self._idxs: Any = None
        self._leaves: list = []

    def read(self, idxs: Any) -> list:
        with self._lock:
            if self._idxs is None or not np.array_equal(self._idxs, idxs):
                self._leaves = keras.tree.flatten(self.rows[idxs])
                self._idxs = np.array(idxs)
            return self._leaves
