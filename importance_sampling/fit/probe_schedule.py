"""Decide how often samples are scored for the gate only.

A probe scores one batch, which is wasted if the gate stays closed. The schedules are this library's own.
"""

from __future__ import annotations

import math

from importance_sampling.conditions import GateContext
from importance_sampling.fit.state import Counters

# A probe costs a third of a step by arithmetic: one in 17 steps keeps the cost under 2 %.
PROBE_EVERY = 17
PROBES_PER_INTERVAL = 2  # before the interval is doubled
LONGEST = 32  # times the first interval
HELD_OUT_SHARE = 0.03  # of the cost of training, for the loss of held-out samples


def probe_is_due(counters: Counters, tau: float, context: GateContext, steps_per_execution: int) -> bool:
    """Return True if the next batch is to be scored for the gate.

    A probe is due at the beginning, until a first value is measured, at the end of the epochs that the gate requires,
    and after the steps of `steps_between_probes`.

    Args:
        counters: of the trainer.
        tau: float, the average; NaN if nothing was measured.
        context: of the gate's last decision.
        steps_per_execution: int, as compiled; most executions of several steps are left to Keras's own compiled loop.
    """
    interval = steps_between_probes(counters.closed_probes)
    if steps_per_execution > 1:
        interval = max(interval, 4 * steps_per_execution)
    return (
        counters.steps_since_probe >= interval
        or counters.steps == 0
        or math.isnan(tau)
        or context.epochs_done < context.required_epochs <= round(counters.epochs_on_dataset, 6)
    )


def held_out_loss_is_due(counters: Counters, cost: float) -> bool:
    """Return True if the loss of held-out samples is to be measured while the gate is open.

    It is measured as often as 3 % of the cost of training allows, and at most every 17 steps.

    Args:
        counters: of the trainer.
        cost: float > 0, of a measurement, in uniform steps.
    """
    return counters.steps - counters.loss_measured_at >= max(PROBE_EVERY, cost / HELD_OUT_SHARE)


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
    return PROBE_EVERY * min(2 ** (closed_probes // PROBES_PER_INTERVAL), LONGEST)
