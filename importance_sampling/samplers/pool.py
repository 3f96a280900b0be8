"""Draw a batch from a scored pool, inside a compiled step.

Source: [KF18] Katharopoulos & Fleuret, Not All Samples Are Created Equal, 2018 (arXiv 1803.00942), Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.reweighting.base import check_policy
from importance_sampling.samplers.resampling import Resampling, check_scheme
from importance_sampling.utils.numerics import array_namespace, as_floats, probabilities
from importance_sampling.utils.validation import check_alpha, check_positive, is_real


class Picked(NamedTuple):
    """A batch drawn from a pool.

    Attributes:
        positions: int32 `(batch_size,)`, positions in the pool.
        weights: float32 `(batch_size,)`, the importance weights, at most 1 / alpha with an unbiased policy.
        scores: float32 `(batch_size,)`, the predicted scores before smoothing.
        unbiased_weights: float32 `(batch_size,)`, 1 / (B P), independent of the policy; 1 where samples are selected
            without probabilities.
    """

    positions: Any
    weights: Any
    scores: Any
    unbiased_weights: Any


class PoolSampler:
    """Draw a batch from a pool of candidates with P_i = (1 - alpha) s_i / sum(s) + alpha / B.

    Unbiased with an unbiased policy. Cost: a forward pass over the pool for the scores. The sampler has no state. It
    runs on tensors inside a compiled step, and on NumPy arrays.

    Args:
        pool_size: int, B, the number of candidates.
        batch_size: int, the number of samples to draw, with replacement.
        alpha: float in (0, 1], the uniform share; no unbiased weight exceeds 1 / alpha.
        resampling: a `Resampling`.
        reweighting: a `ReweightingPolicy`.
        smooth: None (default), or `smooth(scores, average)` -> smoothed scores `(pool_size,)`, where `average` is the
            moving average of the mean score.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> from importance_sampling.samplers.resampling import SystematicResampling
        >>> sampler = PoolSampler(6, 2, 0.1, SystematicResampling(), BiasedReweightingPolicy())
        >>> sampler.pick(np.array([0., 1, 2, 3, 4, 5]), np.array([0.5])).positions
        array([3, 5])

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
        check_positive(pool_size=pool_size, batch_size=batch_size)
        if not (is_real(alpha) and alpha == 0):  # 0 is that of the paper
            check_alpha(alpha)
        check_scheme(resampling)
        check_policy(reweighting=reweighting)
        if smooth is not None and not callable(smooth):
            raise ValueError(
                f"`smooth` must be a function `smooth(scores, average)`, or None. Received: smooth={smooth!r}"
            )
        self.pool_size = pool_size
        self.batch_size = batch_size
        self.alpha = alpha
        self.resampling = resampling
        self.reweighting = reweighting
        self.smooth = smooth

    @property
    def presample(self) -> float:
        """The size of the pool in batches."""
        return self.pool_size / self.batch_size

    @property
    def num_uniforms(self) -> int:
        """The number of random numbers in [0, 1) that `pick` needs."""
        return self.resampling.num_uniforms(self.batch_size)

    def pick(self, scores: Any, uniforms: Any, average: Any = float("nan")) -> Picked:
        """Draw a batch.

        Args:
            scores: float `(pool_size,)`.
            uniforms: float `(num_uniforms,)`, random numbers in [0, 1).
            average: float scalar, the moving average of the mean score; NaN (default) if there is none yet.

        Returns:
            `Picked`.
        """
        xp = array_namespace(scores, uniforms)
        p = probabilities(scores if self.smooth is None else self.smooth(scores, average), self.alpha)
        positions = self.resampling.positions(p, uniforms, self.batch_size)
        picked_scores = xp.take(as_floats(scores, xp), positions, axis=0)
        picked_p = xp.take(p, positions, axis=0)
        weights = self.reweighting.weights(picked_p, self.pool_size, picked_scores)
        return Picked(positions, weights, picked_scores, 1.0 / (self.pool_size * picked_p))
