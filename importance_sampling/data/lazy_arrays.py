"""Lazily read arrays: memory maps, h5py data sets and similar objects, of which only the requested rows are read.

Keras reads such arrays into memory as a whole. Here a batch or a pool is read at a time, in storage order.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from importance_sampling import backend
from importance_sampling.data.batches import DEFAULT_BATCH_SIZE, flatten

REQUIRED_ATTRIBUTES = ("shape", "dtype", "__len__", "__getitem__")


class LazyArray:
    """A range of rows of an array, read on demand, in the dtype to which Keras converts them.

    Args:
        array: an object `(rows, ...)` with `shape`, `dtype`, `__len__` and indexing by ascending index arrays.
        start: int >= 0, default 0, the first row.
        stop: int or None, one past the last row; None (default): the number of rows of `array`.

    Attributes:
        shape: tuple of int, `(stop - start, ...)`.
        dtype: NumPy dtype of the rows returned; `floatx` for floats.
        failure: the error that `array` raised, or None.
    """

    def __init__(self, array: Any, start: int = 0, stop: int | None = None):
        self.array = array
        self.start = start
        stop = int(array.shape[0]) if stop is None else stop
        self.shape = (stop - start, *array.shape[1:])
        self.dtype = keras_dtype(array.dtype)
        self.failure: BaseException | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, indices: Any) -> np.ndarray:
        """Return rows in the requested order. Each row is read once, in storage order.

        Args:
            indices: int `(n,)`, row indices from `start` on; may repeat.

        Raises:
            ValueError: `array` returns rows of another shape than its `shape`.
            Exception: any error of `array`, which is also stored in `failure`.
        """
        unique_rows, positions = np.unique(np.asarray(indices, "int64"), return_inverse=True)
        try:
            rows = np.asarray(self.array[self.start + unique_rows]).astype(self.dtype, copy=False)
            if rows.shape != (len(unique_rows), *self.shape[1:]):
                raise ValueError(
                    f"`x[idxs]` must return one row per index, each of shape {self.shape[1:]} as in `x.shape`. "
                    f"Received: an array of shape {rows.shape} for {len(unique_rows)} rows"
                )
        except BaseException as error:
            self.failure = error  # a pipeline replaces it by its own error
            raise
        return rows[positions.ravel()]

    def slice(self, start: int, stop: int) -> LazyArray:
        """Return the rows from `start` up to, but not including, `stop`, without reading them."""
        return LazyArray(self.array, self.start + start, self.start + stop)


class LazyBatches(keras.utils.PyDataset):
    """Batches of data that contain lazily read arrays, in order; used for validation data.

    Args:
        data: `(x, y, sample_weight)` of arrays and lazily read arrays.
        batch_size: int, rows per batch; the last batch may have fewer.
    """

    def __init__(self, data: tuple, batch_size: int):
        super().__init__()
        leaves, self.pack = flatten(data)
        self.columns = [as_lazy_array(leaf) for leaf in leaves]
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.columns[0]) / self.batch_size)

    def __getitem__(self, index: int) -> tuple:
        start = index * self.batch_size
        rows = np.arange(start, min(start + self.batch_size, len(self.columns[0])))
        return pack_batch(*self.pack(column.read(rows) for column in self.columns))


def is_mapped(array: Any) -> bool:
    """Return True if an array is a memory map or a view of one."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


def is_lazy(array: Any) -> bool:
    """Return True if an array is read by rows and not as a whole.

    An object with `__array__`, which Keras accepts, is read as Keras reads it if it can't be indexed by an array.
    """
    if isinstance(array, np.ndarray):
        return is_mapped(array)
    if isinstance(array, LazyArray):
        return True
    if not all(hasattr(array, name) for name in REQUIRED_ATTRIBUTES) or backend.is_in_memory(array):
        return False
    try:
        if np.dtype(array.dtype).kind not in "fiub" or not array.shape or not len(array):
            return False
        return not hasattr(array, "__array__") or np.shape(array[np.array([0])]) == (1, *array.shape[1:])
    except (TypeError, IndexError, ValueError, KeyError):
        return False


def as_lazy_array(leaf: Any) -> LazyArray:
    """Return any array as a `LazyArray`."""
    return leaf if isinstance(leaf, LazyArray) else LazyArray(leaf if is_lazy(leaf) else np.asarray(leaf))


def keras_dtype(dtype: Any) -> np.dtype:
    """Return the dtype to which Keras's pipeline converts an array: `floatx` for floats, otherwise the same dtype."""
    dtype = np.dtype(dtype)
    return np.dtype(keras.config.floatx()) if dtype.kind == "f" else dtype


def pack_batch(x: Any, y: Any, sample_weight: Any) -> tuple:
    """Return a batch in Keras's format, always as a tuple."""
    batch = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
    return batch if isinstance(batch, tuple) else (batch,)


def has_lazy_rows(arguments: dict) -> bool:
    """Return True if lazily read arrays are among the training data in the arguments of a `fit`."""
    return any(map(is_lazy, keras.tree.flatten([arguments[name] for name in ("x", "y", "sample_weight")])))


def with_lazy_validation_data(arguments: dict) -> dict:
    """Return a copy of the arguments of a `fit`, in which lazily read validation data are read in batches."""
    validation_data = arguments["validation_data"]
    if not isinstance(validation_data, (tuple, list)) or not any(map(is_lazy, keras.tree.flatten(validation_data))):
        return dict(arguments)
    batch_size = arguments["validation_batch_size"] or arguments["batch_size"] or DEFAULT_BATCH_SIZE
    batches = LazyBatches(keras.utils.unpack_x_y_sample_weight(validation_data), batch_size)
    return dict(arguments, validation_data=batches)
