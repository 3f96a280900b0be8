"""Measure the loss of samples that importance steps don't train on, for a gate that needs it.

These samples are the validation data, whose loss Keras measures at the end of an epoch; without validation data they
are the training samples that the strategy leaves out, whose loss is measured while the gate is open.
"""

from __future__ import annotations

import math

import numpy as np

from importance_sampling.conditions.base import PROBE_EVERY, UNIFORM_STEP
from importance_sampling.fit.plan import FitPlan
from importance_sampling.fit.state import Counters
from importance_sampling.strategies.base import Strategy

MEASURING_SHARE = 0.03  # of the cost of training, at most
HELD_OUT_UNTIL = 0.5  # share of a `fit` after which importance steps train on all samples
VALIDATION_DATA, TRAINING_SAMPLES = "validation data", "training samples"  # values of `Counters.held_out_are`


def record_validation_loss(logs: dict, plan: FitPlan, counters: Counters) -> None:
    """Record the validation loss in the logs of an epoch, if there is one, beside the training loss.

    Args:
        logs: of Keras, at the end of an epoch.
        plan: of the `fit`.
        counters: of the trainer.
    """
    if plan.has_validation_data and "val_loss" in logs:
        training_loss = 0.0 if plan.is_weighted else float(logs.get("loss", 0.0))  # weights change this loss only
        counters.record_held_out_loss(float(logs["val_loss"]), VALIDATION_DATA, training_loss)


def measure_if_due(strategy: Strategy, counters: Counters) -> float:
    """Measure and record the loss of the held-out training samples if there are any and if it is due.

    It is measured as often as 3 % of the cost of training allows, and at most every 17 steps.

    Args:
        strategy: of the importance steps.
        counters: of the trainer.

    Returns:
        float, the cost in forward passes of a batch.
    """
    held_out, others = strategy.held_out
    cost = strategy.passes(scored=len(held_out) + len(others))
    steps = max(PROBE_EVERY, cost / UNIFORM_STEP / MEASURING_SHARE)
    if not cost or counters.steps - counters.loss_measured_at < steps:
        return 0.0
    losses, compared = (_finite(strategy.losses(rows)) for rows in (held_out, others))
    error = math.hypot(_relative_error(losses), _relative_error(compared))
    counters.record_held_out_loss(losses.mean(), TRAINING_SAMPLES, compared.mean(), error)
    counters.loss_measured_at = counters.steps
    return cost


def end_if_due(strategy: Strategy, counters: Counters, share_done: float) -> None:
    """Let importance steps train on the held-out training samples in the second half of a `fit`.

    These samples may be rare, and training that has generalised until then rarely ceases to do so at the smaller
    learning rates that follow. They are held out until their loss has been measured often enough to show a change.

    Args:
        strategy: of the importance steps.
        counters: of the trainer.
        share_done: float in [0, 1], the share of the `fit` that is done.
    """
    is_measured = counters.held_out_are == TRAINING_SAMPLES and counters.held_out_loss.shows_change
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
    """Return the fields of `GateContext` on held-out samples, by name; none if there never were such samples."""
    held_out_are = VALIDATION_DATA if plan.has_validation_data else TRAINING_SAMPLES
    is_last_known = counters.held_out_is_over and not plan.has_validation_data
    if counters.held_out_are == held_out_are or (is_last_known and counters.held_out_are):
        return dict(held_out_change=counters.held_out_loss.change, loss_ratio=counters.loss_ratio)
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
