"""Measure the loss of samples that importance steps don't train on, for a gate that needs it.

These samples are validation data; without these they are the training samples that the strategy leaves out. While the
gate is open, the loss of some of them is measured within the epochs, beside that of training samples. Where validation
data aren't arrays, there is only the loss that Keras measures at the end of an epoch.
"""

from __future__ import annotations

import math

import numpy as np

from importance_sampling.conditions import LossComparison
from importance_sampling.conditions.base import DECIDE_EVERY, UNIFORM_STEP
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.state import Counters
from importance_sampling.strategies.base import Strategy
from importance_sampling.strategies.compared_samples import TRAINING_SAMPLES, VALIDATION_DATA

MEASURING_SHARE = 0.03  # of the cost of training, at most
HELD_OUT_UNTIL = 0.5  # share of a `fit` after which importance steps train on all samples


def record_validation_loss(logs: dict, plan: FitPlan, strategy: Strategy, counters: Counters) -> None:
    """Record the validation loss in the logs of an epoch, if there is one, beside the training loss.

    A new minimum shows that training has begun to generalise again, so that losses measured within earlier epochs don't
    keep a closed gate closed.

    Args:
        logs: of Keras, at the end of an epoch.
        plan: of the `fit`.
        strategy: of the importance steps.
        counters: of the trainer.
    """
    if not plan.has_validation_data or "val_loss" not in logs:
        return
    counters.begin_losses(VALIDATION_DATA)
    loss, training_loss = float(logs["val_loss"]), float(logs.get("loss", 0.0))
    counters.validation.record(loss, 0.0 if plan.is_weighted else training_loss)  # weights change this loss only
    generalises_again = loss < counters.min_validation_loss and not counters.gate_is_open
    if counters.within_epochs.held_out.count and (generalises_again or strategy.compared_samples() is None):
        counters.within_epochs = LossComparison()
    if loss < counters.min_validation_loss:  # never for NaN
        counters.min_validation_loss = loss


def measure_if_due(strategy: Strategy, counters: Counters) -> float:
    """Measure and record the loss of held-out samples, if there are samples to measure and it is due.

    It is measured as often as 3 % of the cost of training allows, and at most every 17 steps.

    Args:
        strategy: of the importance steps.
        counters: of the trainer.

    Returns:
        float, the cost in forward passes of a batch.
    """
    compared = strategy.compared_samples()
    if compared is None:
        return 0.0
    cost = strategy.passes(scored=len(compared.held_out) + len(compared.others))
    if counters.steps - counters.loss_measured_at < max(DECIDE_EVERY, cost / UNIFORM_STEP / MEASURING_SHARE):
        return 0.0
    losses, others = (_finite(compared.rows.losses(indices)) for indices in (compared.held_out, compared.others))
    error = math.hypot(_relative_error(losses), _relative_error(others))
    counters.begin_losses(compared.kind)
    counters.within_epochs.record(losses.mean(), others.mean(), error)
    counters.loss_measured_at = counters.steps
    return cost


def release_held_out_if_due(strategy: Strategy, counters: Counters, share_done: float) -> None:
    """Let importance steps train on the held-out training samples in the second half of a `fit`.

    These samples may be rare, and training that has generalised until then rarely ceases to do so at the smaller
    learning rates that follow. They are held out until their loss has been measured often enough to show a change.

    Args:
        strategy: of the importance steps.
        counters: of the trainer.
        share_done: float in [0, 1], the share of the `fit` that is done.
    """
    is_measured = counters.held_out_are == TRAINING_SAMPLES and counters.within_epochs.held_out.shows_change
    if len(strategy.held_out.samples) and is_measured and share_done >= HELD_OUT_UNTIL:
        counters.held_out_is_over = True


def note_training(plan: FitPlan, counters: Counters, is_importance: bool) -> None:
    """Note that the model was trained on the samples that are, or could be, held out: they aren't any more.

    Args:
        plan: of the `fit`.
        counters: of the trainer.
        is_importance: bool, True for an importance step, which leaves held-out training samples out.
    """
    if plan.has_validation_data or (not is_importance and counters.held_out_are == TRAINING_SAMPLES):
        counters.held_out_is_over = True


def held_out_context(plan: FitPlan, strategy: Strategy, counters: Counters) -> dict[str, float]:
    """Return the fields of `GateContext` on held-out samples, by name; none if there never were such samples.

    Losses within epochs and losses of all validation data both count: the first are measured more often, the second
    have a smaller error.
    """
    are_current = (counters.held_out_are == TRAINING_SAMPLES) != plan.has_validation_data
    is_last_known = counters.held_out_is_over and not plan.has_validation_data
    if counters.held_out_are and (are_current or is_last_known):
        validation, within_epochs = counters.validation, counters.within_epochs
        changes = [change for change in (validation.held_out.change, within_epochs.held_out.change) if change]
        return dict(
            held_out_change=max(changes, default=0.0),
            loss_ratio=min((losses.ratio for losses in (validation, within_epochs) if losses.ratio), default=math.nan),
            # Keras's training loss is a mean over an epoch in which the weights change: it falls later and further.
            generalised_share=within_epochs.generalised_share,
        )
    has_samples = plan.has_validation_data or len(strategy.held_out.samples)
    return dict(held_out_change=0.0) if has_samples else {}  # they weren't measured yet


def _finite(losses: np.ndarray) -> np.ndarray:
    """Return the losses that are finite; NaNs if there are fewer than two."""
    finite = losses[np.isfinite(losses)]
    return finite if len(finite) > 1 else np.full(2, np.nan)


def _relative_error(losses: np.ndarray) -> float:
    """Return the standard error of the mean of losses, divided by the mean; infinity if the mean isn't positive."""
    mean = losses.mean()
    return float(losses.std(ddof=1) / math.sqrt(len(losses)) / mean) if mean > 0 else math.inf
