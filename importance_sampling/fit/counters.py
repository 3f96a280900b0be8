"""What a trainer counts, and how it is read from the files of all versions."""

from __future__ import annotations

import dataclasses
import math

from importance_sampling.conditions import Condition

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
        new_loss: moving average of the mean losses that probes found in the second half of the first epoch over the
            current data set; 0 before.
        mean_loss: the same, of all probes over the current data set.
        loss_measured_at: number of steps at the last of these probes.
        validation_ratio: the training loss of the last epoch divided by the validation loss; 0 if it is unknown.
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
    new_loss: float = 0.0
    mean_loss: float = 0.0
    loss_measured_at: int = 0
    validation_ratio: float = 0.0
    dataset: str = ""

    @property
    def loss_ratio(self) -> float:
        """The training loss divided by that of samples that are new to the model; NaN if it was not measured."""
        if self.validation_ratio > 0:
            return self.validation_ratio
        return self.mean_loss / self.new_loss if self.new_loss > 0 else math.nan

    def record_validation(self, logs: dict) -> None:
        """Record the training loss and the validation loss at the end of an epoch."""
        loss, validation_loss = logs.get("loss", math.nan), logs.get("val_loss", math.nan)
        if loss > 0 and validation_loss > 0:
            self.validation_ratio = float(loss / validation_loss)

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

    def record_loss(self, loss: float) -> None:
        """Add the mean loss of uniformly drawn samples; in the first epoch they are new to the model."""
        self.loss_measured_at = self.steps
        if not math.isfinite(loss):
            return
        if self.epochs_on_dataset >= 1.0:
            self.mean_loss = _halfway(self.mean_loss, loss)
            return
        # The loss falls fast at first.
        self.new_loss = self.mean_loss = loss if self.epochs_on_dataset < 0.5 else _halfway(self.new_loss, loss)


def _halfway(average: float, value: float) -> float:
    """Return the mean of an average and a new value; the value if there is no average yet."""
    return (average + value) / 2 if average else value


def read_counters(header: dict) -> Counters:
    """Return the counters in the header of a file.

    Raises:
        ValueError, TypeError, KeyError: the file has another format.
    """
    counters = dict(header["counters"])
    counters.pop("presample", None)  # of the option presample="auto", which is gone
    if header["format"] == 3:
        counters = {FORMAT_3_NAMES.get(name, name): value for name, value in counters.items()}
        counters["gate_is_open"] = bool(counters["gate_is_open"])
    elif header["format"] != FORMAT:
        raise ValueError("another format")
    return Counters(**counters)
