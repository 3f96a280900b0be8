"""Rows of arrays and readers of data on the host, for the backends whose steps take NumPy batches: JAX and torch.

As in Keras's own `fit` on these backends, the rows of a batch are read on the host and passed to the step.
"""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from importance_sampling.backend import keras_data


def is_in_memory(value: Any) -> bool:
    """Return True for an array of NumPy, a framework (also sparse or ragged), pandas or scipy."""
    return keras_data.is_array_in_memory(value)


def has_rows(value: Any) -> bool:
    """Return True if Keras accepts a value as an array and its rows can be read by index; not for sparse arrays."""
    is_array = keras_data.is_array_for_fit(value) and hasattr(value, "shape") and len(value.shape) > 0
    return is_array and not keras_data.is_sparse_or_ragged(value) and str(getattr(value, "dtype", "")) != "object"


def is_dataset(value: Any) -> bool:
    """Return True for a `tf.data.Dataset`."""
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(value, tensorflow.data.Dataset)


def is_infinite(dataset: Any) -> bool:
    """Return True if a `tf.data.Dataset` is known to be infinite."""
    return int(dataset.cardinality()) == sys.modules["tensorflow"].data.INFINITE_CARDINALITY


def is_loader(value: Any) -> bool:
    """Return True for a data loader of a framework that Keras accepts."""
    return keras_data.is_loader_for_fit(value)


def slice_rows(value: Any, start: int, stop: int) -> Any:
    """Return the rows of an array from `start` up to `stop` as Keras slices it, floats in `keras.config.floatx()`."""
    return keras_data.slice_rows(value, start, stop)


class HostRows:
    """The rows of an array on the host, as `fit` reads them: floats in `keras.config.floatx()`.

    Args:
        array: `(rows, ...)`, dense, of NumPy, a framework or pandas.

    Attributes:
        shape: tuple of int, `(rows, ...)`.
        dtype: NumPy dtype of the rows.
    """

    def __init__(self, array: Any):
        # A NumPy array is converted row by row: a whole one would be a second copy of the user's data.
        self._array = array if isinstance(array, np.ndarray) else keras_data.to_numpy_array(array)
        self.shape = tuple(self._array.shape)
        is_float = self._array.dtype.kind == "f"
        self.dtype = np.dtype(keras.config.floatx()) if is_float else self._array.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, indices: Any) -> np.ndarray:
        """Return rows by index, int `(n,)`."""
        return self._array[np.asarray(indices)].astype(self.dtype, copy=False)


def to_fit_array(value: Any) -> Any:
    """Return an array as it is: Keras's `fit` and importance steps read its rows on the host."""
    return value


def as_column(array: Any) -> HostRows:
    """Convert an array to an object from which rows are read."""
    return HostRows(array)


def row_spec(tensor: Any) -> str:
    """Return the dtype and row shape of an array or tensor as text; compiled steps depend on them."""
    return f"{keras.backend.standardize_dtype(tensor.dtype)} {tuple(tensor.shape[1:])}"


def slice_tensor(tensor: Any, start: int, stop: int) -> Any:
    """Return the rows of a tensor from `start` up to `stop`."""
    return tensor[start:stop]


def batch_reader_factory(iterator: Any) -> None:
    """Return None: the data of Keras's iterator can't be read a second time."""


def queue_iterator(queue: deque, pack: Callable, static: bool = False) -> Iterator:
    """Return an iterator over the entries of a queue, which ends when the queue is empty.

    Args:
        queue: of tuples of arrays; entries may be added later.
        pack: function from a tuple of arrays to the structure that the iterator yields.
        static: bool; without effect.
    """
    return _QueueIterator(queue, pack)


def queued_batches(queue: deque, iterator: Any) -> Iterator:
    """Return an iterator over the batches in a queue.

    Args:
        queue: of batches; more may be added later.
        iterator: Keras's iterator; without effect.
    """
    return _QueueIterator(queue, lambda batch: batch)


class _QueueIterator:
    """Unlike a generator, this goes on after it has found the queue empty."""

    def __init__(self, queue: deque, pack: Callable):
        self._queue = queue
        self._pack = pack

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        if not self._queue:
            raise StopIteration
        return self._pack(self._queue.popleft())


def pool_iterator(source: Any, pool_size: int, seed: int, start: int) -> Iterator:
    """Yield pools of uniformly drawn rows without end, as `(indices, *arrays)`.

    Pools are consecutive parts of a permutation of the rows. Each permutation depends only on the seed and its number,
    so that the sequence can be continued at any pool and no global generator is used. Rows at the end of a permutation
    that don't fill a pool are skipped.

    Args:
        source: an `ArraySource`, whose `num_rows` and `columns` are used.
        pool_size: int, the number of rows of a pool, at most `source.num_rows`.
        seed: int.
        start: int >= 0, the number of pools to skip.
    """
    pools_per_epoch = source.num_rows // pool_size
    epoch, first = divmod(start, pools_per_epoch)
    while True:
        order = np.random.default_rng((seed, epoch)).permutation(source.num_rows)
        for number in range(first, pools_per_epoch):
            rows = order[number * pool_size : (number + 1) * pool_size]
            yield rows, *(column.read(rows) for column in source.columns)
        epoch, first = epoch + 1, 0


def read_batch(source: Any, rows: np.ndarray) -> Any:
    """Return rows of a source as a batch in Keras's format.

    Raises:
        RuntimeError: an array raised StopIteration, which Keras on torch would take for the end of the data.
    """
    try:
        return source.batch([column.read(rows) for column in source.columns])
    except StopIteration:
        source.raise_read_error()
        raise


def is_pipeline_error(error: Exception) -> bool:
    """Return True for the end of the data, which may replace an error of the user's data."""
    return isinstance(error, StopIteration)


@contextlib.contextmanager
def without_autotune() -> Iterator[None]:
    """Do nothing: only the pipelines of TensorFlow are tuned."""
    yield
