"""Batches: their tensors and rows, and reading them in advance without using them.

A later step can still train on batches that were read in advance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import keras

from importance_sampling import backend

DEFAULT_BATCH_SIZE = 32  # Keras's


def flatten(data: tuple) -> tuple[list, Callable]:
    """Flatten a nested structure of tensors.

    Args:
        data: tuples, lists and dicts of tensors and None.

    Returns:
        The tensors, without None; and a function that packs a list of as many tensors into the same structure.
    """
    leaves = keras.tree.flatten(data)
    is_tensor = [leaf is not None for leaf in leaves]
    structure = keras.tree.map_structure(lambda _: 0, data)  # without the tensors, so that `pack` doesn't hold them

    def pack(tensors: Any) -> tuple:
        remaining = iter(tensors)
        return keras.tree.pack_sequence_as(structure, [next(remaining) if present else None for present in is_tensor])

    return [leaf for leaf in leaves if leaf is not None], pack


def unpack_batch(batch: Any) -> tuple:
    """Return a batch as `(x, y, sample_weight)`; missing parts are None."""
    return keras.utils.unpack_x_y_sample_weight(backend.whole_batch(batch))


def count_rows(data: Any) -> int | None:
    """Return the number of rows of the first tensor of a nested structure, None if it isn't static."""
    return next(leaf for leaf in keras.tree.flatten(data) if leaf is not None).shape[0]


class PeekableBatches:
    """The batches of one pass over the data, in the order of Keras's iterator.

    Args:
        iterator: Keras's iterator; None (default) before a pass has begun.

    Attributes:
        iterator: Keras's iterator, which yields the batches after those that were peeked at.
        taken: int, the number of batches that steps have used, including those that a step read from `iterator`.

    Example:
        >>> batches = PeekableBatches(iter([1, 2, 3]))
        >>> batches.peek(2), batches.take(1), batches.take(5)
        ([1, 2], [1], [2, 3])
    """

    def __init__(self, iterator: Iterator | None = None):
        self.iterator = iterator
        self.taken = 0
        self._peeked: deque = deque()  # batches that were read and not used yet
        self._executions = 1  # with an iterator for each of them

    def replace_iterator(self, iterator: Iterator) -> None:
        """Continue with an iterator that yields the batches after one that was passed to the previous call.

        For backends on which Keras draws the batch of every step itself, also if the step doesn't use it.
        """
        self.iterator = iterator
        self._peeked.clear()
        self.taken = self._executions
        self._executions += 1

    @property
    def has_peeked(self) -> bool:
        """True if the next batch is no longer in the iterator."""
        return bool(self._peeked)

    def peek(self, n: int) -> list:
        """Return the next n batches without using them; fewer at the end of the pass."""
        while len(self._peeked) < n:
            try:
                self._peeked.append(next(self.iterator))
            except StopIteration:
                break
        return [self._peeked[i] for i in range(min(n, len(self._peeked)))]

    def take(self, n: int) -> list:
        """Return the next n batches and use them; fewer at the end of the pass."""
        batches = self.peek(n)
        for _ in batches:
            self._peeked.popleft()
        self.taken += len(batches)
        return batches

    def stream(self, n: int) -> Iterator[Any]:
        """Yield the next n batches, each used as it is yielded; fewer at the end of the pass."""
        for _ in range(n):
            batches = self.take(1)
            if not batches:
                return
            yield batches[0]
