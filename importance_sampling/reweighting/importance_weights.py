"""Policies that use the data known when a batch is drawn: probabilities and predicted scores.

Source: [KF17] Katharopoulos & Fleuret, Biased Importance Sampling for Deep Neural Network Training, 2017 (arXiv
1706.00043), section 3.1, for the exponent k; [KF18] the same, Not All Samples Are Created Equal, 2018 (arXiv
1803.00942), equation 3, for k = 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.reweighting.base import ReweightingPolicy
from importance_sampling.utils.numerics import array_namespace, as_floats
from importance_sampling.utils.validation import is_real


class BiasedReweightingPolicy(ReweightingPolicy):
    """Weights w^k, w = 1 / (B P), rescaled so that sum(w^k s) = sum(w s) over the batch. Biased for k < 1.

    k = 1 is unbiased; k < 1 gives samples with high scores more weight; k = 0 gives all samples the same weight. Cost:
    none. With k < 1 not suited to wrong labels, which have high scores.

    Args:
        k: float in (-inf, 1], default 1.

    Raises:
        ValueError: `k` is greater than 1, or not a number.

    Example:
        >>> BiasedReweightingPolicy(k=1.0).weights(np.array([0.5, 0.125]), pool_size=4, scores=np.array([4.0, 1.0]))
        array([0.5, 2. ])

    Source: [KF17], section 3.1.
    """

    def __init__(self, k: float = 1.0):
        if not is_real(k) or not -np.inf < k <= 1.0:
            raise ValueError(f"`k` must be a number of at most 1; 1 is unbiased. Received: k={k!r}")
        self.k = float(k)

    @property
    def unbiased(self) -> bool:
        """True if k is 1: then the expected weighted gradient is the full gradient."""
        return self.k == 1.0

    def get_config(self) -> dict:
        """Return the constructor's arguments, for Keras's serialisation."""
        return {"k": self.k}

    def weights(self, probabilities: Any, pool_size: int, scores: Any) -> Any:
        """Compute the rescaled w^k. Arguments and result are those of `ReweightingPolicy.weights`."""
        xp = array_namespace(probabilities, scores)
        return rescaled_power(1.0 / (pool_size * as_floats(probabilities, xp)), self.k, scores, xp)


class NoReweightingPolicy(ReweightingPolicy):
    """Weights of 1. The gradient estimate is biased towards samples with high probabilities.

    Cost: none. Not suited to wrong labels and outliers, which are drawn often.

    Example:
        >>> NoReweightingPolicy().weights(np.array([0.5, 0.125]), pool_size=4, scores=np.array([4.0, 1.0]))
        array([1., 1.])
    """

    def weights(self, probabilities: Any, pool_size: int, scores: Any) -> Any:
        """Return ones. Arguments and result are those of `ReweightingPolicy.weights`."""
        xp = array_namespace(probabilities)
        return xp.ones_like(as_floats(probabilities, xp))


UNWEIGHTED = NoReweightingPolicy()
UNBIASED = BiasedReweightingPolicy(1.0)


def usable_scores(scores: Any, xp: Any) -> tuple[Any, Any]:
    """Replace unusable scores by ones: those with a negative or non-finite number among them, or zeros only.

    Args:
        scores: float `(n,)`.
        xp: `numpy` or `keras.ops`.

    Returns:
        Float `(n,)`; and a bool scalar, True if the scores were usable.
    """
    scores = as_floats(scores, xp)
    usable = xp.logical_and(xp.all(xp.isfinite(scores)), xp.all(scores >= 0))
    usable = xp.logical_and(usable, xp.any(scores > 0))
    return xp.where(usable, scores, xp.ones_like(scores)), usable


def rescaled_power(weights: Any, k: float, scores: Any, xp: Any) -> Any:
    """Compute w^k, rescaled so that sum(w^k s) = sum(w s). Unusable scores are replaced by ones.

    Args:
        weights: float `(n,)`, > 0.
        k: float <= 1.
        scores: float `(n,)`.
        xp: `numpy` or `keras.ops`.

    Returns:
        Float `(n,)`.
    """
    if k == 1.0:
        return weights
    powers = xp.power(weights, k)
    scores, _ = usable_scores(scores, xp)
    return powers * (xp.sum(weights * scores) / xp.sum(powers * scores))
