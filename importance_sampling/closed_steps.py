"""Plain steps while a trainer's `fit` runs: Keras's own step, on the batches of Keras's own iterator, in their order.

Where somebody wants to know which rows they are on, the order of a pass is noted as it begins, and a batch is known by
its place in it. When a step is plain, and what a probe does, is decided elsewhere.
Source: `keras.src.backend.tensorflow.trainer` for what Keras's function takes.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.scores import flat
from importance_sampling.sources import Prepared


class ClosedSteps:
    """Takes plain steps, and knows which batches Keras's iterator has handed out.

    Args:
        model: the user's.
        function: Keras's training function.
        prepared: the data.
        tell: None, or told the rows of every plain step, an int64 array.

    Attributes:
        taken: int, how many batches of the pass under way were taken from Keras's iterator.
    """

    def __init__(self, model: keras.Model, function: Callable, prepared: Prepared, tell: Callable | None):
        self.model = model
        self.function = function
        self.prepared = prepared
        self.tell = None if prepared.source is None else tell
        self.begin(None)

    def begin(self, iterator: Any) -> None:
        """A pass begins."""
        self.iterator = iterator
        self.taken = 0
        self._order: np.ndarray | None = None
        self._held: deque = deque()  # batches that were drawn and not yet used
        self._queue: deque = deque()  # batches that were looked at, on their way to Keras's function
        self._feed: Any = None  # the iterator that hands them over

    def draw(self) -> Any:
        """The batch that Keras would train on next; raises StopIteration at the end of a pass, as Keras expects it."""
        return self._held.popleft() if self._held else next(self.iterator)

    def give_back(self, batches: list) -> None:
        """Batches that were drawn and not used, in their order."""
        self._held.extendleft(reversed(batches))

    def peek(self, n: int) -> list:
        """Return the n batches that Keras would draw next; fewer at the end of a pass."""
        batches = list(self._drawn(n))
        self.give_back(batches)
        return batches

    def take(self, steps: int, is_traced: bool, probe: Callable | None) -> tuple[dict, int]:
        """Take steps; returns the logs of the last, and how many there were.

        Args:
            steps: at most so many.
            is_traced: whether `function` has run.
            probe: None, or called with the first batch ahead of them.
        """
        # What Keras's function would take of its iterator, were it handed over.
        left = self.model.steps_per_execution
        if self.prepared.num_batches:
            left = min(left, self.prepared.num_batches - self.taken)
        if self.tell and self.prepared.order is None:
            logs, steps = self._take_unnumbered(steps, probe, is_traced, left)
        elif probe or left != steps or self._held:
            # Keras's function takes a Python iterable of batches as well, and steps through it with the same step.
            batches = _Counted(self._drawn(steps))
            first = next(batches, None)
            if first is None:
                return self.function(self.iterator), 0  # it is exhausted, and says so as Keras expects
            if probe:
                probe(first)
            logs, steps = self.function(itertools.chain([first], batches)), batches.count
        else:
            before = self._updates()
            logs = self.function(self.iterator)
            if not self.prepared.num_batches and steps > 1:
                steps = max(self._updates() - before, 1)
        if self.tell and self.prepared.order is not None:
            self._tell_rows(steps)
        self.taken += steps
        return logs, steps

    def _tell_rows(self, steps: int) -> None:
        """Tell the rows of the batches after those that were taken."""
        if self._order is None:  # read once: a strategy's next iterator begins its pass ahead of its turn
            self._order = self.prepared.order.rows
        size = self.prepared.batch_size
        for number in range(self.taken, self.taken + steps):
            self.tell(self._order[number * size : (number + 1) * size])

    def _take_unnumbered(self, steps: int, probe: Callable | None, is_traced: bool, left: int) -> tuple[dict, int]:
        """Find out how many rows plain steps train on that have no numbers, and hand them on in the same order."""
        batches = [backend.without_optionals(batch) for batch in self._drawn(steps)]
        if not batches:
            return self.function(self.iterator), 0
        if probe:
            probe(batches[0])
        # Once it was traced on an iterator, single batches cost less handed over as they are.
        if len(batches) == left and not (left == 1 and is_traced):
            self._queue.extend(tuple(flat(batch)[0]) for batch in batches)
            self._feed = self._feed or backend.feed(self._queue, flat(batches[0])[1])
            logs = self.function(self._feed)
        else:
            logs = self.function(iter(batches))
        for batch in batches:
            self.tell(np.full(flat(batch)[0][0].shape[0], -1, "int64"))
        return logs, len(batches)

    def _drawn(self, n: int) -> Iterator[Any]:
        """Up to n batches."""
        for _ in range(n):
            try:
                yield self.draw()
            except StopIteration:
                return

    def _updates(self) -> int:
        """How many updates the optimizer has made, where an execution may have fewer steps than it was to have."""
        if self.prepared.num_batches or self.model.steps_per_execution == 1 or self.model.optimizer is None:
            return 0
        return int(backend.host(keras_internals.optimizer_steps(self.model.optimizer)))


class _Counted:
    """An iterator that counts what was taken of it."""

    def __init__(self, iterator: Iterator):
        self.iterator = iterator
        self.count = 0

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        taken = next(self.iterator)
        self.count += 1
        return taken
