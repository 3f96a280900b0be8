"""Measure the loss of samples that importance steps don't train on, for a gate that needs it.

These samples are the validation data, whose loss Keras measures at the end of an epoch; without validation data they
are the training samples that the strategy leaves out, whose loss is measured while the gate is open.
"""

from __future__ import annotations

import math

from importance_sampling.conditions.base import UNIFORM_STEP
from importance_sampling.fit.counters import Counters
from importance_sampling.fit.plan import FitPlan
from importance_sampling.fit.probe_schedule import held_out_loss_is_due
from importance_sampling.strategies.base import Strategy

VALIDATION_DATA, TRAINING_SAMPLES = "validation data", "training samples"  # values of `Counters.held_out_are`


def record_validation_loss(logs: dict, plan: FitPlan, counters: Counters) -> None:
    """Record the validation loss in the logs of an epoch, if there is one.

    Args:
        logs: of Keras, at the end of an epoch.
        plan: of the `fit`.
        counters: of the trainer.
    """
    if "val_loss" in logs:
        counters.record_held_out_loss(float(logs["val_loss"]), VALIDATION_DATA, _training_loss(logs, plan))


def measure_if_due(logs: dict, epoch_steps: int, plan: FitPlan, strategy: Strategy, counters: Counters) -> float:
    """Measure and record the loss of the held-out training samples if there are any and if it is due.

    Args:
        logs: of the last step; the training loss in them is the mean of the epoch so far.
        epoch_steps: int, the steps of the epoch so far.
        plan: of the `fit`.
        strategy: of the importance steps.
        counters: of the trainer.

    Returns:
        float, the cost in forward passes of a batch.
    """
    cost = strategy.passes(scored=len(strategy.held_out))
    if not cost or not held_out_loss_is_due(counters, cost / UNIFORM_STEP):
        return 0.0
    training_loss = counters.recent_training_loss(_training_loss(logs, plan), epoch_steps)
    counters.record_held_out_loss(strategy.held_out_loss(), TRAINING_SAMPLES, training_loss)
    counters.loss_measured_at = counters.steps
    return cost


def held_out_context(plan: FitPlan, strategy: Strategy, counters: Counters) -> dict[str, float]:
    """Return the fields of `GateContext` on held-out samples, by name; none if there are no held-out samples."""
    if not plan.has_validation_data and not len(strategy.held_out):
        return {}
    if counters.held_out_are != (VALIDATION_DATA if plan.has_validation_data else TRAINING_SAMPLES):
        return dict(held_out_change=0.0)  # not measured yet
    return dict(held_out_change=counters.held_out_loss.change, loss_ratio=counters.loss_ratio or math.nan)


def _training_loss(logs: dict, plan: FitPlan) -> float:
    """Return the training loss in the logs; 0 if it has weights, which the loss of held-out samples hasn't."""
    return 0.0 if plan.is_weighted else float(logs.get("loss", 0.0))
