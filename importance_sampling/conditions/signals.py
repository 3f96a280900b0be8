"""What scores say about how much importance sampling would gain: tau, growth, and their moving averages.

Source: [KF18] (arXiv 1803.00942), equations 23 to 26, for tau; the growth of the effective batch under systematic and
multinomial draws follows from the second moment of their counts. Nothing is decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from keras import ops

from importance_sampling.numerics import floats, side
from importance_sampling.probabilities import clean_scores

if TYPE_CHECKING:
    from importance_sampling.samplers.resampling import Resampling


class Signals(NamedTuple):
    """What the scores say; every field a float, NaN where it was not measured."""

    tau: Any  # >= 1
    growth: Any  # by how much the effective batch grows, by the scores at hand; one for each size, if of several pools
    discount: Any  # what is left of it by what the training step saw, as a factor; measured only while open
    score: Any  # mean of the scores

    @property
    def trusted_growth(self) -> float:
        """The smaller of the two growths. The discount outlives the closing of the gate, or it would flap."""
        return float(self.growth) * float(np.fmin(self.discount, 1.0))


def tau(scores: Any) -> Any:
    """tau = sqrt(B sum(g^2)) = sqrt(1 + CV(s)^2), at least 1: how unequal the scores are.

    Args:
        scores: float `(pool_size,)`, >= 0.

    Returns:
        Float scalar.

    Example:
        >>> tau(np.array([1.0, 2.0, 3.0, 0.0]))  # sqrt(4 * 14 / 36) = 1.247

    Source: [KF18], equation 26.
    """
    scores, _ = clean_scores(scores)
    xp = side(scores)
    return xp.sqrt(xp.mean(xp.square(scores))) / xp.mean(scores)


def growth(scores: Any, presample: float, alpha: float, resampling: Resampling) -> Any:
    """By how much a pool of `presample` batches makes the effective batch grow.

    growth = presample mean(s^2) / mean(v(q) s^2), where q = ((1 - alpha) s / mean(s) + alpha) / presample is how often
    a candidate is expected to be drawn and v(q) = E[count^2] / q^2 is the resampling's.

    Args:
        scores: float `(n,)`, >= 0, a pool or any fair sample of the data.
        presample: float, the pool's size in batches.
        alpha: float, the uniform share.
        resampling: the scheme in use.

    Returns:
        Float scalar, at most `presample`; 1 at equal scores with systematic draws.
    """
    scores, _ = clean_scores(scores)
    xp = side(scores)
    q = ((1.0 - alpha) * scores / xp.mean(scores) + alpha) / presample
    square = xp.square(scores)
    return presample * xp.mean(square) / xp.mean(resampling.second_moment(q) * square)


def measured_growth(weights: Any, norms: Any, presample: float, resampling: Resampling) -> Any:
    """The growth by the gradient norms that the training step itself measured on the batch it drew.

    presample sum(w m^2) / sum(w v(q) m^2), where a weight w means q = 1 / (w presample): the importance weights turn
    sums over the batch into sums over the pool.

    Args:
        weights: float `(batch_size,)`, unbiased ones.
        norms: float `(batch_size,)`, m, in training mode.
        presample: float, the pool's size in batches.
        resampling: the scheme in use.

    Returns:
        float32 scalar, NaN where the norms are no use.
    """
    norms = ops.cast(norms, "float32")
    square = weights * ops.square(norms / ops.max(norms))
    q = 1.0 / (weights * presample)
    return presample * ops.sum(square) / ops.sum(resampling.second_moment(q) * square)


def moving_average(average: Any, value: Any, momentum: float, steps: int) -> Any:
    """Exponential moving average with `momentum` per step elapsed; it starts at the first value measured (not NaN)."""
    xp = side(average, value, steps)
    kept = momentum**steps
    mixed = kept * floats(average, xp) + (1.0 - kept) * floats(value, xp)
    return xp.where(xp.isnan(value), average, xp.where(xp.isnan(average), value, mixed))
