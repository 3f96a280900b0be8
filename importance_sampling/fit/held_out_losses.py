"""The losses of samples that importance steps don't train on, for a gate that needs them.

These samples are validation data; without these they are the training samples that the strategy leaves out. While the
gate is open, the loss of some of them is measured within the epochs, beside that of training samples. Where validation
data aren't arrays, there is only the loss that Keras measures at the end of an epoch.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from importance_sampling.conditions import LossComparison
from importance_sampling.conditions.base import DECIDE_EVERY, UNIFORM_STEP

TRAINING_SAMPLES, VALIDATION_DATA = "training samples", "validation data"  # what held-out samples are
GROUPS = 20  # of samples: enough to estimate how much the mean of so many samples varies by chance
MEASURING_SHARE = 0.03  # of the cost of training, at most
HELD_OUT_UNTIL = 0.5  # share of a `fit` after which importance steps train on all samples


@dataclasses.dataclass
class HeldOutLosses:
    """The losses measured so far, and whether the model has been trained on the samples since.

    Attributes:
        validation: the losses that Keras measures on validation data at the ends of epochs, and its training losses.
        within_epochs: the losses of some validation samples, or of training samples that importance steps leave out, as
            measured within epochs, and losses of other training samples.
        held_out_are: what the samples are: "validation data" or "training samples"; empty before the first measurement.
        held_out_is_over: True once the model has been trained on the held-out training samples.
        min_validation_loss: the lowest loss that Keras has measured on validation data.
        loss_measured_at: number of steps when a loss was measured within an epoch last.
    """

    validation: LossComparison = dataclasses.field(default_factory=LossComparison)
    within_epochs: LossComparison = dataclasses.field(default_factory=LossComparison)
    held_out_are: str = ""
    held_out_is_over: bool = False
    min_validation_loss: float = math.inf
    loss_measured_at: int = 0

    def begin(self, held_out_are: str) -> None:
        """Begin to measure the loss of samples; those of the same kind as before are measured on."""
        if held_out_are != self.held_out_are:
            self.validation, self.within_epochs = LossComparison(), LossComparison()
            self.held_out_are, self.min_validation_loss = held_out_are, math.inf

    def record_validation(self, loss: float, training_loss: float, gate_is_open: bool, only_here: bool) -> None:
        """Record the validation loss of an epoch.

        A new minimum shows that training has begun to generalise again, so that losses measured within earlier epochs
        don't keep a closed gate closed.

        Args:
            loss: as measured by Keras.
            training_loss: as measured by Keras; 0 if the two can't be compared.
            gate_is_open: the gate's last decision.
            only_here: True if no loss is measured within epochs any more.
        """
        self.begin(VALIDATION_DATA)
        self.validation.record(loss, training_loss)
        generalises_again = loss < self.min_validation_loss and not gate_is_open
        if self.within_epochs.held_out.count and (generalises_again or only_here):
            self.within_epochs = LossComparison()
        if loss < self.min_validation_loss:  # never for NaN
            self.min_validation_loss = loss

    def is_due(self, steps: int, cost: float) -> bool:
        """Return True if a loss is to be measured within the epoch.

        It is measured as often as 3 % of the cost of training allows, and at most every 17 steps.

        Args:
            steps: of the trainer so far.
            cost: of the measurement, in forward passes of a batch.
        """
        return steps - self.loss_measured_at >= max(DECIDE_EVERY, cost / UNIFORM_STEP / MEASURING_SHARE)

    def record_within_epoch(self, held_out_are: str, losses: np.ndarray, others: np.ndarray, steps: int) -> None:
        """Record losses that were measured within an epoch.

        Args:
            held_out_are: what the held-out samples are.
            losses: float `(n,)`, of the held-out samples.
            others: float `(n,)`, of training samples.
            steps: of the trainer so far.
        """
        self.begin(held_out_are)
        error = math.hypot(_relative_error(_finite(losses)), _relative_error(_finite(others)))
        self.within_epochs.record(_group_means(losses), _group_means(others), error)
        self.loss_measured_at = steps

    def release_if_due(self, share_done: float) -> None:
        """Let importance steps train on the held-out training samples in the second half of a `fit`.

        These samples may be rare, and training that has generalised until then rarely ceases to do so at the smaller
        learning rates that follow. They are held out until their loss has been measured often enough to show a change.

        Args:
            share_done: float in [0, 1], the share of the `fit` that is done.
        """
        is_measured = self.held_out_are == TRAINING_SAMPLES and self.within_epochs.held_out.shows_change
        if is_measured and share_done >= HELD_OUT_UNTIL:
            self.held_out_is_over = True

    def note_training(self, has_validation_data: bool, is_importance: bool) -> None:
        """Note that the model was trained on the samples that are, or could be, held out: they aren't any more.

        Args:
            has_validation_data: True if the `fit` has them: it leaves no training samples out.
            is_importance: True for an importance step, which leaves held-out training samples out.
        """
        if has_validation_data or (not is_importance and self.held_out_are == TRAINING_SAMPLES):
            self.held_out_is_over = True

    def context(self, has_validation_data: bool, are_held_out: bool) -> dict[str, float]:
        """Return the fields of `GateContext` on held-out samples, by name; none if there never were such samples.

        Losses within epochs and losses of all validation data both count: the first are measured more often, the second
        have a smaller error.

        Args:
            has_validation_data: True if the `fit` has them.
            are_held_out: True if training samples are held out now.
        """
        are_current = (self.held_out_are == TRAINING_SAMPLES) != has_validation_data
        is_last_known = self.held_out_is_over and not has_validation_data
        if self.held_out_are and (are_current or is_last_known):
            both = self.validation, self.within_epochs
            changes = [losses.held_out.lowest_change for losses in both if losses.held_out.change]
            return dict(
                held_out_change=max(changes, default=0.0),
                loss_ratio=min((losses.ratio for losses in both if losses.ratio), default=math.nan),
                # Keras's training loss is a mean over an epoch in which the weights change: it falls later and further.
                generalised_share=self.within_epochs.generalised_share,
            )
        return dict(held_out_change=0.0) if has_validation_data or are_held_out else {}  # they weren't measured yet


def _group_means(losses: np.ndarray) -> list[float]:
    """Return the means of groups of losses, without those that aren't finite."""
    return [float(_finite(group).mean()) for group in np.array_split(losses, GROUPS)]


def _finite(losses: np.ndarray) -> np.ndarray:
    """Return the losses that are finite; NaNs if there are fewer than two."""
    finite = losses[np.isfinite(losses)]
    return finite if len(finite) > 1 else np.full(2, np.nan)


def _relative_error(losses: np.ndarray) -> float:
    """Return the standard error of the mean of losses, divided by the mean; infinity if the mean isn't positive."""
    mean = losses.mean()
    return float(losses.std(ddof=1) / math.sqrt(len(losses)) / mean) if mean > 0 else math.inf
