"""Determine the cost of a step by arithmetic, so that it is the same on every machine."""

from __future__ import annotations

UNIFORM_STEP = 3.0  # cost of a uniform step, in forward passes of a batch: a backward pass counts as two


def step_cost(scored: float) -> float:
    """Return the cost of a step that also scores batches: 1 + scored / 3 (uniform step = 1).

    Args:
        scored: float >= 0, the number of batches scored per step.

    Example:
        >>> step_cost(3.0)
        2.0
    """
    return 1.0 + scored / UNIFORM_STEP
