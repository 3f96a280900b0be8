"""A Keras callback that counts the seconds and the cost of training, evaluates the model and stops at a budget.

Seconds include everything in `fit` except evaluation, compilation, and the time in which other threads run. Cost is
counted in forward passes of a batch, where a backward pass counts as two, so it doesn't depend on the machine.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from importance_sampling.comparison.data import Data
from importance_sampling.conditions.base import UNIFORM_STEP

UNITS = ("seconds", "cost", "steps")  # of a budget
WARM_UP = 3  # the first steps aren't timed, because they are slower


class Point(NamedTuple):
    """A measurement during training."""

    seconds: float  # of training
    cost: float  # forward passes of a batch
    steps: int
    train_loss: float  # on the first training samples, in inference mode
    test_loss: float
    test_error: float  # in the unit of the error function of the `Evaluation`


class Evaluation:
    """Evaluates a model with `model.evaluate`.

    Args:
        data: `Data`.
        error: function from the dict that `model.evaluate` returns for the test set to the test error. None (default)
            means 100 (1 - accuracy), in per cent; this needs a metric named `accuracy`.
        rows: int, default 10000; the number of training samples for the training loss, the first ones.
    """

    def __init__(self, data: Data, error: Callable[[dict], float] | None = None, rows: int = 10000):
        self.train, self.test = (data.x_train[:rows], data.y_train[:rows]), (data.x_test, data.y_test)
        self.error = error or (lambda results: 100.0 * (1.0 - results["accuracy"]))

    def __call__(self, model: keras.Model) -> tuple[float, float, float]:
        """Return training loss, test loss and test error."""
        train = model.evaluate(*self.train, batch_size=1000, verbose=0, return_dict=True)
        test = model.evaluate(*self.test, batch_size=1000, verbose=0, return_dict=True)
        return train["loss"], test["loss"], self.error(test)


class Clock(keras.callbacks.Callback):
    """Counts the cost of training, evaluates the model at regular intervals, and stops training at a budget.

    Steps with compilation, and the first three steps, aren't timed. Their seconds are estimated from their cost and the
    seconds per unit of cost of the timed steps.

    Args:
        trainer: the model or its trainer; the attribute `forward_equivalents` gives its cost.
        evaluation: function from the model to `(train_loss, test_loss, test_error)`.
        budget: float > 0, in the unit `by`.
        by: "seconds" (default), "cost" or "steps".
        measurements: int >= 1, default 20; the number of measurements after that of the untrained model.
        decay: function from the spent fraction of the budget, in [0, 1], to a factor of the compiled learning rate.
            None (default) means a constant learning rate.
        turn: float > 0, in the unit of the budget, default infinity; the interval between calls of `hand_over`.
        hand_over: function without arguments that lets other threads run; its duration isn't counted.
        measured: called with the clock after every measurement; its duration isn't counted.
        measurement_callback: function without arguments that creates a Keras callback, such as `ReduceLROnPlateau`, for
            which each measurement is an epoch with the logs `loss` and `val_loss`, the training loss and the test loss.
            None (default) means no callback.

    Attributes:
        seconds, cost, steps: the seconds, cost and number of steps of training so far.
        importance_steps: int, the number of importance steps so far; 0 for a model without a trainer.
        points: list of `Point`, the measurements.
        interrupted: bool; set it to True to stop training after the next step.

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
        measurement_callback: Callable[[], keras.callbacks.Callback] | None = None,
    ):
        super().__init__()
        if by not in UNITS:
            raise ValueError(f"`by` must be one of {', '.join(UNITS)}. Received: by={by!r}")
        self.trainer, self.evaluation = trainer, evaluation
        self.budget, self.by, self.measurements, self.decay = budget, by, measurements, decay
        self.turn, self.hand_over, self.measured = turn, hand_over, measured
        self._measurement_callback = (measurement_callback or keras.callbacks.Callback)()
        self.seconds = self.cost = 0.0
        self.steps = self.importance_steps = 0
        self.points: list[Point] = []
        self.interrupted = False
        self._timed_seconds = self._timed_cost = 0.0
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
            points=[point._asdict() for point in self.points],
        )

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Evaluate the untrained model and start the timer."""
        self._initial_cost = forward_equivalents(self.trainer, 0)
        self._initial_importance_steps = _importance_steps(self.trainer)
        self._initial_rate = float(self.model.optimizer.learning_rate)
        self._detect_tracing()
        self._measurement_callback.set_model(self.model)
        self._measurement_callback.on_train_begin()
        self._evaluate()
        self._decay_learning_rate()
        self._start_timer()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Update the counters, then evaluate, stop or switch threads if it is time."""
        duration = time.perf_counter() - self._step_start
        self.steps += 1
        self.importance_steps = _importance_steps(self.trainer) - self._initial_importance_steps
        cost = forward_equivalents(self.trainer, self.steps) - self._initial_cost
        if self.steps > WARM_UP and not self._traced:
            self._timed_seconds += duration
            self._timed_cost += cost - self.cost
        self.cost = cost
        if self._timed_cost:
            self.seconds = max(self.seconds, self._timed_seconds * self.cost / self._timed_cost)
        if self.spent >= len(self.points) * self.budget / self.measurements:
            self._evaluate()
        if self.interrupted or self.spent >= self.budget:
            self.model.stop_training = True
        elif self.spent - self._turn_start >= self.turn:
            self._turn_start = self.spent
            self.hand_over()
        self._decay_learning_rate()
        self._start_timer()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Restore `call` of the model. Keras doesn't call this method after an exception."""
        if "call" in vars(self.model):
            del self.model.call

    def _start_timer(self) -> None:
        self._traced = False
        self._step_start = time.perf_counter()

    def _detect_tracing(self) -> None:
        """Wrap `call` of the model to detect tracing: a compiled model runs `call` only when a step is traced."""
        call = self.model.call

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._traced = True
            return call(*args, **kwargs)

        self.model.call = wrapped

    def _evaluate(self) -> None:
        point = Point(self.seconds, self.cost, self.steps, *self.evaluation(self.model))
        logs = {"loss": point.train_loss, "val_loss": point.test_loss}
        self._measurement_callback.on_epoch_end(len(self.points), logs)
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
        trainer: trainer with an attribute `forward_equivalents`; or a model or another object, with a cost of 3 per
            step.
        steps: int, the number of steps so far; used for objects without the attribute.
    """
    return float(getattr(trainer, "forward_equivalents", UNIFORM_STEP * steps))
