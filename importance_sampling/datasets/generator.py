"""Datasets that come as a stream of batches.

A stream has no order to ask for and no length: its training rows are taken as they come. One worker thread calls the
generator, never more than `cache_size` batches ahead of what was asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from importance_sampling.datasets.base import BaseDataset, Rows, is_int

END = object()


class GeneratorDataset(BaseDataset):
    """Batches `(x, y)` from a Python generator, as a dataset.

    `train_data[idxs]` is the next n rows of the stream, n being how many rows `idxs` would pick: indices are counted,
    not looked at. `train_data[7]` is the next row, `train_data[:32]` and `train_data[np.arange(32)]` the next 32. Rows
    go by once. `len(train_data)` isn't known, and what needs it is an error.

    The first batch is read when the dataset is made, to learn the shapes; it isn't lost.

    Args:
        train_data: iterator, or an iterable, of batches `(x, y)`, arrays `(rows, ...)`, any number of rows.
        test_data: None (default) for no test rows; a tuple of arrays `(x, y)`; or an iterator of batches.
        test_data_length: int >= 1 or None (default); how many test rows to read from an iterator, once, when they are
            first asked for, to be kept. Required with an iterator, and only then allowed.
        cache_size: int >= 0, default 5; batches read ahead, in a thread. 0 reads in the caller's thread, when needed.

    Raises:
        ValueError: an argument is of the wrong kind, or the stream has no first batch.

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
                "`cache_size` must be an int of at least 0, the batches to read ahead. "
                f"Received: cache_size={cache_size!r}"
            )
        if test_data_length is not None and (not is_int(test_data_length) or test_data_length < 1):
            raise ValueError(
                "`test_data_length` must be an int of at least 1, or None. "
                f"Received: test_data_length={test_data_length!r}"
            )
        if not isinstance(train_data, Iterable) or isinstance(train_data, (tuple, np.ndarray)):
            raise ValueError(
                "`train_data` must be a generator of batches (x, y); arrays go into an `InMemoryDataset`. "
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
        """`StreamRows`: the next rows, however they are asked for."""
        return StreamRows(self._stream)

    @property
    def test_data(self) -> Rows:
        """`Rows` of the test set; of length 0 if there is none."""
        return Rows(self._test_data, self._test_size)

    def _train_data(self, idxs: np.ndarray | slice) -> tuple:
        return self.train_data[idxs]

    def _train_size(self) -> int:
        return len(self.train_data)

    def _test_data(self, idxs: np.ndarray | slice) -> tuple:
        if not self._test_length:
            raise ValueError("There are no test rows to read: pass `test_data`. Received: test_data=None")
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
    """The next rows of a stream, as many as an index would pick; see `GeneratorDataset`."""

    def __init__(self, stream: Stream):
        self._stream = stream

    def batches(self) -> Iterator[tuple]:
        """The batches that are left, as they come."""
        return self._stream.left()

    def __len__(self) -> int:
        raise TypeError(
            "The length of `train_data` is unknown: it is a generator's. Say how many steps to take, as with "
            "`steps_per_epoch`"
        )

    def __getitem__(self, idxs: Any) -> tuple:
        """The next n rows as `(x, y)`.

        Args:
            idxs: an int for one row, without the axis of rows; an array of any n ints; a slice with an end.

        Raises:
            IndexError: the stream has fewer rows left; `idxs` is a slice that needs a length.
        """
        if isinstance(idxs, slice):
            start, stop, step = idxs.start or 0, idxs.stop, idxs.step or 1
            if stop is None or min(start, stop, step) < 0:
                raise IndexError(
                    "The length of `train_data` is unknown, so that a slice needs an end, and nothing negative. "
                    f"Received: idxs={idxs}"
                )
            return self._stream.take(len(range(start, stop, step)))
        places = np.asarray(idxs)
        if places.ndim > 1 or (places.size and places.dtype.kind not in "iu"):
            raise IndexError(
                "Rows of a stream are asked for by an int, a slice, or ints of one axis. "
                f"Received: idxs of dtype {places.dtype} and shape {places.shape}"
            )
        if places.ndim == 0:
            return keras.tree.map_structure(lambda rows: rows[0], self._stream.take(1))
        return self._stream.take(len(places))


class Stream:
    """Rows of an iterator of batches, in order, each once.

    Args:
        batches: iterator of `(x, y)`.
        ahead: int >= 0, batches to read ahead in a thread.

    Attributes:
        waiting: deque of futures of batches, at most `ahead` of them.
        rest: `(x, y)` or None, what is left over of the last batch.
    """

    def __init__(self, batches: Iterator, ahead: int):
        self.batches = batches
        self.ahead = ahead
        self.waiting: deque[Future] = deque()
        self.rest: tuple | None = None
        # A single worker: a generator can't be entered twice. It ends with the stream, or with the program.
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="batches") if ahead else None

    def peek(self) -> tuple:
        """The next batch, which stays where it is.

        Raises:
            ValueError: there is none, or it isn't `(x, y)`.
        """
        if self.rest is None:
            self.rest = self._next()
        if self.rest is None:
            raise ValueError("`train_data` must yield at least one batch (x, y). Received: a stream that is at its end")
        return self.rest

    def take(self, count: int) -> tuple:
        """The next rows.

        Raises:
            IndexError: there are fewer left. After an error, what was read so far is still to come.
        """
        parts = [] if self.rest is None else [self.rest]
        found = sum(len(x) for x, _ in parts)
        try:
            while found < count or not parts:
                batch = self._next()
                if batch is None:
                    raise IndexError(f"The stream has ended. Received: a request for {count} rows, with {found} left")
                parts.append(batch)
                found += len(batch[0])
        finally:
            self.rest = _joined(parts) if parts else None
        x, y = self.rest
        self.rest = (x[count:], y[count:]) if found > count else None
        return x[:count], y[:count]

    def left(self) -> Iterator[tuple]:
        """The batches that are left, as they come."""
        while True:
            batch, self.rest = (self._next() if self.rest is None else self.rest), None
            if batch is None:
                return
            yield batch

    def _next(self) -> tuple | None:
        """The next batch, or None at the end; the generator's own errors are raised here."""
        if self.worker is None:
            return _batch(next(self.batches, END))
        while len(self.waiting) < self.ahead:
            self.waiting.append(self.worker.submit(next, self.batches, END))
        batch = _batch(self.waiting.popleft().result())
        self.waiting.append(self.worker.submit(next, self.batches, END))
        return batch


def _batch(batch: Any) -> tuple | None:
    if batch is END:
        return None
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise ValueError(f"Batches must be tuples (x, y). Received: a batch of type {type(batch)}")
    x, y = (np.asarray(part) for part in batch)
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise ValueError(
            f"x and y of a batch must have as many rows as each other. Received: shapes {x.shape} and {y.shape}"
        )
    return x, y


def _joined(parts: list[tuple]) -> tuple:
    if len(parts) == 1:
        return parts[0]
    return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))


def _test_length(test_data: Any, length: int | None) -> int:
    if isinstance(test_data, tuple):
        if length is not None:
            raise ValueError(
                "`test_data_length` is for a generator of test rows; leave it out. "
                f"Received: test_data_length={length!r}, test_data of type {type(test_data)}"
            )
        if len(test_data) != 2 or len({len(part) for part in test_data if part is not None}) > 1:
            raise ValueError(
                "`test_data` must be a tuple (x, y) of arrays of as many rows, or a generator. "
                f"Received: a tuple of shapes {[np.shape(part) for part in test_data]}"
            )
        return 0 if test_data[0] is None else len(test_data[0])
    if not isinstance(test_data, Iterable) or length is None:
        raise ValueError(
            "`test_data` must be a tuple (x, y) of arrays, or a generator with `test_data_length`, the rows to read of "
            f"it. Received: test_data of type {type(test_data)}, test_data_length={length!r}"
        )
    return int(length)
