"""The state of a trainer: averages for the gate, totals for the summary, counters, losses, and its own random stream.

All of it belongs to the trainer, none of it to the user's model or to a global generator, and all of it can be saved.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.conditions import Signals, moving_average
from importance_sampling.fit.counters import Counters, LastDecision
from importance_sampling.fit.held_out_losses import HeldOutLosses
from importance_sampling.utils.validation import seed_from_python

# A single step measures the discount with a large error, and the first steps decide whether importance steps end.
DISCOUNT_DECAY = 0.99  # per step that measures it
MIN_DISCOUNT_STEPS = 15.0  # the count that 17 steps reach with this decay


class Part(Protocol):
    """Something that is saved and restored with the state."""

    def state(self) -> dict[str, np.ndarray]: ...

    def restore(self, state: dict[str, np.ndarray]) -> None: ...


class TrainerState:
    """A trainer's variables and counters.

    Args:
        seed: int in [0, 2**31), or None: taken from a copy of Python's `random`, which stays as it is.
        momentum: float in [0, 1), default 0.9; of the averages, per step.
        kind: name of the kind of trainer; the state of another kind is refused. Empty (default): any kind is accepted.

    Attributes:
        averages: float32 `(3,)` variable, the moving averages of tau, of the gain and of the score; NaN where nothing
            was measured.
        discounts: float32 `(2,)` variable, over the steps that measured a discount: the running sum of its reciprocal,
            in which the measured variance is the numerator, and the number of steps. Both decay by 0.99 per step.
        totals: float32 `(4,)` variable: importance steps, sum of their effective sample sizes, largest weight, steps
            with unusable scores.
        generator: `keras.random.SeedGenerator`, used once for each importance step.
        counters: `Counters`.
        decision: `LastDecision`, of the gate.
        losses: `HeldOutLosses`.
        parts: the `Part`s that are saved with it, by name.
        restored: what was loaded for parts that aren't registered yet, by name.
    """

    def __init__(self, seed: int | None, momentum: float = 0.9, kind: str = ""):
        self.seed = seed if seed is not None else seed_from_python()
        self.momentum = momentum
        self.kind = kind
        with _undistributed():  # a distribution over several processes refuses NaN
            self.averages = keras.Variable(np.full(3, np.nan, "float32"), trainable=False, name="importance_averages")
            self.discounts = keras.Variable(np.zeros(2, "float32"), trainable=False, name="importance_discounts")
            self.totals = keras.Variable(np.zeros(4, "float32"), trainable=False, name="importance_totals")
            self.generator = keras.random.SeedGenerator(self.seed, name="importance_generator")
        self.counters = Counters()
        self.decision = LastDecision()
        self.losses = HeldOutLosses()
        self.parts: dict[str, Part] = {}
        self.restored: dict[str, dict] = {}

    def register(self, name: str, part: Part) -> None:
        """Save and restore a part with the state, under a name; a state that was loaded for it is restored now."""
        self.parts[name] = part
        if name in self.restored:
            part.restore(self.restored.pop(name))

    def begin_anew(self) -> None:
        """Drop what belongs to the optimizer and the loss that the model was compiled with before."""
        self.decision.peak_learning_rate = 0.0
        self.losses.begin("")

    def add_steps(self, steps: int, cost: float, batches_per_pass: int = 0) -> None:
        """Count gradient steps, as `Counters.add`, also since the gate's last decision."""
        self.counters.add(steps, cost, batches_per_pass)
        self.decision.steps_since_probe += steps

    def set_dataset(self, digest: str) -> bool:
        """Set the current data set; return True if it is another one, whose parts and epochs then start afresh."""
        if digest == self.counters.dataset:
            return False
        self.counters.dataset = digest
        self.counters.epochs_on_dataset = self.decision.epochs_at_decision = 0.0
        self.losses.begin("")
        self.losses.held_out_is_over = False
        self.decision.gate_is_open = False
        self.parts, self.restored = {}, {}
        return True

    def reset_totals(self) -> None:
        """Reset the totals at the beginning of a `fit`."""
        self.totals.assign(np.zeros(4, "float32"))

    def update_averages(self, signals: Signals, steps: Any) -> None:
        """Add signals to the moving averages; `steps` is the number of steps since the last ones."""
        values = [signals.tau, signals.gain, signals.score, 1.0 / signals.discount]
        *values, reciprocal = (ops.cast(value, "float32") for value in values)
        self.averages.assign(moving_average(self.averages.value, ops.stack(values), self.momentum, steps))
        added = DISCOUNT_DECAY * self.discounts.value + ops.stack([reciprocal, ops.ones_like(reciprocal)])
        self.discounts.assign(ops.where(ops.isfinite(reciprocal), added, self.discounts.value))

    def reset_discount(self) -> None:
        """Begin to measure the discount anew."""
        self.discounts.assign(np.zeros(2, "float32"))

    def record_weights(self, weights: Any, are_usable: Any) -> None:
        """Add an importance step to the totals.

        Args:
            weights: float `(b,)`, of the step.
            are_usable: bool, False if the scores were NaN, negative or all zero.
        """
        effective = ops.square(ops.sum(weights)) / ops.sum(ops.square(weights))
        steps, total, largest, unusable = ops.unstack(self.totals.value, 4)
        largest = ops.maximum(largest, ops.max(weights))
        unusable = unusable + (1.0 - ops.cast(are_usable, "float32"))
        self.totals.assign(ops.stack([steps + 1.0, total + effective, largest, unusable]))

    @property
    def mean_score(self) -> Any:
        """The moving average of the mean score, on the device."""
        return self.averages.value[-1]

    @property
    def signals(self) -> Signals:
        """The averages, read to the host; the discount is NaN until enough steps have measured it."""
        average_tau, gain, score = backend.to_host(self.averages).tolist()
        total, count = backend.to_host(self.discounts).tolist()
        return Signals(average_tau, gain, count / total if count >= MIN_DISCOUNT_STEPS else math.nan, score)

    @property
    def variables(self) -> list[tuple[str, Any]]:
        """The variables that are saved, with their names."""
        return [
            ("averages", self.averages),
            ("discounts", self.discounts),
            ("totals", self.totals),
            ("generator", self.generator.state),
        ]


def steps_taken(model: keras.Model) -> int | None:
    """Return how many steps the optimizer of a model has taken; None for a model without an optimizer.

    By them a saved model and a saved state of its trainer are matched.
    """
    if model.optimizer is None:
        return None
    return int(backend.to_host(keras_internals.optimizer_steps(model.optimizer)))


@contextlib.contextmanager
def _undistributed() -> Iterator[None]:
    """Create variables outside Keras's distribution, if one is set: every process has its own copies."""
    distribution = keras.distribution.distribution()
    if distribution is not None:
        keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        if distribution is not None:
            keras.distribution.set_distribution(distribution)
