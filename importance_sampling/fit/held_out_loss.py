"""Measure the loss of samples that importance steps don't train on, for a gate that needs it.

These samples are the validation data, whose loss Keras measures at the end of an epoch; without validation data they
are the training samples that the strategy leaves out, whose loss is measured while the gate is open.
"""

from __future__ import annotations

import math

import numpy as np

from importance_sampling.conditions.base import UNIFORM_STEP
from importance_sampling.fit.counters import Counters
from importance_sampling.fit.plan import FitPlan
from importance_sampling.fit.probe_schedule import held_out_loss_is_due
from importance_sampling.strategies.base import Strategy

HELD_OUT_UNTIL = 0.5  # share of a `fit` after which importance steps train on all samples
VALIDATION_DATA, TRAINING_SAMPLES = "validation data", "training samples"  # values of `Counters.held_out_are`


def record_validation_loss(logs: dict, plan: FitPlan, counters: Counters) -> None:
    """Record the validation loss in the logs of an epoch, if there is one, beside the training loss.

    Args:
        logs: of Keras, at the end of an epoch.
        plan: of the `fit`.
        counters: of the trainer.
    """
    if "val_loss" in logs:
        training_loss = 0.0 if plan.is_weighted else float(logs.get("loss", 0.0))  # weights change this loss only
        counters.record_held_out_loss(float(logs["val_loss"]), VALIDATION_DATA, training_loss)


def measure_if_due(strategy: Strategy, counters: Counters) -> float:
    """Measure and record the loss of the held-out training samples if there are any and if it is due.

    Args:
        strategy: of the importance steps.
        counters: of the trainer.

    Returns:
        float, the cost in forward passes of a batch.
    """
    held_out, others = strategy.held_out
    cost = strategy.passes(scored=len(held_out) + len(others))
    if not cost or not held_out_loss_is_due(counters, cost / UNIFORM_STEP):
        return 0.0
    losses, compared = strategy.losses(held_out), strategy.losses(others)
    error = math.hypot(relative_error(losses), relative_error(compared))
    counters.record_held_out_loss(losses.mean(), TRAINING_SAMPLES, compared.mean(), error)
    counters.loss_measured_at = counters.steps
    return cost


def relative_error(losses: np.ndarray) -> float:
    """Return the standard error of the mean of losses, divided by the mean; infinity if the mean isn't positive.

    Args:
        losses: float64 `(n,)`, with n > 1.
    """
    mean = losses.mean()
    return float(losses.std(ddof=1) / math.sqrt(len(losses)) / mean) if mean > 0 else math.inf


def end_if_due(strategy: Strategy, counters: Counters, share_done: float) -> None:
    """Let importance steps train on the held-out training samples in the second half of a `fit`.

    These samples may be rare, and training that has generalised until then rarely ceases to do so at the smaller
    learning rates that follow.

    Args:
        strategy: of the importance steps.
        counters: of the trainer.
        share_done: float in [0, 1], the share of the `fit` that is done.
    """
    if len(strategy.held_out.samples) and share_done >= HELD_OUT_UNTIL:
        counters.held_out_is_over = True


def held_out_context(plan: FitPlan, strategy: Strategy, counters: Counters) -> dict[str, float]:
    """Return the fields of `GateContext` on held-out samples, by name; none if there never were such samples."""
    held_out_are = VALIDATION_DATA if plan.has_validation_data else TRAINING_SAMPLES
    if counters.held_out_are == held_out_are:
        return dict(held_out_change=counters.held_out_loss.change, loss_ratio=counters.loss_ratio)
    has_samples = plan.has_validation_data or len(strategy.held_out.samples)
    return dict(held_out_change=0.0) if has_samples else {}  # they weren't measured yet
