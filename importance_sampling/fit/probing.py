"""Decide how often samples are scored for the gate only, and collect what the gate decides by.

A probe scores one batch, which is wasted if the gate stays closed. The schedules are this library's own.
"""

from __future__ import annotations

import math

from importance_sampling.conditions import GateContext
from importance_sampling.conditions.base import DECIDE_EVERY
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.held_out_loss import held_out_context
from importance_sampling.fit.state import Counters
from importance_sampling.strategies.base import Strategy

PROBES_PER_INTERVAL = 2  # before the interval is doubled
LONGEST = 32  # times the first interval


def probe_is_due(counters: Counters, tau: float, required_epochs: float, steps_per_execution: int) -> bool:
    """Return True if the next batch is to be scored for the gate.

    A probe is due at the beginning, until a first value is measured, at the end of the epochs that the gate requires,
    and after the steps of `steps_between_probes`.

    Args:
        counters: of the trainer.
        tau: float, the average; NaN if nothing was measured.
        required_epochs: float, the epochs that the gate requires before it opens.
        steps_per_execution: int, as compiled; most executions of several steps are left to Keras's own compiled loop.
    """
    interval = steps_between_probes(counters.closed_probes)
    if steps_per_execution > 1:
        interval = max(interval, 4 * steps_per_execution)
    return (
        counters.steps_since_probe >= interval
        or counters.steps == 0
        or math.isnan(tau)
        or _passed(counters.epochs_at_decision) < required_epochs <= _passed(counters.epochs_on_dataset)
    )


def discount_is_outdated(counters: Counters) -> bool:
    """Return True if training is twice as long as when importance steps measured their discount last.

    A gate that such a measurement closed may then try again: networks change less and less, and so do scores, so the
    discount rises. In `fit`s of any length this happens only a few times.

    Args:
        counters: of the trainer.
    """
    return 0 < 2 * counters.last_importance_step <= counters.steps


def steps_between_probes(closed_probes: int) -> int:
    """Return the number of uniform steps between two probes.

    The first interval is 17 steps; it doubles after every two probes that left the gate closed. By arithmetic a probe
    is cheap, but it takes about a millisecond, in which small models take two steps.

    Args:
        closed_probes: int >= 0, how many probes in a row left the gate closed.

    Returns:
        int, at most 544.

    Example:
        >>> steps_between_probes(0), steps_between_probes(2), steps_between_probes(5), steps_between_probes(100)
        (17, 34, 68, 544)
    """
    return DECIDE_EVERY * min(2 ** (closed_probes // PROBES_PER_INTERVAL), LONGEST)


def gate_context(
    plan: FitPlan, strategy: Strategy, counters: Counters, steps_left: float, relative_learning_rate: float
) -> GateContext:
    """Return the context of a decision of the gate.

    Args:
        plan: of the `fit`.
        strategy: of the importance steps.
        counters: of the trainer.
        steps_left: float, the number of steps left in this `fit`.
        relative_learning_rate: float in [0, 1], the learning rate divided by the largest one so far.
    """
    context = strategy.gate_context()._replace(relative_learning_rate=relative_learning_rate)
    if not plan.batches_per_pass:
        return context
    return context._replace(
        epochs_done=_passed(counters.epochs_on_dataset),
        epochs_left=steps_left / plan.batches_per_pass,
        **held_out_context(plan, strategy, counters),
    )


def _passed(epochs: float) -> float:
    """Return a number of epochs, a sum of fractions, without its rounding error."""
    return round(epochs, 6)
