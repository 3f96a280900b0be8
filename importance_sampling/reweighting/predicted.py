"""Policies that weigh by what is known when a batch is drawn.

Source: [KF17] (arXiv 1706.00043), section 3.1, for the exponent k; [KF18] (arXiv 1803.00942), equation 3, for k = 1.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from importance_sampling.datasets.base import is_real
from importance_sampling.numerics import floats, side
from importance_sampling.reweighting.base import ReweightingPolicy


@keras.saving.register_keras_serializable(package="importance_sampling")
class BiasedReweightingPolicy(ReweightingPolicy):
    """Weights w^k with w = 1 / (B P), rescaled so that sum(w^k s) = sum(w s) over the batch.

    k = 1 is unbiased; k < 1 leans towards samples of a high score; 0 weighs the batch evenly. It costs nothing. With
    k < 1 it loses where high scores mean wrong labels.

    Args:
        k: float in (-inf, 1], default 1.

    Raises:
        ValueError: k is greater than 1, or not a number.

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
        """Whether the weighted gradient's mean is the full gradient."""
        return self.k == 1.0

    def get_config(self) -> dict:
        """The constructor's arguments, for Keras's serialisation."""
        return {"k": self.k}

    def weights(self, probabilities: Any, pool_size: int, scores: Any) -> Any:
        """Weights of the picked; arguments and result as `ReweightingPolicy.weights` has them."""
        xp = side(probabilities, scores)
        return rescaled_power(1.0 / (pool_size * floats(probabilities, xp)), self.k, scores, xp)


@keras.saving.register_keras_serializable(package="importance_sampling")
class NoReweightingPolicy(ReweightingPolicy):
    """Every weight is 1: the estimate leans towards what is drawn often, by as much as the probabilities differ.

    It loses where that isn't what is to be learnt: wrong labels and outliers count as often as they are drawn.
    """

    def weights(self, probabilities: Any, pool_size: int, scores: Any) -> Any:
        """Ones; arguments and result as `ReweightingPolicy.weights` has them."""
        xp = side(probabilities)
        return xp.ones_like(floats(probabilities, xp))


UNWEIGHTED = NoReweightingPolicy()
UNBIASED = BiasedReweightingPolicy(1.0)


def usable_scores(scores: Any, xp: Any) -> tuple[Any, Any]:
    """The scores, or ones where any of them is no number or all are zero; and which of the two."""
    scores = floats(scores, xp)
    usable = xp.logical_and(xp.all(xp.isfinite(scores)), xp.all(scores >= 0))
    usable = xp.logical_and(usable, xp.any(scores > 0))
    return xp.where(usable, scores, xp.ones_like(scores)), usable


def rescaled_power(weights: Any, k: float, scores: Any, xp: Any) -> Any:
    """w^k, rescaled so that sum(w^k s) = sum(w s); where the scores are no use, the sum of the weights is kept."""
    if k == 1.0:
        return weights
    powers = xp.power(weights, k)
    by, _ = usable_scores(scores, xp)
    return powers * (xp.sum(weights * by) / xp.sum(powers * by))
