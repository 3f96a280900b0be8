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
from importance_sampling.conditions import Condition, LossTrend, Signals, moving_average
from importance_sampling.utils.validation import seed_from_python


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
        gate_is_open, gate_rescores: the gate's last decision.
        forward_passes: the cost so far, in forward passes of a batch.
        tau: as at the gate's last decision; 1 if not measured.
        peak_learning_rate: the largest learning rate at a decision.
        epochs_on_dataset: epochs over the current data set, with fractions.
        held_out_loss: the losses of samples that importance steps don't train on.
        held_out_is_over: True once the model has been trained on the held-out training samples.
        compared_loss: the training losses at the same times; 0 where they can't be compared.
        ratio_error: standard error of the logarithm of the last ratio of these losses, because they are of few samples.
        held_out_are: what these samples are: "validation data", or "training samples" that are left out; empty before
            the first measurement.
        loss_measured_at: number of steps when the loss of held-out training samples was measured last.
        dataset: digest of the current data set if rows are drawn by index.
    """

    steps: int = 0
    importance_steps: int = 0
    pools: int = 0
    steps_since_probe: int = 0
    closed_probes: int = 0
    first_importance_step: int = -1
    gate_is_open: bool = False
    gate_rescores: bool = True
    forward_passes: float = 0.0
    tau: float = 1.0
    peak_learning_rate: float = 0.0
    epochs_on_dataset: float = 0.0
    held_out_loss: LossTrend = dataclasses.field(default_factory=LossTrend)
    compared_loss: LossTrend = dataclasses.field(default_factory=LossTrend)
    ratio_error: float = 0.0
    held_out_are: str = ""
    held_out_is_over: bool = False
    loss_measured_at: int = 0
    dataset: str = ""

    def begin_anew(self) -> None:
        """Forget what belongs to the optimizer and the loss that the model was compiled with before."""
        self.peak_learning_rate, self.held_out_are = 0.0, ""

    def record_held_out_loss(
        self, loss: float, held_out_are: str, training_loss: float = 0.0, ratio_error: float = 0.0
    ) -> None:
        """Record the mean loss of held-out samples; losses of other samples than before begin a new series.

        Args:
            loss: float, of the held-out samples.
            held_out_are: str, "validation data" or "training samples".
            training_loss: float, the loss of the samples trained on; 0 (default) if the two can't be compared.
            ratio_error: float >= 0, default 0; the standard error of the logarithm of the ratio of the two.
        """
        if held_out_are != self.held_out_are:
            self.held_out_loss, self.compared_loss, self.held_out_are = LossTrend(), LossTrend(), held_out_are
        self.held_out_loss.record(loss)
        self.compared_loss.record(training_loss)
        self.ratio_error = ratio_error

    @property
    def loss_ratio(self) -> float:
        """The recent training loss divided by that of held-out samples, plus one standard error.

        NaN if they can't be compared, or the error is larger than the ratio.
        """
        training, held_out = self.compared_loss.recent, self.held_out_loss.recent
        can_compare = training > 0 and held_out > 0 and self.ratio_error <= 1
        return training / held_out * math.exp(self.ratio_error) if can_compare else math.nan

    def record_decision(self, gate: Condition) -> None:
        """Set the gate's last decision."""
        self.gate_is_open, self.gate_rescores = bool(gate.satisfied), bool(gate.rescores)

    def record_learning_rate(self, rate: float) -> float:
        """Record the learning rate at a decision; return it divided by the largest one so far."""
        self.peak_learning_rate = max(rate, self.peak_learning_rate)
        return rate / self.peak_learning_rate if self.peak_learning_rate else 1.0

    def record_probe(self, gate: Condition, tau: float) -> None:
        """Set the gate's last decision, which it has made after a probe or by what importance steps measured."""
        self.steps_since_probe = 0
        self.closed_probes = 0 if gate.satisfied else self.closed_probes + 1
        self.tau = tau if tau > 1.0 else 1.0  # also for NaN
        self.record_decision(gate)

    def restore_decision(self, gate: Condition) -> None:
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
        averages: float32 `(4,)` variable, the moving averages of `Signals`; NaN where nothing was measured.
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
            self.averages = keras.Variable(np.full(4, np.nan, "float32"), trainable=False, name="importance_averages")
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
        self.counters.epochs_on_dataset = 0.0
        self.counters.held_out_are, self.counters.held_out_is_over = "", False
        self.counters.gate_is_open = False
        self.parts, self.restored = {}, {}
        return True

    def reset_totals(self) -> None:
        """Reset the totals at the beginning of a `fit`."""
        self.totals.assign(np.zeros(4, "float32"))
        self.counters.first_importance_step = -1

    def update_averages(self, signals: Signals, steps: Any) -> None:
        """Add signals to the moving averages; `steps` is the number of steps since the last ones."""
        values = ops.stack([ops.cast(value, "float32") for value in signals])
        self.averages.assign(moving_average(self.averages.value, values, self.momentum, steps))

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
        """The moving averages, read to the host."""
        return Signals(*backend.to_host(self.averages).tolist())

    @property
    def variables(self) -> list[tuple[str, Any]]:
        """The variables that are saved, with their names."""
        return [("averages", self.averages), ("totals", self.totals), ("generator", self.generator.state)]


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
