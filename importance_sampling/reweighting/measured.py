"""Policies that also look at the scores that the training step itself measures.

Source: the policies of those names of earlier versions of the method's library; [KF17] (arXiv 1706.00043), section 3.1,
for the exponent k. Both are biased.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from importance_sampling.numerics import floats, side
from importance_sampling.reweighting.predicted import BiasedReweightingPolicy, rescaled_power, usable_scores

LARGEST = 10.0  # what no weight by measured scores exceeds before it is rescaled, as with a uniform share of a tenth


@keras.saving.register_keras_serializable(package="importance_sampling")
class AdjustedBiasedReweightingPolicy(BiasedReweightingPolicy):
    """Weights by the scores that the training step measures, in place of the predicted ones.

    With S1 the sum of the predicted scores outside the batch and S2 that of the measured ones in it (each sample once),
    a_i = (S1 + S2) / (B s_i), at most 10, and the weights are t a_i^k with t = sum(a s) / sum(a^k s). Ones where what
    was measured is no use. Biased for every k: a batch is drawn by one score and weighed by another. It costs nothing.
    It loses where predictions and measurements are on different scales: then S1 + S2 is the sum of neither.

    The columns are S1 / B and, for each of the picked, 1 / (B times how often it was picked).

    Args:
        k: float in (-inf, 1], default 1.

    Raises:
        ValueError: k is greater than 1, or not a number.

    Example:
        >>> policy = AdjustedBiasedReweightingPolicy(k=1.0)
        >>> columns = policy.sample_weights([0, 1], np.array([4.0, 1.0, 2.0, 1.0]))
        >>> policy.final_weights(columns, np.array([3.0, 2.0]))  # (3 + 5) / (4 * [3, 2])
        array([0.66666667, 1.        ])

    Source: [KF17], section 3.1, for k; the adjustment is that of earlier versions of the method's library.
    """

    unbiased = False
    weight_size = 2

    def even(self, batch_size: int) -> np.ndarray:
        """Zeros, by which no score is of use."""
        return np.zeros((batch_size, 2), "float32")

    def final_weights(self, columns: Any, measured: Any) -> Any:
        """t a^k; arguments and result as `ReweightingPolicy.final_weights` has them."""
        xp = side(columns, measured)
        columns, measured, usable = floats(columns, xp), *usable_scores(measured, xp)
        mean = columns[:, 0] + xp.sum(columns[:, 1] * measured)
        usable = xp.logical_and(usable, xp.all(mean > 0))
        # The bound as a floor of the score: nothing is divided by zero.
        mean = xp.where(usable, mean, xp.ones_like(mean))
        adjusted = mean / xp.maximum(measured, mean / LARGEST)
        return xp.where(usable, rescaled_power(adjusted, self.k, measured, xp), xp.ones_like(mean))

    def _columns(self, positions: np.ndarray, scores: np.ndarray, p: np.ndarray) -> np.ndarray:
        picked, where, counts = np.unique(positions, return_inverse=True, return_counts=True)
        if np.isfinite(scores).all() and (scores >= 0).all():
            outside, size = max(scores.sum() - scores[picked].sum(), 0.0), scores.size
        else:
            outside, size = 0.0, picked.size  # nothing is known of the others: let the batch stand for the pool
        return np.stack([np.full(where.size, outside / size), 1.0 / (size * counts[where])], axis=1)


@keras.saving.register_keras_serializable(package="importance_sampling")
class CorrectingReweightingPolicy(BiasedReweightingPolicy):
    """The biased weight times clip(predicted_i / measured_i, 0, 2): what was overrated counts more, up to twice.

    1 in place of the ratio where one of the two is no use, or both are zero. Biased for every k. It costs nothing. It
    loses where predictions and measurements are on different scales.

    The columns are the biased weight and the predicted score.

    Args:
        k: float in (-inf, 1], default 1.

    Raises:
        ValueError: k is greater than 1, or not a number.

    Example:
        >>> policy = CorrectingReweightingPolicy(k=1.0)
        >>> columns = policy.sample_weights([0, 1], np.array([4.0, 1.0, 2.0, 1.0]))  # weights .5 and 2
        >>> policy.final_weights(columns, np.array([8.0, 0.4]))  # times .5 and 2
        array([0.25, 4.  ])

    Source: the policy of that name of earlier versions of the method's library.
    """

    unbiased = False
    weight_size = 2

    def even(self, batch_size: int) -> np.ndarray:
        """Weights of 1 with predictions of -1, which are no use."""
        return np.tile(np.array([1.0, -1.0], "float32"), (batch_size, 1))

    def final_weights(self, columns: Any, measured: Any) -> Any:
        """The product; arguments and result as `ReweightingPolicy.final_weights` has them."""
        xp = side(columns, measured)
        columns, measured = floats(columns, xp), floats(measured, xp)
        weights, predicted = columns[:, 0], columns[:, 1]
        known = xp.logical_and(xp.isfinite(measured), measured >= 0)
        known = xp.logical_and(known, xp.logical_and(predicted >= 0, xp.maximum(predicted, measured) > 0))
        ones = xp.ones_like(weights)
        predicted, measured = xp.where(known, predicted, ones), xp.where(known, measured, ones)
        # predicted / measured is 2 at measured = predicted / 2, and there it is held.
        floor = predicted / 2.0
        return weights * predicted / xp.maximum(measured, xp.where(floor > 0, floor, ones * 1e-30))

    def _columns(self, positions: np.ndarray, scores: np.ndarray, p: np.ndarray) -> np.ndarray:
        predicted = np.where(np.isfinite(scores[positions]), scores[positions], -1.0)
        return np.stack([self.weights(p, scores.size, scores[positions]), predicted], axis=1)
