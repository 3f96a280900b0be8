"""From scores to probabilities: [KF18] (arXiv 1803.00942), equation 4, mixed with a share of uniform.

The uniform share is this library's; it bounds the weights. Nothing is drawn here.
"""

from __future__ import annotations

from typing import Any

from importance_sampling.datasets.base import is_real
from importance_sampling.numerics import floats, side


def clean_scores(scores: Any) -> tuple[Any, Any]:
    """Scores that can be drawn from: the given ones, or all ones where they are no use.

    A pool with a NaN, an infinity or a negative number in it, or nothing but zeros, says nothing about importance.

    Args:
        scores: float `(pool_size,)`.

    Returns:
        Float `(pool_size,)`, at most 1, and a bool scalar, whether they were of use.
    """
    xp = side(scores)
    scores = floats(scores, xp)
    valid = xp.logical_and(xp.all(xp.isfinite(scores)), xp.all(scores >= 0))
    scores = xp.where(valid, scores, xp.ones_like(scores))
    # Scaled by the largest first, so that neither their sum nor their squares leave float32's range.
    largest = xp.max(scores)
    usable = xp.logical_and(valid, largest > 0)
    return xp.where(usable, scores / xp.where(largest > 0, largest, 1.0), xp.ones_like(scores)), usable


def probabilities(scores: Any, alpha: float) -> Any:
    """P = (1 - alpha) s / sum(s) + alpha / B, uniform where the scores are no use.

    Args:
        scores: float `(pool_size,)`, >= 0, unnormalised.
        alpha: the uniform share, in [0, 1].

    Returns:
        Float `(pool_size,)`, summing to 1, every one at least alpha / B.

    Example:
        >>> probabilities(np.array([1.0, 3.0, 0.0, 4.0]), alpha=0.2)
        array([0.15, 0.35, 0.05, 0.45])
    """
    scores, _ = clean_scores(scores)
    return (1.0 - alpha) * scores / side(scores).sum(scores) + alpha / scores.shape[0]


def check_alpha(alpha: float) -> None:
    """Raise unless a uniform share is in (0, 1].

    Raises:
        ValueError: it isn't.
    """
    if not is_real(alpha) or not 0 < alpha <= 1:
        raise ValueError(f"`alpha` must be a number in (0, 1]. Received: alpha={alpha!r}")
