"""Stores: arrays that stay where they are (memory maps, h5py data sets and their kind), read row by row when asked.

Keras would read such an array whole. What is read here is a batch or a pool at a time, in the order it is stored in.
Which rows are wanted is decided elsewhere.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from importance_sampling import backend
from importance_sampling.scores import flat

ATTRIBUTES = ("shape", "dtype", "__len__", "__getitem__")


class StoreColumn:
    """A range of rows of a store, read as they are asked for, in the dtype that Keras would make of them.

    Args:
        array: what has `shape`, `dtype`, `__len__` and `__getitem__` on ascending index arrays; `(rows, ...)`.
        start: int, the first row, default 0.
        stop: int, one past the last row, default the store's end.

    Attributes:
        failure: None, or what the store raised when rows were asked for.
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
        """Rows, in the order asked for; each is read once, in the order they are stored in."""
        wanted, places = np.unique(np.asarray(indices, "int64"), return_inverse=True)
        try:
            rows = np.asarray(self.array[self.start + wanted]).astype(self.dtype, copy=False)
            if rows.shape != (len(wanted), *self.shape[1:]):
                raise ValueError(
                    f"`x[idxs]` must be the rows asked for, of the shape that `x.shape` says, {self.shape[1:]}. "
                    f"Received: an array of shape {rows.shape} for {len(wanted)} rows"
                )
        except BaseException as error:
            self.failure = error  # a pipeline raises an error of its own in its place
            raise
        return rows[places.ravel()]

    def cut(self, start: int, stop: int) -> StoreColumn:
        """The rows from `start` up to `stop`, unread."""
        return StoreColumn(self.array, self.start + start, self.start + stop)


class StoreBatches(keras.utils.PyDataset):
    """Batches of data with stores in them, in order: validation data that Keras would have read whole.

    Args:
        data: `(x, y, sample_weight)` of arrays and stores.
        batch_size: int.
    """

    def __init__(self, data: tuple, batch_size: int):
        super().__init__()
        leaves, self.pack = flat(data)
        self.columns = [as_column(leaf) for leaf in leaves]
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.columns[0]) / self.batch_size)

    def __getitem__(self, index: int) -> tuple:
        start = index * self.batch_size
        rows = np.arange(start, min(start + self.batch_size, len(self.columns[0])))
        return packed(*self.pack(column.read(rows) for column in self.columns))


def is_mapped(array: Any) -> bool:
    """Whether an array is, or looks into, a memory map."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


def is_store(array: Any) -> bool:
    """Whether an array is one to be read by rows and never whole.

    What Keras takes (it has `__array__`) and can't be read by an array of row numbers is none: Keras's way is kept.
    """
    if isinstance(array, StoreColumn) or is_mapped(array):
        return True
    if backend.is_resident(array) or not all(hasattr(array, name) for name in ATTRIBUTES):
        return False
    try:
        if np.dtype(array.dtype).kind not in "fiub" or not array.shape or not len(array):
            return False
        return not hasattr(array, "__array__") or np.shape(array[np.array([0])]) == (1, *array.shape[1:])
    except (TypeError, IndexError, ValueError, KeyError):
        return False


def as_column(leaf: Any) -> StoreColumn:
    """A column of an array or a store."""
    return leaf if isinstance(leaf, StoreColumn) else StoreColumn(leaf if is_store(leaf) else np.asarray(leaf))


def keras_dtype(dtype: Any) -> np.dtype:
    """The dtype that Keras's pipeline hands on: floats become `floatx`."""
    dtype = np.dtype(dtype)
    return np.dtype(keras.config.floatx()) if dtype.kind == "f" else dtype


def packed(x: Any, y: Any, sample_weight: Any) -> tuple:
    """A batch as Keras hands it around, always a tuple."""
    batch = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
    return batch if isinstance(batch, tuple) else (batch,)


def with_stores_unread(arguments: dict) -> dict:
    """The arguments of a `fit`, validation data with stores in them made into what is read as it is asked for."""
    validation_data = arguments["validation_data"]
    if not isinstance(validation_data, (tuple, list)) or not any(map(is_store, keras.tree.flatten(validation_data))):
        return dict(arguments)
    batch_size = arguments["validation_batch_size"] or arguments["batch_size"] or 32
    batches = StoreBatches(keras.utils.unpack_x_y_sample_weight(validation_data), batch_size)
    return dict(arguments, validation_data=batches)
