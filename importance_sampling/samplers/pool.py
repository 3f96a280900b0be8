"""The sampler of [KF18] (arXiv 1803.00942, Algorithm 1): score a uniform pool, draw the batch from it by score.

It turns scores into probabilities, positions and weights. It doesn't compute scores, doesn't read data, and doesn't
decide whether sampling is worth its price.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.resampling import Resampling


class Picked(NamedTuple):
    """A batch drawn from a pool."""

    positions: Any  # int32 (batch_size,), into the pool
    weights: Any  # float32 (batch_size,), at most 1/alpha when unbiased
    scores: Any  # float32 (batch_size,), of the picked, as predicted


def clean_scores(scores: Any) -> tuple[Any, Any]:
    """Scores that can be drawn from: the given ones, or all ones where they are no use.

    A pool with a NaN, an infinity or a negative number in it, or nothing but zeros, says nothing about importance.

    Args:
        scores: float `(pool_size,)`.

    Returns:
        float32 `(pool_size,)` and a bool scalar, whether they were of use.
    """
    scores = ops.cast(scores, "float32")
    valid = ops.logical_and(ops.all(ops.isfinite(scores)), ops.all(scores >= 0))
    scores = ops.where(valid, scores, ops.ones_like(scores))
    # Scaled by the largest first, so that neither their sum nor their squares leave float32's range.
    largest = ops.max(scores)
    usable = ops.logical_and(valid, largest > 0)
    return ops.where(usable, scores / ops.where(largest > 0, largest, 1.0), ops.ones_like(scores)), usable


def probabilities(scores: Any, alpha: float) -> Any:
    """P = (1 - alpha) s / sum(s) + alpha / B, uniform where the scores are no use.

    Args:
        scores: float `(pool_size,)`, >= 0, unnormalised.
        alpha: the uniform share, in (0, 1].

    Returns:
        float32 `(pool_size,)`, summing to 1, every one at least alpha / B.

    Example:
        >>> probabilities(np.array([1.0, 3.0, 0.0, 4.0]), alpha=0.2)
        ... # [0.15, 0.35, 0.05, 0.45]
    """
    scores, _ = clean_scores(scores)
    return (1.0 - alpha) * scores / ops.sum(scores) + alpha / scores.shape[0]


class PoolSampler:
    """Draws a batch from a pool of candidates with probabilities proportional to their scores, mixed with uniform.

    Unbiased with an unbiased reweighting policy. Costs a forward pass over the pool for the scores, nothing to speak
    of itself. It has no state.

    Args:
        pool_size: int, how many candidates a pool has.
        batch_size: int, how many are picked, with replacement.
        alpha: float in (0, 1], the uniform share; no unbiased weight exceeds 1/alpha.
        resampling: a `Resampling`.
        reweighting: a `ReweightingPolicy`.

    Example:
        >>> sampler = PoolSampler(6, 2, 0.1, resampling.get("systematic"), BiasedReweightingPolicy())
        >>> sampler.pick(np.array([0., 1, 2, 3, 4, 5]), np.array([0.5])).positions

    Source: [KF18], Algorithm 1, where alpha is 0 and draws are multinomial.
    """

    def __init__(
        self, pool_size: int, batch_size: int, alpha: float, resampling: Resampling, reweighting: ReweightingPolicy
    ):
        self.pool_size = pool_size
        self.batch_size = batch_size
        self.alpha = alpha
        self.resampling = resampling
        self.reweighting = reweighting

    @property
    def num_uniforms(self) -> int:
        """How many random numbers in [0, 1) a pick takes."""
        return self.resampling.num_uniforms(self.batch_size)

    def pick(self, scores: Any, uniforms: Any) -> Picked:
        """Draw a batch.

        Args:
            scores: float `(pool_size,)`.
            uniforms: float `(num_uniforms,)` in [0, 1).

        Returns:
            `Picked`.
        """
        p = probabilities(scores, self.alpha)
        positions = self.resampling.positions(p, uniforms, self.batch_size)
        picked_scores = ops.take(ops.cast(scores, "float32"), positions, axis=0)
        weights = self.reweighting.weights(ops.take(p, positions, axis=0), self.pool_size, picked_scores)
        return Picked(positions, weights, picked_scores)
