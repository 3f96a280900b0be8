"""A dataset that reads its training samples from a generator of batches.

A generator has no length and no random access, so training samples are returned in the order of the generator. One
worker thread reads up to `cache_size` batches in advance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from importance_sampling.datasets.base import BaseDataset, Rows
from importance_sampling.utils.validation import is_int

END = object()


class GeneratorDataset(BaseDataset):
    """A dataset of batches `(x, y)` from a Python generator.

    `train_data[idxs]` returns the next n samples, where n is the number of indices; the values of the indices are
    ignored. For example, `train_data[7]` returns the next sample, and `train_data[:32]` and `train_data[np.arange(32)]`
    return the next 32. Every sample is returned once. `len(train_data)` raises a TypeError.

    The constructor reads the first batch to determine the shapes. `train_data` still returns this batch.

    Args:
        train_data: iterable of batches `(x, y)`, two arrays with the same number of rows.
        test_data: None (default) for no test set; a tuple of arrays `(x, y)`; or an iterable of batches.
        test_data_length: int >= 1 or None (default); the number of test samples to read from an iterable. They are
            read once, on first use, and stored. Required for an iterable of batches, not allowed otherwise.
        cache_size: int >= 0, default 5; the number of batches that a worker thread reads in advance. With 0 there is no
            worker thread.

    Raises:
        ValueError: an argument has the wrong type or value, or `train_data` yields no batch.

    Example:
        >>> def batches():
        ...     while True:
        ...         yield np.zeros((32, 4)), np.ones((32, 1))
        >>> dset = GeneratorDataset(batches(), (np.zeros((8, 4)), np.ones((8, 1))))
        >>> x, y = dset.train_data[:50]
        >>> x.shape, len(dset.test_data)
        ((50, 4), 8)
    """

    def __init__(
        self,
        train_data: Iterable[tuple],
        test_data: Iterable[tuple] | tuple | None = None,
        test_data_length: int | None = None,
        cache_size: int = 5,
    ):
        if not is_int(cache_size) or cache_size < 0:
            raise ValueError(
                "`cache_size` must be an int of at least 0, the number of batches to read in advance. "
                f"Received: cache_size={cache_size!r}"
            )
        if test_data_length is not None and (not is_int(test_data_length) or test_data_length < 1):
            raise ValueError(
                "`test_data_length` must be an int of at least 1, or None. "
                f"Received: test_data_length={test_data_length!r}"
            )
        if not isinstance(train_data, Iterable) or isinstance(train_data, (tuple, np.ndarray)):
            raise ValueError(
                "`train_data` must be a generator of batches (x, y). Use `InMemoryDataset` for arrays. "
                f"Received: train_data of type {type(train_data)}"
            )
        self._test: Any = (None, None) if test_data is None else test_data
        if isinstance(test_data, tuple):
            self._test = tuple(np.asarray(part) for part in test_data)
        self._test_length = _test_length(self._test, test_data_length)
        self._stream = Stream(iter(train_data), int(cache_size))
        first = self._stream.peek()
        self._shape = np.shape(first[0])[1:]
        self._output_size = int(np.shape(first[1])[-1]) if np.ndim(first[1]) > 1 else 1

    @property
    def train_data(self) -> StreamRows:
        """The training set, as `StreamRows`."""
        return StreamRows(self._stream)

    @property
    def test_data(self) -> Rows:
        """The test set, as `Rows`; empty if there is no test set."""
        return Rows(self._test_data, self._test_size)

    def _train_data(self, idxs: np.ndarray | slice) -> tuple:
        return self.train_data[idxs]

    def _train_size(self) -> int:
        return len(self.train_data)

    def _test_data(self, idxs: np.ndarray | slice) -> tuple:
        if not self._test_length:
            raise ValueError("There is no test set: pass `test_data`. Received: test_data=None")
        if not isinstance(self._test, tuple):
            self._test = Stream(iter(self._test), 0).take(self._test_length)
        return self._test[0][idxs], self._test[1][idxs]

    def _test_size(self) -> int:
        return self._test_length

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def output_size(self) -> int:
        """The length of the last axis of y; 1 if y has one axis."""
        return self._output_size


class StreamRows:
    """A view that returns the next samples of a stream; see `GeneratorDataset`."""

    def __init__(self, stream: Stream):
        self._stream = stream

    def batches(self) -> Iterator[tuple]:
        """Iterate over the remaining batches."""
        return self._stream.remaining()

    def __len__(self) -> int:
        raise TypeError(
            "The length of `train_data` is unknown because it is a generator. Set the number of steps, for example "
            "with `steps_per_epoch`"
        )

    def __getitem__(self, idxs: Any) -> tuple:
        """Return the next n samples as `(x, y)`.

        Args:
            idxs: int for one sample, without the batch axis; one-dimensional array of n ints; or slice with an end.

        Raises:
            IndexError: fewer samples remain, or `idxs` is a slice that needs the length of the stream.
        """
        if isinstance(idxs, slice):
            start, stop, step = idxs.start or 0, idxs.stop, idxs.step or 1
            if stop is None or min(start, stop, step) < 0:
                raise IndexError(
                    "The length of `train_data` is unknown: a slice needs an end and no negative numbers. "
                    f"Received: idxs={idxs}"
                )
            return self._stream.take(len(range(start, stop, step)))
        indices = np.asarray(idxs)
        if indices.ndim > 1 or (indices.size and indices.dtype.kind not in "iu"):
            raise IndexError(
                "Index a stream with an int, a slice, or a one-dimensional int array. "
                f"Received: idxs of dtype {indices.dtype} and shape {indices.shape}"
            )
        if indices.ndim == 0:
            return keras.tree.map_structure(lambda rows: rows[0], self._stream.take(1))
        return self._stream.take(len(indices))


class Stream:
    """Samples from an iterator of batches, in order, each once.

    Args:
        batches: iterator of `(x, y)`.
        prefetch: int >= 0, the number of batches that a worker thread reads in advance.

    Attributes:
        queue: deque of at most `prefetch` futures of batches.
        buffer: `(x, y)` or None, the samples that were read but not yet returned.
    """

    def __init__(self, batches: Iterator, prefetch: int):
        self.batches = batches
        self.prefetch = prefetch
        self.queue: deque[Future] = deque()
        self.buffer: tuple | None = None
        # One worker, because two threads can't call a generator at the same time.
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="batches") if prefetch else None

    def peek(self) -> tuple:
        """Return the next batch without consuming it.

        Raises:
            ValueError: the stream has ended, or the batch isn't `(x, y)`.
        """
        if self.buffer is None:
            self.buffer = self._next()
        if self.buffer is None:
            raise ValueError("`train_data` must yield at least one batch (x, y). Received: an exhausted generator")
        return self.buffer

    def take(self, count: int) -> tuple:
        """Return the next samples.

        Raises:
            IndexError: fewer samples remain. The samples that were read before an error stay in the buffer.
        """
        parts = [] if self.buffer is None else [self.buffer]
        available = sum(len(x) for x, _ in parts)
        try:
            while available < count or not parts:
                batch = self._next()
                if batch is None:
                    raise IndexError(
                        "The stream doesn't have enough samples: request fewer, or use a longer generator. "
                        f"Received: a request for {count} samples, with {available} remaining"
                    )
                parts.append(batch)
                available += len(batch[0])
        finally:
            self.buffer = _concatenated(parts) if parts else None
        x, y = self.buffer
        self.buffer = (x[count:], y[count:]) if available > count else None
        return x[:count], y[:count]

    def remaining(self) -> Iterator[tuple]:
        """Iterate over the remaining batches."""
        while True:
            batch, self.buffer = (self._next() if self.buffer is None else self.buffer), None
            if batch is None:
                return
            yield batch

    def _next(self) -> tuple | None:
        """Return the next batch, or None at the end. Errors of the generator are raised here."""
        if self.worker is None:
            return _validated(next(self.batches, END))
        while len(self.queue) < self.prefetch:
            self.queue.append(self.worker.submit(next, self.batches, END))
        batch = _validated(self.queue.popleft().result())
        self.queue.append(self.worker.submit(next, self.batches, END))
        return batch


def _validated(batch: Any) -> tuple | None:
    """Return a batch as two arrays, or None for the end of the stream."""
    if batch is END:
        return None
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise ValueError(f"Batches must be tuples (x, y). Received: a batch of type {type(batch)}")
    x, y = (np.asarray(part) for part in batch)
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise ValueError(
            f"x and y of a batch must have the same number of rows. Received: shapes {x.shape} and {y.shape}"
        )
    return x, y


def _concatenated(parts: list[tuple]) -> tuple:
    if len(parts) == 1:
        return parts[0]
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def _test_length(test_data: Any, length: int | None) -> int:
    if isinstance(test_data, tuple):
        if length is not None:
            raise ValueError(
                "`test_data_length` is only allowed with a generator of test batches: remove it. "
                f"Received: test_data_length={length!r}, test_data of type {type(test_data)}"
            )
        if len(test_data) != 2 or len({len(part) for part in test_data if part is not None}) > 1:
            raise ValueError(
                "`test_data` must be a tuple (x, y) of arrays with the same number of rows, or a generator. "
                f"Received: a tuple of shapes {[np.shape(part) for part in test_data]}"
            )
        return 0 if test_data[0] is None else len(test_data[0])
    if not isinstance(test_data, Iterable) or length is None:
        raise ValueError(
            "`test_data` must be a tuple (x, y) of arrays, or a generator with `test_data_length`, the number of "
            f"samples to read. Received: test_data of type {type(test_data)}, test_data_length={length!r}"
        )
    return int(length)
