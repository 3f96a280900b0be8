"""Make pools from streams: data that arrive in batches, whose rows have no index.

Every importance step takes the batch that Keras would take, so that an epoch has the same number of steps, and adds
rows until the pool is full. The added rows come from a second reading of the data. If the data can't be read twice, or
have no end, they come from the next batches. Nothing is read for pools before the gate opens, and at most one pool is
read in advance, in addition to the stream's own prefetching.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from importance_sampling import backend
from importance_sampling.data.batches import PeekableBatches, count_rows, flatten, unpack_batch
from importance_sampling.utils.errors import Unsupported

DRAWN_BY_KERAS = (
    "Keras draws one batch for each step, and these data can't be read a second time, for candidates. Pass a "
    "`PyDataset` or a data loader"
)
PREPARED_BY_FIT = (
    "the model defines a `fit` of its own, whose data can't be read a second time on this backend, for candidates. "
    "Prepare the data before `fit`"
)
DIFFERENT_ROWS = (
    "batches of these data differ in more than the number of rows, and can't be joined to a pool. Pad them to one shape"
)


class StreamSource:
    """A stream of batches.

    Args:
        reread: `reread(seed)` returns a second reading of the data, an object with `__next__` and `close`; None if the
            data can't be read twice or have no end.
        rereads_iterator: bool, default False; True to read the data of Keras's iterator a second time, for models with
            their own `fit` that prepares the data.

    Attributes:
        has_rows: bool, False: rows have no index.
        is_in_memory: bool, False.
        pack: function from a list of leaves to `(x, y, sample_weight)`; None before `examine`.
        signature: tuple, the structure, shapes and dtypes of the batches without the number of rows; empty before
            `examine`.
    """

    has_rows = is_in_memory = False

    def __init__(self, reread: Callable | None, rereads_iterator: bool = False):
        self._reread = reread
        self._rereads_iterator = rereads_iterator
        self._example: tuple | None = None
        self._size = 0
        self.pack: Callable | None = None
        self.signature: tuple = ()

    def raise_read_error(self) -> None:
        """Do nothing: a stream's own errors reach the caller as they are."""

    def begin_pass(self, iterator: Any) -> None:
        """Set the second reading to the data that Keras's iterator reads, if `rereads_iterator` is True."""
        if self._rereads_iterator:
            self._reread = backend.batch_reader_factory(iterator)

    def examine(self, batch: Any) -> int:
        """Check a batch, and store it as the example if it is the largest so far.

        Returns:
            int, the number of rows of the largest batch so far.

        Raises:
            Unsupported: batches can't be joined.
        """
        example = unpack_batch(batch)
        leaves, pack = flatten(example)
        rows = {int(leaf.shape[0]) for leaf in leaves}
        if len(rows) != 1:
            raise Unsupported("the arrays of a batch differ in their number of rows. Make it the same")
        structure = repr(keras.tree.map_structure(lambda leaf: leaf is not None, example))
        signature = (structure, *map(backend.row_spec, leaves))
        if self.signature not in ((), signature):
            raise Unsupported(DIFFERENT_ROWS)
        size = max(rows.pop(), self._size)
        if size > self._size:
            self._example, self.pack, self.signature, self._size = example, pack, signature, size
        return size

    def example(self, size: int) -> tuple:
        """Return the largest batch so far as `(x, y, sample_weight)`; `size` has no effect."""
        return self._example

    def pools(self, pool_size: int, seed: int, start: int) -> StreamPools:
        """Return pools of candidates.

        Args:
            pool_size: int, rows per pool.
            seed: int, determines the order of the second reading together with `start`, if this library shuffles it.
            start: int >= 0, the number of pools read before.
        """
        reread = None if self._reread is None else functools.partial(self._reread, seed + start)
        # Keras knows how many batches the model's own `fit` has prepared: pools take none of them.
        return StreamPools(pool_size, reread, PREPARED_BY_FIT if self._rereads_iterator else None)

    def release(self) -> None:
        """Drop all references to the data."""
        self._example = self._reread = None


class StreamPools:
    """Pools for compiled steps, joined from batches.

    Each pool starts with the batch that Keras would train on next. The other candidates come from a second reading of
    the data or, without one, from the batches that follow.

    Args:
        pool_size: int, rows per pool.
        reread: called without arguments, returns a second reading of the data; None if there is none.
        unread: the reason against pools if there is no second reading; None (default): the next batches are used.
    """

    def __init__(self, pool_size: int, reread: Callable | None, unread: str | None = None):
        self._reread = reread
        self._unread = unread
        self._second_reading: Any = None
        self._leftover: list | None = None  # leaves of rows that were read for a pool and not used
        self._queue: deque = deque()
        self._used = 0  # batches of the pass that are in the queue
        self.resize(pool_size)

    def resize(self, pool_size: int) -> StreamPools:
        """Set the size of the pools that are made from now on, and return the object itself."""
        self.pool_size = pool_size
        self._iterator: Any = None
        self._no_indices = backend.to_tensor(np.full(pool_size, -1, "int64"))
        return self

    def fill(self, n: int, batches: PeekableBatches) -> int:
        """Make up to n pools, fewer at the end of the pass; return the number of pools that are ready.

        Raises:
            Unsupported: the stream can't be read a second time, or its batches can't be joined.
        """
        if self._reread is None and self._unread is not None:
            raise Unsupported(self._unread)
        self._used = 0
        while len(self._queue) < n:
            leaves = self._pool(batches)
            if leaves is None:
                break
            self._queue.append((self._no_indices, *leaves))
        return len(self._queue)

    def take(self, batches: PeekableBatches) -> None:
        """Use the batches that the last pools were made of, once the steps on them have been taken."""
        batches.take(self._used)

    @property
    def iterator(self) -> Any:
        """An iterator over the pools that are ready, as `(indices, *columns)`; the indices are -1."""
        if self._iterator is None:
            self._iterator = backend.queue_iterator(self._queue, lambda leaves: leaves, static=True)
        return self._iterator

    def close(self) -> None:
        """Stop reading."""
        self._iterator = None
        if self._second_reading is not None:
            self._second_reading.close()
            self._second_reading = None

    def _pool(self, batches: PeekableBatches) -> list | None:
        """Return the leaves of the next pool; None if the rest of the pass isn't enough for one."""
        used = self._used + 1
        peeked = batches.peek(used)
        if len(peeked) < used:
            return None
        parts = [] if self._leftover is None else [self._leftover]
        parts.append(flatten(unpack_batch(peeked[-1]))[0])
        size = sum(map(count_rows, parts))
        while size < self.pool_size:
            if self._reread is None:
                used += 1
                peeked = batches.peek(used)
                if len(peeked) < used:
                    return None
                batch = peeked[-1]
            else:
                batch = self._read_second()
            parts.append(flatten(unpack_batch(batch))[0])
            size += count_rows(parts[-1])
        if len({tuple(map(backend.row_spec, part)) for part in parts}) > 1:
            raise Unsupported(DIFFERENT_ROWS)
        self._used = used
        leaves = backend.concatenate(parts)
        self._leftover = (
            [backend.slice_tensor(leaf, self.pool_size, size) for leaf in leaves] if size > self.pool_size else None
        )
        return leaves if size == self.pool_size else [backend.slice_tensor(leaf, 0, self.pool_size) for leaf in leaves]

    def _read_second(self) -> Any:
        """Return the next batch of the second reading."""
        try:
            if self._second_reading is None:
                self._second_reading = self._reread()
            return next(self._second_reading)
        except Exception as error:  # of any type, raised by the user's code; Keras's own reading continues
            raise Unsupported(
                f"the data couldn't be read a second time, for candidates ({type(error).__name__}: {error}). Make them "
                "readable by two iterators at the same time, or pass a generator, which is read once"
            ) from error
