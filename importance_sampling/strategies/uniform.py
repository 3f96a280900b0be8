"""Uniform steps: Keras's own step, on the batches of Keras's own iterator, in their order.

If a listener needs row indices, the order of a pass is recorded as it begins, and a batch is identified by its place
in that order. Source: `keras.src.backend.tensorflow.trainer`, for the iterators that Keras's function accepts.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from typing import Any

import keras
import numpy as np

from importance_sampling import backend
from importance_sampling.conditions.base import UNIFORM_STEP
from importance_sampling.data.batches import PeekableBatches, count_rows, flatten
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.state import steps_taken
from importance_sampling.strategies.base import StepResult
from importance_sampling.strategies.compiled_steps import KerasFunction


class UniformSteps:
    """Takes uniform steps.

    Args:
        model: the user's model.
        keras_function: Keras's training function.
        plan: the data.
        with_rows: bool, return the row indices of every step.
    """

    def __init__(self, model: keras.Model, keras_function: KerasFunction, plan: FitPlan, with_rows: bool):
        self.model = model
        self.keras_function = keras_function
        self.plan = plan
        self.with_rows = with_rows and plan.source is not None
        self._peeked: deque = deque()  # a batch that was scored first, on its way to Keras's function
        self._peeked_iterator: Any = None  # over these batches, in all passes
        self.begin_pass()

    def begin_pass(self) -> None:
        """Reset what belongs to one pass over the data."""
        self._order: np.ndarray | None = None
        self._queue: deque = deque()  # batches that were read here, on their way to Keras's function
        self._queue_iterator: Any = None

    def release(self) -> None:
        """Drop all references to the data."""
        self.plan, self._peeked, self._peeked_iterator = FitPlan({}), deque(), None
        self.begin_pass()

    def step(self, n: int, batches: PeekableBatches) -> StepResult:
        """Take up to n uniform steps.

        Args:
            n: int >= 1.
            batches: the batches of the pass.

        Returns:
            `StepResult`.
        """
        first = batches.taken
        if self.with_rows and self.plan.order is None:
            logs, sizes = self._step_on_stream(n, batches)
            indices = [np.full(size, -1, "int64") for size in sizes]
            steps = len(sizes)
        else:
            logs, steps = self._step_on_batches(n, batches)
            indices = self._rows_of(first, steps) if self.with_rows else []
        self.keras_function.is_traced = True
        ones_and_nans = [_uniform_weights_and_scores(len(rows)) for rows in indices]
        weights, scores = zip(*ones_and_nans, strict=True) if ones_and_nans else ((), ())
        return StepResult(logs, steps, UNIFORM_STEP * steps, indices, weights, scores)

    def _step_on_batches(self, n: int, batches: PeekableBatches) -> tuple[dict, int]:
        """Call Keras's function; return the logs and the number of steps that it took."""
        steps_of_keras = self._steps_of_keras(batches)
        if batches.has_peeked and n == steps_of_keras == 1:
            self._peeked.extend(batches.take(1))
            self._peeked_iterator = self._peeked_iterator or backend.queued_batches(self._peeked, batches.iterator)
            return self.keras_function(self._peeked_iterator), 1
        if batches.has_peeked or n != steps_of_keras:
            # Keras's function accepts a Python iterable of batches too, and steps through it with the same step.
            first, taken = batches.take(1), batches.taken
            if not first:
                return self.keras_function(batches.iterator), 0  # which ends the pass as Keras expects
            logs = self.keras_function(itertools.chain(first, batches.stream(n - 1)))
            return logs, batches.taken - taken + 1
        before = self._optimizer_steps()
        logs = self.keras_function(batches.iterator)
        if not self.plan.batches_per_pass and n > 1:
            n = max(self._optimizer_steps() - before, 1)
        batches.taken += n
        return logs, n

    def _step_on_stream(self, n: int, batches: PeekableBatches) -> tuple[dict, list[int]]:
        """Call Keras's function on batches that are read here; return the logs and the sizes of the batches."""
        whole = self._steps_of_keras(batches)
        taken = [backend.without_optionals(batch) for batch in batches.take(n)]
        if not taken:
            return self.keras_function(batches.iterator), []
        # Once it was traced on an iterator, single batches cost less passed as they are.
        is_single = whole == 1 and self.keras_function.is_traced
        if len(taken) == whole and not is_single and backend.replicas(self.model) == 1:
            self._queue.extend(tuple(flatten(batch)[0]) for batch in taken)
            self._queue_iterator = self._queue_iterator or backend.queue_iterator(self._queue, flatten(taken[0])[1])
            logs = self.keras_function(self._queue_iterator)
        else:
            logs = self.keras_function(iter(taken))
        return logs, [count_rows(backend.whole_batch(batch)) for batch in taken]

    def _steps_of_keras(self, batches: PeekableBatches) -> int:
        """Return how many batches Keras's function would take from its own iterator."""
        steps = self.model.steps_per_execution
        if self.plan.batches_per_pass:
            steps = min(steps, self.plan.batches_per_pass - batches.taken)
        return steps

    def _rows_of(self, first: int, steps: int) -> list[np.ndarray]:
        """Return the row indices of batches by their numbers in the pass."""
        if self._order is None:  # read once: a strategy's next iterator begins its pass early
            self._order = self.plan.order.rows
        size = self.plan.batch_size
        return [self._order[number * size : (number + 1) * size] for number in range(first, first + steps)]

    def _optimizer_steps(self) -> int:
        """Return the optimizer's count of steps, if an execution may have fewer steps than requested; else 0."""
        if self.plan.batches_per_pass or self.model.steps_per_execution == 1:
            return 0
        return steps_taken(self.model) or 0


@functools.lru_cache
def _uniform_weights_and_scores(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights of 1 and scores of NaN, shared by all listeners and therefore read-only."""
    arrays = np.ones(rows, "float32"), np.full(rows, np.nan, "float32")
    for array in arrays:
        array.flags.writeable = False
    return arrays
