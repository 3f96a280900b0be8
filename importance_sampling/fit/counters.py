"""What a trainer counts, and how it is read from the files of all versions."""

from __future__ import annotations

import dataclasses
import math

from importance_sampling.conditions import Condition, LossTrend

FORMAT = 4
NEWER = "a file of this version of the library or an earlier one (upgrade keras-importance-sampling)"
# Names of the counters in files of format 3, which version 1.0.0 wrote.
FORMAT_3_NAMES = {
    "open_steps": "importance_steps",
    "since_look": "steps_since_probe",
    "closed_looks": "closed_probes",
    "opened_at": "first_importance_step",
    "satisfied": "gate_is_open",
    "forwards": "forward_passes",
    "rate": "peak_learning_rate",
    "passed": "epochs_on_dataset",
    "data": "dataset",
}
# Counters of earlier versions that are no longer used.
GONE = ("presample", "new_loss", "mean_loss", "validation_ratio")


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

    def restore_decision(self, gate: Condition) -> None:
        """Set a gate to the last decision."""
        gate.restore_decision(self.gate_is_open, self.gate_rescores)

    def record_steps(self, steps: int, cost: float) -> None:
        """Count gradient steps and their cost in forward passes of a batch."""
        self.steps += steps
        self.steps_since_probe += steps
        self.forward_passes += cost


def read_counters(header: dict) -> Counters:
    """Return the counters in the header of a file.

    Raises:
        ValueError, TypeError, KeyError: the file has another format.
    """
    counters = dict(header["counters"])
    for name in GONE:
        counters.pop(name, None)
    if header["format"] == 3:
        counters = {FORMAT_3_NAMES.get(name, name): value for name, value in counters.items()}
        counters["gate_is_open"] = bool(counters["gate_is_open"])
    elif header["format"] != FORMAT:
        raise ValueError("another format")
    for name in ("held_out_loss", "compared_loss"):
        counters[name] = LossTrend(**counters.get(name, {}))
    return Counters(**counters)
