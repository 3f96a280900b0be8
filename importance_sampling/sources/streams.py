"""Streams as a source: data that come batch by batch, whose rows have no numbers.

Every open step takes the batch that Keras would, so that an epoch has Keras's steps and ends where Keras's ends, and
joins further rows to it until the pool is full: of a second reading of what can be read again, or of the next batches
where a stream has no end or can be read but once. Nothing is read before the gate opens, and never further ahead than
a pool and what the stream itself prefetches.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from importance_sampling import backend
from importance_sampling.scores import flat
from importance_sampling.weighted_loss import Unsupported

DIFFERENT_ROWS = (
    "batches of these data differ in more than the number of rows, and can't be joined to a pool. Pad them to one shape"
)


class StreamSource:
    """A stream of batches.

    Args:
        again: called as `again(seed)`, makes a second reading, an object with `__next__` and `close`; None where there
            can't or needn't be one.
        rereads_iterator: bool, default False; True makes second readings of the data that Keras's iterator reads, for
            models whose own `fit` prepares the data.

    Attributes:
        pack: puts a list of leaves back in place.
    """

    has_rows = is_resident = False
    failure = None

    def __init__(self, again: Callable | None, rereads_iterator: bool = False):
        self._again = again
        self._rereads_iterator = rereads_iterator
        self._example: tuple | None = None
        self._size = 0
        self.pack: Callable | None = None
        self.signature: tuple = ()

    def begin_pass(self, iterator: Any) -> None:
        """Use the data that Keras's iterator reads for second readings, if there is no other way to read them."""
        if self._rereads_iterator:
            self._again = backend.reading_of(iterator)

    def examine(self, batch: Any) -> int:
        """Take the largest batch so far as the example of all; return its number of rows.

        Raises:
            Unsupported: batches can't be joined.
        """
        example = unpacked(batch)
        leaves, pack = flat(example)
        rows = {int(leaf.shape[0]) for leaf in leaves}
        if len(rows) != 1:
            raise Unsupported("the arrays of a batch differ in their number of rows. Make it the same")
        structure = repr(keras.tree.map_structure(lambda leaf: leaf is not None, example))
        signature = (structure, *map(backend.kind, leaves))
        if self.signature not in ((), signature):
            raise Unsupported(DIFFERENT_ROWS)
        size = max(rows.pop(), self._size)
        if size > self._size:
            self._example, self.pack, self.signature, self._size = example, pack, signature, size
        return size

    def example(self, size: int) -> tuple:
        """Return the largest batch so far, as `(x, y, sample_weight)`, whatever its size."""
        return self._example

    def forget(self) -> None:
        """Let go of the data."""
        self._example = self._again = None

    def pools(self, pool_size: int, seed: int, start: int, draw: Callable, give_back: Callable) -> JoinedPools:
        """Pools of candidates; in what order a second reading goes depends on `seed` and `start` where we order it.

        Args:
            draw: returns the batch that Keras would train on next, raises StopIteration where its pass ends.
            give_back: takes a list of batches that were drawn and not used, in their order.
        """
        again = None if self._again is None else functools.partial(self._again, seed + start)
        return JoinedPools(pool_size, again, draw, give_back)


class JoinedPools:
    """Pools joined of batches, on their way to the compiled steps.

    Args:
        pool_size: int.
        again: called without arguments, makes a second reading; None where there is none.
        draw, give_back: as for `StreamSource.pools`.
    """

    def __init__(self, pool_size: int, again: Callable | None, draw: Callable, give_back: Callable):
        self._draw = draw
        self._give_back = give_back
        self._again = again
        self._second: Any = None
        self._rest: list | None = None  # leaves of rows that were read and wait for the next pool
        self._queue: deque = deque()
        self.resized(pool_size)

    def resized(self, pool_size: int) -> JoinedPools:
        """Itself, with pools of another size from here on, once those that were ready are gone."""
        self.pool_size = pool_size
        self._feed: Any = None
        self._unknown = backend.resident(np.full(pool_size, -1, "int64"))
        return self

    def fill(self, n: int) -> int:
        """Have up to n pools ready; fewer where the pass ends. Returns how many.

        Raises:
            Unsupported: the stream can't be read a second time.
        """
        while len(self._queue) < n:
            leaves = self._pool()
            if leaves is None:
                break
            self._queue.append((self._unknown, *leaves))
        return len(self._queue)

    @property
    def iterator(self) -> Any:
        """Hands the pools that are ready to the compiled steps, as `(indices, *columns)`; the indices are -1."""
        if self._feed is None:
            self._feed = backend.feed(self._queue, lambda leaves: leaves, static=True)
        return self._feed

    def close(self) -> None:
        """Stop reading."""
        self._feed = None
        if self._second is not None:
            self._second.close()
            self._second = None

    def _pool(self) -> list | None:
        try:
            drawn = [self._draw()]
        except StopIteration:
            return None
        parts = [] if self._rest is None else [self._rest]
        parts.append(flat(unpacked(drawn[0]))[0])
        size = sum(map(_size, parts))
        while size < self.pool_size:
            if self._again is None:
                try:
                    drawn.append(self._draw())
                except StopIteration:
                    self._give_back(drawn)
                    return None
                more = drawn[-1]
            else:
                more = self._read_on(drawn)
            parts.append(flat(unpacked(more))[0])
            size += _size(parts[-1])
        if len({tuple(map(backend.kind, part)) for part in parts}) > 1:
            self._give_back(drawn)
            raise Unsupported(DIFFERENT_ROWS)
        leaves = backend.concatenate(parts)
        self._rest = [backend.rows(leaf, self.pool_size, size) for leaf in leaves] if size > self.pool_size else None
        return leaves if size == self.pool_size else [backend.rows(leaf, 0, self.pool_size) for leaf in leaves]

    def _read_on(self, drawn: list) -> Any:
        try:
            if self._second is None:
                self._second = self._again()
            return next(self._second)
        except Exception as error:  # whatever a stream's own code raises; Keras's reading of it goes on
            self._give_back(drawn)
            raise Unsupported(
                f"the data couldn't be read a second time, for candidates ({type(error).__name__}: {error}). Make them "
                "readable by two iterators at a time, or hand over a generator, which is read once"
            ) from error


def unpacked(batch: Any) -> tuple:
    """A batch as `(x, y, sample_weight)`, None where there is nothing."""
    return keras.utils.unpack_x_y_sample_weight(backend.without_optionals(batch))


def _size(leaves: list) -> int:
    return int(leaves[0].shape[0])
