"""The state of a trainer: averages for the gate, totals for the summary, counters, and its own random stream.

All of it belongs to the trainer, none of it to the user's model or to a global generator, and all of it can be saved.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.conditions import Condition, LossComparison, Signals, moving_average
from importance_sampling.utils.validation import seed_from_python

# A single step measures the discount with a large error, and the first steps decide whether importance steps end.
DISCOUNT_DECAY = 0.99  # per step that measures it
MIN_DISCOUNT_STEPS = 15.0  # the count that 17 steps reach with this decay


@dataclasses.dataclass
class Counters:
    """What a trainer counts, on the host.

    Attributes:
        steps: all gradient steps so far.
        importance_steps: those of them that were importance steps.
        pools: pools of candidates read so far.
        steps_since_probe: steps since the gate decided last.
        closed_probes: probes in a row that left the gate closed.
        first_importance_step: number of the first importance step of the current `fit`; -1 before it.
        last_importance_step: number of steps up to the last importance step; 0 before it.
        gate_is_open, gate_rescores: the gate's last decision.
        forward_passes: the cost so far, in forward passes of a batch.
        tau: as at the gate's last decision; 1 if not measured.
        peak_learning_rate: the largest learning rate at a decision.
        epochs_on_dataset: epochs over the current data set, with fractions.
        epochs_at_decision: the same at the gate's last decision.
        validation: the losses that Keras measures on validation data at the ends of epochs, and its training losses.
        within_epochs: the losses of some validation samples, or of training samples that importance steps leave out, as
            measured within epochs, and losses of other training samples.
        held_out_are: what the samples are: "validation data" or "training samples"; empty before the first measurement.
        held_out_is_over: True once the model has been trained on the held-out training samples.
        min_validation_loss: the lowest loss that Keras has measured on validation data.
        loss_measured_at: number of steps when a loss was measured within an epoch last.
        dataset: digest of the current data set if rows are drawn by index.
    """

    steps: int = 0
    importance_steps: int = 0
    pools: int = 0
    steps_since_probe: int = 0
    closed_probes: int = 0
    first_importance_step: int = -1
    last_importance_step: int = 0
    gate_is_open: bool = False
    gate_rescores: bool = True
    forward_passes: float = 0.0
    tau: float = 1.0
    peak_learning_rate: float = 0.0
    epochs_on_dataset: float = 0.0
    epochs_at_decision: float = 0.0
    validation: LossComparison = dataclasses.field(default_factory=LossComparison)
    within_epochs: LossComparison = dataclasses.field(default_factory=LossComparison)
    held_out_are: str = ""
    held_out_is_over: bool = False
    min_validation_loss: float = math.inf
    loss_measured_at: int = 0
    dataset: str = ""

    def begin_anew(self) -> None:
        """Drop what belongs to the optimizer and the loss that the model was compiled with before."""
        self.peak_learning_rate = 0.0
        self.begin_losses("")

    def begin_losses(self, held_out_are: str) -> None:
        """Begin to measure the loss of held-out samples; those of the same kind as before are measured on."""
        if held_out_are != self.held_out_are:
            self.validation, self.within_epochs = LossComparison(), LossComparison()
            self.held_out_are, self.min_validation_loss = held_out_are, math.inf

    def record_decision(self, gate: Condition) -> None:
        """Set the gate's last decision."""
        self.gate_is_open, self.gate_rescores = bool(gate.satisfied), bool(gate.rescores)

    def record_learning_rate(self, rate: float) -> None:
        """Record the learning rate at a decision."""
        self.peak_learning_rate = max(rate, self.peak_learning_rate)

    def relative_learning_rate(self, rate: float) -> float:
        """Return a learning rate divided by the largest one at any decision so far, this one included."""
        peak = max(rate, self.peak_learning_rate)
        return rate / peak if peak else 1.0

    def record_gate_decision(self, gate: Condition, tau: float) -> None:
        """Set the gate's last decision, which it has made after a probe or by what importance steps measured."""
        self.steps_since_probe, self.epochs_at_decision = 0, self.epochs_on_dataset
        self.closed_probes = 0 if gate.satisfied else self.closed_probes + 1
        self.tau = tau if tau > 1.0 else 1.0  # also for NaN
        self.record_decision(gate)

    def apply_decision(self, gate: Condition) -> None:
        """Set a gate to the last decision."""
        gate.restore_decision(self.gate_is_open, self.gate_rescores)

    def record_steps(self, steps: int, cost: float) -> None:
        """Count gradient steps and their cost in forward passes of a batch."""
        self.steps += steps
        self.steps_since_probe += steps
        self.forward_passes += cost


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
        self.parts: dict[str, Part] = {}
        self.restored: dict[str, dict] = {}

    def register(self, name: str, part: Part) -> None:
        """Save and restore a part with the state, under a name; a state that was loaded for it is restored now."""
        self.parts[name] = part
        if name in self.restored:
            part.restore(self.restored.pop(name))

    def set_dataset(self, digest: str) -> bool:
        """Set the current data set; return True if it is another one, whose parts and epochs then start afresh."""
        if digest == self.counters.dataset:
            return False
        self.counters.dataset = digest
        self.counters.epochs_on_dataset = self.counters.epochs_at_decision = 0.0
        self.counters.begin_losses("")
        self.counters.held_out_is_over = False
        self.counters.gate_is_open = False
        self.parts, self.restored = {}, {}
        return True

    def reset_totals(self) -> None:
        """Reset the totals at the beginning of a `fit`."""
        self.totals.assign(np.zeros(4, "float32"))
        self.counters.first_importance_step = -1

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
