"""A Keras callback that counts the seconds and the cost of training, evaluates the model and stops at a budget.

Seconds include everything in `fit` except evaluation, compilation, and the time in which other threads run. Cost is
counted in forward passes of a batch, with a backward pass as two of them, so it doesn't depend on the machine.
"""

from __future__ import annotations

import collections
import math
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from importance_sampling.conditions.base import UNIFORM_STEP

UNITS = ("seconds", "cost", "epochs")  # of a budget
WARM_UP = 8  # the first steps aren't timed: they include compilation
COMPILATION = 10.0  # a step that takes this many times the median is compiled, or the machine was interrupted
RECENT = 101  # steps in the median
SAME = 1e-6  # results of an evaluation that differ by a smaller fraction are those of the same weights


class Clock(keras.callbacks.Callback):
    """Counts the cost of training, evaluates the model at regular intervals, and stops training at a budget.

    The first eight steps aren't timed. Neither is a later step that includes compilation: one that takes over ten times
    as long per unit of cost as the median of recent steps, the first time that this happens at its place in the epoch.
    Work that recurs, such as planning an epoch, is timed. The seconds of untimed steps are estimated from their cost
    and the seconds per unit of cost of the timed steps.

    Args:
        trainer: the model or its trainer; the attribute `forward_equivalents` gives its cost.
        evaluation: function from the model to a dict of floats.
        budget: float > 0, in the unit `by`.
        by: "seconds" (default), "cost" or "epochs".
        measurements: int >= 1, default 20; the number of measurements after that of the untrained model.
        decay: function from the spent fraction of the budget, in [0, 1], to a factor of the compiled learning rate.
            None (default) means a constant learning rate.
        turn: float > 0, in the unit of the budget, default infinity; the interval between calls of `hand_over`.
        hand_over: function without arguments that lets other threads run; its duration isn't counted.
        measured: called with the clock after every measurement; its duration isn't counted.

    Attributes:
        seconds, cost, epochs, steps: the seconds, cost, epochs and steps of training so far.
        importance_steps: int, the number of importance steps so far; 0 for a model without a trainer.
        stopped_early: bool, True after training that ended before the budget was spent.
        points: list of dicts, the measurements: "seconds", "cost" and "steps", and the results of `evaluation`.
        interrupted: bool; set it to True to stop training after the next step.

    Example:
        >>> def validate(model):
        ...     return model.evaluate(x_val, y_val, verbose=0, return_dict=True)
        >>> clock = Clock(trainer, validate, budget=2, by="epochs")
        >>> history = trainer.fit(x_train, y_train, epochs=10**6, verbose=0, callbacks=[clock])
        >>> clock.epochs, clock.points[-1]["loss"] < clock.points[0]["loss"]
        (2.0, True)
    """

    def __init__(
        self,
        trainer: Any,
        evaluation: Callable[[keras.Model], dict[str, float]],
        budget: float,
        by: str = "seconds",
        measurements: int = 20,
        decay: Callable[[float], float] | None = None,
        turn: float = float("inf"),
        hand_over: Callable[[], None] = lambda: None,
        measured: Callable[[Clock], None] = lambda clock: None,
    ):
        super().__init__()
        if by not in UNITS:
            raise ValueError(f"`by` must be one of {', '.join(UNITS)}. Received: by={by!r}")
        self.trainer, self.evaluation = trainer, evaluation
        self.budget, self.by, self.measurements, self.decay = budget, by, measurements, decay
        self.turn, self.hand_over, self.measured = turn, hand_over, measured
        self.seconds = self.cost = self.epochs = 0.0
        self.steps = self.importance_steps = 0
        self.points: list[dict[str, float]] = []
        self.interrupted = self.stopped_early = False
        self._timed_seconds = self._timed_cost = 0.0
        self._recent: collections.deque[float] = collections.deque(maxlen=RECENT)  # seconds per unit of cost
        self._compiled: set[tuple[int, bool]] = set()  # places with a step that wasn't timed
        self._turn_start = 0.0  # in the unit of the budget

    @property
    def spent(self) -> float:
        """The spent budget, in the unit `by`."""
        return getattr(self, self.by)

    @property
    def open_steps(self) -> int:
        """Deprecated: use `importance_steps`."""
        warnings.warn("`Clock.open_steps` is deprecated: use `importance_steps`.", DeprecationWarning, stacklevel=2)
        return self.importance_steps

    def record(self) -> dict:
        """Return the counters and measurements as a dict of numbers."""
        return dict(
            steps=self.steps,
            seconds=self.seconds,
            cost=self.cost,
            importance_steps=self.importance_steps,
            stopped_early=self.stopped_early,
            points=self.points,
        )

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Evaluate the untrained model and start the timer."""
        self._initial_cost = forward_equivalents(self.trainer, 0)
        self._initial_importance_steps = _importance_steps(self.trainer)
        if self.decay is not None:
            self._initial_rate = float(self.model.optimizer.learning_rate)
        self._evaluate()
        self._decay_learning_rate()
        self._step_start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Update the counters, then evaluate, stop or switch threads if it is time."""
        self._count(batch, time.perf_counter() - self._step_start)
        if self.params.get("steps"):
            self.epochs = int(self.epochs) + min((batch + 1) / self.params["steps"], 1.0 - 1e-9)
        self._measure_if_due()
        if self.interrupted or self.spent >= self.budget:
            self.model.stop_training = True
        elif self.spent - self._turn_start >= self.turn:
            self._turn_start = self.spent
            self.hand_over()
        self._decay_learning_rate()
        self._step_start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Count the epoch, then evaluate or stop if it is time."""
        start = time.perf_counter()
        self.epochs = int(self.epochs) + 1.0
        self._measure_if_due()
        if self.spent >= self.budget:  # one of epochs, which the last batch doesn't reach
            self.model.stop_training = True
        self._step_start += time.perf_counter() - start

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Stop the timer during the validation of `fit`."""
        self._test_start = time.perf_counter()

    def on_test_end(self, logs: dict | None = None) -> None:
        """Start the timer after the validation of `fit`."""
        self._step_start += time.perf_counter() - self._test_start

    def on_train_end(self, logs: dict | None = None) -> None:
        """Evaluate the model, which may have changed after the last step: a callback may have restored weights."""
        self.stopped_early = self.spent < self.budget * (1 - 1e-9)
        point, last = self._measurement(), self.points[-1]
        before = [last.get(name, math.nan) for name in point]
        if last["steps"] != self.steps or not np.allclose(list(point.values()), before, SAME, 0.0, equal_nan=True):
            self._add(point)

    def _count(self, batch: int, duration: float) -> None:
        """Add a step to the counters."""
        self.steps += 1
        before, self.importance_steps = self.importance_steps, self._count_importance_steps()
        cost = forward_equivalents(self.trainer, self.steps) - self._initial_cost
        added, self.cost = cost - self.cost, cost
        place, rate = (batch, self.importance_steps > before), duration / added
        is_warm = len(self._recent) >= WARM_UP
        if is_warm and rate > COMPILATION * statistics.median(self._recent) and place not in self._compiled:
            self._compiled.add(place)
            is_warm = False
        self._recent.append(rate)
        if is_warm:
            self._timed_seconds += duration
            self._timed_cost += added
        if self._timed_cost:
            self.seconds = max(self.seconds, self._timed_seconds * self.cost / self._timed_cost)

    def _count_importance_steps(self) -> int:
        return _importance_steps(self.trainer) - self._initial_importance_steps

    def _measure_if_due(self) -> None:
        if self.spent >= len(self.points) * self.budget / self.measurements * (1 - 1e-9):
            self._evaluate()

    def _evaluate(self) -> None:
        self._add(self._measurement())

    def _measurement(self) -> dict[str, float]:
        return dict(seconds=self.seconds, cost=self.cost, steps=self.steps) | self.evaluation(self.model)

    def _add(self, point: dict[str, float]) -> None:
        self.points.append(point)
        self.measured(self)

    def _decay_learning_rate(self) -> None:
        if self.decay is not None:
            factor = self.decay(min(self.spent / self.budget, 1.0))
            self.model.optimizer.learning_rate = self._initial_rate * factor


def _importance_steps(trainer: Any) -> int:
    return getattr(trainer, "importance_steps", 0)


def forward_equivalents(trainer: Any, steps: int) -> float:
    """Return the cost of a trainer's training so far, in forward passes of a batch.

    Args:
        trainer: a trainer with an attribute `forward_equivalents`; or a model or another object, with a cost of 3 per
            step.
        steps: int, the number of steps so far; used for objects without the attribute.
    """
    return float(getattr(trainer, "forward_equivalents", UNIFORM_STEP * steps))
