"""The sampler of [KF18] (arXiv 1803.00942, Algorithm 1): score a uniform pool, draw the batch from it by score.

It turns scores into probabilities, positions and weights. It doesn't compute scores, doesn't read data, and doesn't
decide whether sampling is worth its price.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from importance_sampling.numerics import floats, side
from importance_sampling.probabilities import clean_scores, probabilities
from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.resampling import Resampling

__all__ = ["Picked", "PoolSampler", "clean_scores", "probabilities"]


class Picked(NamedTuple):
    """A batch drawn from a pool."""

    positions: Any  # int32 (batch_size,), into the pool
    weights: Any  # float32 (batch_size,), at most 1/alpha when unbiased
    scores: Any  # float32 (batch_size,), of the picked, as predicted


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
        smooth: None, or `smooth(scores, average)` -> scores to draw by, `average` being the moving average of the mean
            score.

    Example:
        >>> sampler = PoolSampler(6, 2, 0.1, resampling.get("systematic"), BiasedReweightingPolicy())
        >>> sampler.pick(np.array([0., 1, 2, 3, 4, 5]), np.array([0.5])).positions

    Source: [KF18], Algorithm 1, where alpha is 0 and draws are multinomial.
    """

    def __init__(
        self,
        pool_size: int,
        batch_size: int,
        alpha: float,
        resampling: Resampling,
        reweighting: ReweightingPolicy,
        smooth: Callable[[Any, Any], Any] | None = None,
    ):
        self.pool_size = pool_size
        self.batch_size = batch_size
        self.alpha = alpha
        self.resampling = resampling
        self.reweighting = reweighting
        self.smooth = smooth

    @property
    def presample(self) -> float:
        """The pool's size in batches."""
        return self.pool_size / self.batch_size

    @property
    def num_uniforms(self) -> int:
        """How many random numbers in [0, 1) a pick takes."""
        return self.resampling.num_uniforms(self.batch_size)

    def pick(self, scores: Any, uniforms: Any, average: Any = float("nan")) -> Picked:
        """Draw a batch.

        Args:
            scores: float `(pool_size,)`.
            uniforms: float `(num_uniforms,)` in [0, 1).
            average: float scalar, the moving average of the mean score, NaN at the beginning.

        Returns:
            `Picked`.
        """
        xp = side(scores, uniforms)
        p = probabilities(scores if self.smooth is None else self.smooth(scores, average), self.alpha)
        positions = self.resampling.positions(p, uniforms, self.batch_size)
        picked_scores = xp.take(floats(scores, xp), positions, axis=0)
        weights = self.reweighting.weights(xp.take(p, positions, axis=0), self.pool_size, picked_scores)
        return Picked(positions, weights, picked_scores)
