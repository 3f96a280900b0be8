"""Reweighting policies: the correction that keeps the gradient estimate honest.

Source: [KF17] (arXiv 1706.00043), section 3.1, for the exponent k; [KF18] (arXiv 1803.00942), equation 3, for k = 1.
They don't draw, and they know nothing of losses.
"""

from __future__ import annotations

from typing import Any, Protocol

from keras import ops


class ReweightingPolicy(Protocol):
    """What a policy has: weights for the picked."""

    unbiased: bool

    def weights(self, probabilities: Any, pool_size: int, scores: Any) -> Any: ...


class BiasedReweightingPolicy:
    """Weights w^k with w = 1 / (B P), rescaled so that sum(w^k s) = sum(w s) over the batch.

    k = 1 is unbiased; k < 1 leans towards samples of a high score; 0 weighs the batch evenly.

    Args:
        k: float in (-inf, 1], default 1.

    Raises:
        ValueError: k is greater than 1, or not a number.

    Example:
        >>> BiasedReweightingPolicy(k=1.0).weights(np.array([0.5, 0.125]), pool_size=4, scores=np.array([4.0, 1.0]))
        ... # [0.5, 2.0]

    Source: [KF17], section 3.1.
    """

    def __init__(self, k: float = 1.0):
        if not k <= 1.0:
            raise ValueError(f"`k` must be a number of at most 1; 1 is unbiased. Received: k={k!r}")
        self.k = float(k)

    @property
    def unbiased(self) -> bool:
        """Whether the weighted gradient's mean is the full gradient."""
        return self.k == 1.0

    def weights(self, probabilities: Any, pool_size: int, scores: Any) -> Any:
        """Weights of the picked.

        Args:
            probabilities: float `(batch_size,)`, with which each of the picked was drawn, > 0.
            pool_size: int, how many candidates there were.
            scores: float `(batch_size,)`, of the picked.

        Returns:
            float32 `(batch_size,)`.
        """
        weights = 1.0 / (pool_size * ops.cast(probabilities, "float32"))
        if self.unbiased:
            return weights
        biased = ops.power(weights, self.k)
        # Scores that are all zero leave nothing to rescale by: then the sums of the weights themselves are matched.
        scores = ops.cast(scores, "float32")
        usable = ops.logical_and(ops.all(ops.isfinite(scores)), ops.any(scores > 0))
        by = ops.where(usable, scores, ops.ones_like(scores))
        return biased * (ops.sum(weights * by) / ops.sum(biased * by))
