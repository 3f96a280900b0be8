"""Turn scores into sampling probabilities: [KF18] (arXiv 1803.00942), equation 4, mixed with the uniform distribution.

The mixture with the uniform distribution is an addition of this library. It bounds the unbiased weights by 1 / alpha.
"""

from __future__ import annotations

from typing import Any

from importance_sampling.utils.numerics import array_namespace, as_floats


def clean_scores(scores: Any) -> tuple[Any, Any]:
    """Scale scores to a maximum of 1, and replace unusable scores by ones.

    Scores are unusable if any of them is NaN, infinite or negative, or if all of them are zero.

    Args:
        scores: float `(pool_size,)`.

    Returns:
        Float `(pool_size,)`, in [0, 1]; and a bool scalar, True if the scores were usable.

    Example:
        >>> clean_scores(np.array([1.0, 4.0, 0.0]))
        (array([0.25, 1.  , 0.  ]), np.True_)
        >>> clean_scores(np.array([1.0, np.nan]))
        (array([1., 1.]), np.False_)
    """
    xp = array_namespace(scores)
    scores = as_floats(scores, xp)
    valid = xp.logical_and(xp.all(xp.isfinite(scores)), xp.all(scores >= 0))
    scores = xp.where(valid, scores, xp.ones_like(scores))
    # Dividing by the maximum keeps the sum and the squares of the scores within the range of float32.
    largest = xp.max(scores)
    usable = xp.logical_and(valid, largest > 0)
    return xp.where(usable, scores / xp.where(largest > 0, largest, 1.0), xp.ones_like(scores)), usable


def probabilities(scores: Any, alpha: float) -> Any:
    """Compute P = (1 - alpha) s / sum(s) + alpha / B. Unusable scores give uniform probabilities.

    Args:
        scores: float `(pool_size,)`, >= 0, unnormalised.
        alpha: float in [0, 1], the uniform share.

    Returns:
        Float `(pool_size,)`, with a sum of 1. No probability is below alpha / B.

    Example:
        >>> probabilities(np.array([1.0, 3.0, 0.0, 4.0]), alpha=0.2)
        array([0.15, 0.35, 0.05, 0.45])

    Source: [KF18], equation 4, where alpha is 0.
    """
    scores, _ = clean_scores(scores)
    return (1.0 - alpha) * scores / array_namespace(scores).sum(scores) + alpha / scores.shape[0]
