"""What a trainer counts on the host, and the last decision of its gate. Both are saved with the trainer's state."""

from __future__ import annotations

import dataclasses

from importance_sampling.conditions import Condition


@dataclasses.dataclass
class Counters:
    """The steps of a trainer in all its `fit`s.

    Attributes:
        steps: all gradient steps.
        importance_steps: those of them whose batches were drawn by scores.
        last_importance_step: number of steps up to the last one that measured scores for the gate; 0 before it.
        pools: pools of candidates read.
        forward_passes: the cost, in forward passes of a batch.
        dataset: digest of the current data set if rows are drawn by index.
        epochs_on_dataset: epochs over the current data set, with fractions.
    """

    steps: int = 0
    importance_steps: int = 0
    last_importance_step: int = 0
    pools: int = 0
    forward_passes: float = 0.0
    dataset: str = ""
    epochs_on_dataset: float = 0.0

    def add(self, steps: int, cost: float, batches_per_pass: int = 0) -> None:
        """Count gradient steps.

        Args:
            steps: their number.
            cost: in forward passes of a batch.
            batches_per_pass: steps of an epoch over the data set; 0 if that isn't known.
        """
        self.steps += steps
        self.forward_passes += cost
        if batches_per_pass:
            self.epochs_on_dataset += steps / batches_per_pass

    def add_importance(self, steps: int, by_score: int) -> None:
        """Count the steps of a strategy, before `add` counts them among all steps.

        Args:
            steps: their number.
            by_score: those of them whose batches were drawn by scores.
        """
        self.importance_steps += by_score
        self.last_importance_step = self.steps + steps


@dataclasses.dataclass
class LastDecision:
    """The gate's last decision, and when it was made.

    Attributes:
        gate_is_open, gate_rescores: the decision.
        tau: as at the decision; 1 if not measured.
        steps_since_probe: steps since the decision.
        closed_probes: decisions in a row that left the gate closed.
        epochs_at_decision: epochs over the current data set, with fractions.
        peak_learning_rate: the largest learning rate at a decision.
    """

    gate_is_open: bool = False
    gate_rescores: bool = True
    tau: float = 1.0
    steps_since_probe: int = 0
    closed_probes: int = 0
    epochs_at_decision: float = 0.0
    peak_learning_rate: float = 0.0

    def record(self, gate: Condition, tau: float, epochs: float) -> None:
        """Set the decision that a gate has made.

        Args:
            gate: the gate.
            tau: the average that it decided by; NaN if nothing was measured.
            epochs: over the current data set, with fractions.
        """
        self.steps_since_probe, self.epochs_at_decision = 0, epochs
        self.closed_probes = 0 if gate.satisfied else self.closed_probes + 1
        self.tau = tau if tau > 1.0 else 1.0  # also for NaN
        self.copy_from(gate)

    def copy_from(self, gate: Condition) -> None:
        """Set the decision to that of a gate."""
        self.gate_is_open, self.gate_rescores = bool(gate.satisfied), bool(gate.rescores)

    def apply_to(self, gate: Condition) -> None:
        """Set a gate to the decision."""
        gate.restore_decision(self.gate_is_open, self.gate_rescores)

    def relative_learning_rate(self, rate: float) -> float:
        """Return a learning rate divided by the largest one at any decision so far, this one included."""
        peak = max(rate, self.peak_learning_rate)
        return rate / peak if peak else 1.0
