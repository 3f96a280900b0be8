"""Estimate the variance reduction by importance sampling from scores: tau, variance gain, and moving averages.

Source: [KF18] Katharopoulos & Fleuret, Not All Samples Are Created Equal, 2018 (arXiv 1803.00942), equations 23 to 26,
for tau. The variance gain under systematic and multinomial resampling follows from the second moments of the number of
draws.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from importance_sampling.utils.numerics import DEFAULT_ALPHA, array_namespace, as_floats, clean_scores

if TYPE_CHECKING:
    from importance_sampling.samplers.resampling import Resampling


class Signals(NamedTuple):
    """Statistics of scores that a gate decides by. Every field is a float scalar, NaN if it was not measured.

    Attributes:
        tau: float >= 1, the inequality of the scores.
        gain: float, the variance gain by the predicted scores.
        discount: float, the variance gain by the scores that the training step measured, divided by `gain`; measured
            only while the gate is open.
        score: float >= 0, the mean score.
    """

    tau: Any
    gain: Any
    discount: Any
    score: Any

    @property
    def trusted_gain(self) -> float:
        """The variance gain by the predicted or by the measured scores, whichever is smaller.

        The last discount remains in use after the gate has closed, so that the gate doesn't open and close repeatedly.
        """
        return float(self.gain) * float(np.fmin(self.discount, 1.0))


def tau(scores: Any) -> Any:
    """Compute tau = sqrt(B sum(g^2)) = sqrt(1 + CV(s)^2), a measure of the inequality of scores.

    Args:
        scores: float `(pool_size,)`, >= 0.

    Returns:
        Float scalar, >= 1; 1 for equal scores.

    Example:
        >>> round(float(tau(np.array([1.0, 2.0, 3.0, 0.0]))), 3)  # sqrt(4 * 14 / 36)
        1.247

    Source: [KF18], equation 26.
    """
    scores, _ = clean_scores(scores)
    xp = array_namespace(scores)
    return xp.sqrt(xp.mean(xp.square(scores))) / xp.mean(scores)


def variance_gain(scores: Any, presample: float, alpha: float, resampling: Resampling) -> Any:
    """Compute the variance gain of drawing from a pool of `presample` batches.

    variance gain = presample mean(s^2) / mean(v(q) s^2), where q = ((1 - alpha) s / mean(s) + alpha) / presample is the
    expected number of times that a candidate is drawn, and v(q) = E[count^2] / q^2 depends on the resampling scheme.

    Args:
        scores: float `(n,)`, >= 0, of a pool or of another uniform sample of the data.
        presample: float, the size of the pool in batches.
        alpha: float in (0, 1], the uniform share.
        resampling: the resampling scheme.

    Returns:
        Float scalar, at most `presample`; 1 for equal scores with systematic resampling.
    """
    scores, _ = clean_scores(scores)
    xp = array_namespace(scores)
    q = ((1.0 - alpha) * scores / xp.mean(scores) + alpha) / presample
    square = xp.square(scores)
    return presample * xp.mean(square) / xp.mean(resampling.second_moment(q) * square)


def measured_variance_gain(weights: Any, norms: Any, presample: float, resampling: Resampling) -> Any:
    """Compute the variance gain from the gradient norms m that the training step measured on the drawn batch.

    variance gain = presample sum(w m^2) / sum(w v(q) m^2), where q = 1 / (w presample). With the unbiased weights, sums
    over the batch are estimates of sums over the pool.

    Args:
        weights: float `(batch_size,)`, the unbiased weights w.
        norms: float `(batch_size,)`, the gradient norms m, in training mode.
        presample: float, the size of the pool in batches.
        resampling: the resampling scheme.

    Returns:
        float32 scalar; NaN if the norms are zeros only, or not all finite.
    """
    from keras import ops  # here, so that signals of NumPy arrays need no framework

    weights, norms = ops.cast(weights, "float32"), ops.cast(norms, "float32")
    square = weights * ops.square(norms / ops.max(norms))
    q = 1.0 / (weights * presample)
    return presample * ops.sum(square) / ops.sum(resampling.second_moment(q) * square)


def row_signals(scores: Any, weights: Any, alpha: float = DEFAULT_ALPHA) -> Signals:
    """Compute the gate's signals from scores that a step measured on weighted rows.

    The unbiased weights turn sums over the batch into estimates of sums over the dataset:

        tau = sqrt(mean(w s^2)) / mean(w s)
        gain = sum(w s^2) / sum(w s^2 / q), where q = (1 - alpha) s / mean(w s) + alpha
        measured gain = sum(w s^2) / sum(w^2 s^2)

    The discount is the measured gain, which assumes independent draws, divided by the gain. Equal weights give no
    estimate of the measured gain.

    Args:
        scores: float `(batch,)`, >= 0.
        weights: float `(batch,)`, > 0, the unbiased weights.
        alpha: float in (0, 1], default 0.1, the uniform share.

    Returns:
        `Signals` of float scalars. Values are NaN if the scores are all zero or not finite; `discount` is also NaN if
        the weights are equal.
    """
    xp = array_namespace(scores, weights)
    scores = as_floats(scores, xp)
    scaled = scores / xp.max(scores)
    mean, square = xp.mean(weights * scaled), weights * xp.square(scaled)
    gain = xp.sum(square) / xp.sum(square / ((1.0 - alpha) * scaled / mean + alpha))
    measured_gain = xp.sum(square) / xp.sum(weights * square)
    return Signals(
        tau=xp.maximum(xp.sqrt(xp.mean(square)) / mean, 1.0),
        gain=gain,
        discount=xp.where(xp.max(weights) > xp.min(weights), measured_gain / gain, float("nan")),
        score=xp.mean(weights * scores),
    )


def uniform_signals(scores: Any, alpha: float = DEFAULT_ALPHA) -> Signals:
    """Compute the gate's signals for drawing all rows by score, from the scores of uniformly drawn samples.

    The result is that of `row_signals` with weights of 1. Unusable scores count as equal scores.

    Args:
        scores: float `(n,)`, >= 0.
        alpha: float in (0, 1], default 0.1, the uniform share.

    Returns:
        `Signals` of float scalars. `discount` is NaN.
    """
    xp = array_namespace(scores)
    mean = xp.mean(as_floats(scores, xp))
    scores, _ = clean_scores(scores)
    return row_signals(scores, xp.ones_like(scores), alpha)._replace(score=mean)


def moving_average(average: Any, value: Any, momentum: float, steps: int) -> Any:
    """Update an exponential moving average.

    Args:
        average: float, the previous average; NaN if there is none.
        value: float of the same shape; NaN if it was not measured.
        momentum: float in [0, 1), per step.
        steps: int >= 1, the number of steps since the last update.

    Returns:
        Float of the same shape: the value if there was no average, the previous average if the value is NaN.
    """
    xp = array_namespace(average, value, steps)
    decay = momentum**steps
    mixed = decay * as_floats(average, xp) + (1.0 - decay) * as_floats(value, xp)
    return xp.where(xp.isnan(value), average, xp.where(xp.isnan(average), value, mixed))
