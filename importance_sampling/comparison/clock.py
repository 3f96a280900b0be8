"""The clock of a `fit`: counts seconds and cost of training, measures along the way, stops when the budget is spent.

Seconds are those of the whole `fit` but for evaluation, waiting for a turn, and compilation. Cost is counted in
forward passes of a batch, a backward pass as two, which no noisy machine can bend. It trains nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from importance_sampling.comparison.data import Data
from importance_sampling.conditions.cost import PLAIN_STEP

UNITS = ("seconds", "cost", "steps")  # that a budget may be of
WARM_UP = 3  # first steps, slow for reasons of their own


class Point(NamedTuple):
    """What was measured at one moment."""

    seconds: float  # of training
    cost: float  # forward passes of a batch
    steps: int
    train_loss: float  # on the first training rows, in inference mode
    test_loss: float
    test_error: float  # in the unit of the `Evaluation`'s error


class Evaluation:
    """Measures a model as `model.evaluate` does.

    Args:
        data: `Data`.
        error: from the dict that `model.evaluate` returns for the test set to the error; default: per cent that a
            metric `accuracy` finds wrong.
        rows: int, how many training rows the training loss is measured on, default 10000, the first ones.
    """

    def __init__(self, data: Data, error: Callable[[dict], float] | None = None, rows: int = 10000):
        self.train, self.test = (data.x_train[:rows], data.y_train[:rows]), (data.x_test, data.y_test)
        self.error = error or (lambda figures: 100.0 * (1.0 - figures["accuracy"]))

    def __call__(self, model: keras.Model) -> tuple[float, float, float]:
        """Training loss, test loss, test error."""
        train = model.evaluate(*self.train, batch_size=1000, verbose=0, return_dict=True)
        test = model.evaluate(*self.test, batch_size=1000, verbose=0, return_dict=True)
        return train["loss"], test["loss"], self.error(test)


class Clock(keras.callbacks.Callback):
    """Counts, measures at regular moments, hands over turns, and stops when the budget is spent.

    A step in which something was compiled isn't timed; it is charged by its cost, at the seconds that a unit of cost
    took in the steps that were.

    Args:
        trainer: the model, or a trainer of it; asked for `forward_equivalents`.
        evaluation: from the model to `(train_loss, test_loss, test_error)`.
        budget: float > 0, in units of `by`.
        by: "seconds" (default), "cost" or "steps".
        measurements: int >= 1, how many after the first, which is of the untrained model.
        decay: None, or from the share of the budget that is spent, in [0, 1], to what the compiled learning rate is
            multiplied by.
        turn: float, how much of the budget a turn is.
        hand_over: called at the end of a turn; the clock stands still in it.
        measured: called with the clock after every measurement, likewise.

    Attributes:
        seconds, cost, steps: of training so far.
        open_steps: int, importance steps among them, 0 for a trainer without an attribute `open_steps`.
        points: list of `Point`.
        interrupted: set it to stop training at the next step.

    Example:
        >>> clock = Clock(trainer, Evaluation(data), budget=20.0)
        >>> history = trainer.fit(data.x_train, data.y_train, epochs=10**6, verbose=0, callbacks=[clock])
        >>> clock.points[-1].train_loss
    """

    def __init__(
        self,
        trainer: Any,
        evaluation: Callable[[keras.Model], tuple[float, float, float]],
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
        self.seconds = self.cost = 0.0
        self.steps = self.open_steps = 0
        self.points: list[Point] = []
        self.interrupted = False
        self._timed = self._timed_cost = 0.0
        self._handed_over = 0.0

    @property
    def spent(self) -> float:
        """Of the budget."""
        return getattr(self, self.by)

    def record(self) -> dict:
        """What was counted and measured, of plain numbers."""
        return dict(
            steps=self.steps,
            seconds=self.seconds,
            cost=self.cost,
            open_steps=self.open_steps,
            points=[point._asdict() for point in self.points],
        )

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Measure the untrained model, and start."""
        self._cost_before = forward_equivalents(self.trainer, 0)
        self._open_steps_before = getattr(self.trainer, "open_steps", 0)
        self._rate = float(self.model.optimizer.learning_rate)
        self._watch()
        self._measure()
        self._adjust()
        self._start()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Stop, count, see what is due, start again."""
        lap = time.perf_counter() - self._started
        self.steps += 1
        self.open_steps = getattr(self.trainer, "open_steps", 0) - self._open_steps_before
        cost = forward_equivalents(self.trainer, self.steps) - self._cost_before
        if self.steps > WARM_UP and not self._traced:
            self._timed += lap
            self._timed_cost += cost - self.cost
        self.cost = cost
        if self._timed_cost:
            self.seconds = max(self.seconds, self._timed * self.cost / self._timed_cost)
        if self.spent >= len(self.points) * self.budget / self.measurements:
            self._measure()
        if self.interrupted or self.spent >= self.budget:
            self.model.stop_training = True
        elif self.spent - self._handed_over >= self.turn:
            self._handed_over = self.spent
            self.hand_over()
        self._adjust()
        self._start()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Leave the model as it was; Keras doesn't call this where an exception ends the training."""
        if "call" in vars(self.model):
            del self.model.call

    def _start(self) -> None:
        self._traced = False
        self._started = time.perf_counter()

    def _watch(self) -> None:
        """Notice when the model is called from Python: compiled, it only is while a step is traced."""
        call = self.model.call

        def watched(*args: Any, **kwargs: Any) -> Any:
            self._traced = True
            return call(*args, **kwargs)

        self.model.call = watched

    def _measure(self) -> None:
        self.points.append(Point(self.seconds, self.cost, self.steps, *self.evaluation(self.model)))
        self.measured(self)

    def _adjust(self) -> None:
        if self.decay is not None:
            self.model.optimizer.learning_rate = self._rate * self.decay(min(self.spent / self.budget, 1.0))


def forward_equivalents(trainer: Any, steps: int) -> float:
    """What a trainer says that its training has cost, in forward passes of a batch.

    Args:
        trainer: a trainer with an attribute `forward_equivalents`, or a model, or a trainer without one: 3 a step.
        steps: int, how many it took.
    """
    return float(getattr(trainer, "forward_equivalents", PLAIN_STEP * steps))
