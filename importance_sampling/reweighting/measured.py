"""Policies that use the scores that the training step measures. All of them are biased.

Source: the policies of the same names in earlier versions of the method's library; [KF17] (arXiv 1706.00043), section
3.1, for the exponent k.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.reweighting.importance_weights import BiasedReweightingPolicy, rescaled_power, usable_scores
from importance_sampling.utils.numerics import all_usable, array_namespace, as_floats

MAX_WEIGHT = 10.0  # before rescaling; the limit that a uniform share of 0.1 gives to unbiased weights


class AdjustedBiasedReweightingPolicy(BiasedReweightingPolicy):
    """Weights by the measured scores instead of the predicted ones.

    With S1 the sum of the predicted scores outside the batch and S2 the sum of the measured scores in the batch (each
    sample once), a_i = (S1 + S2) / (B s_i), at most 10, and the weights are t a_i^k with t = sum(a s) / sum(a^k s).
    Unusable measured scores give weights of 1.

    Biased for every k, since the batch is drawn by one score and weighed by another. Cost: none. Not suited to
    predicted and measured scores on different scales, whose sum S1 + S2 has no meaning.

    The two columns are S1 / B and 1 / (B n_i), where n_i is the number of times that sample i occurs in the batch.

    Args:
        k: float in (-inf, 1], default 1.

    Raises:
        ValueError: `k` is greater than 1, or not a number.

    Example:
        >>> policy = AdjustedBiasedReweightingPolicy(k=1.0)
        >>> columns = policy.sample_weights([0, 1], np.array([4.0, 1.0, 2.0, 1.0]))
        >>> policy.final_weights(columns, np.array([3.0, 2.0]))  # (3 + 5) / (4 * [3, 2])
        array([0.66666667, 1.        ])

    Source: [KF17], section 3.1, for k; the adjustment is that of earlier versions of the method's library.
    """

    unbiased = False
    weight_size = 2

    def uniform_weights(self, batch_size: int) -> np.ndarray:
        """Return zeros: the adjusted sum is then 0, which gives weights of 1."""
        return np.zeros((batch_size, 2), "float32")

    def final_weights(self, columns: Any, measured: Any) -> Any:
        """Compute t a^k. Arguments and result are those of `ReweightingPolicy.final_weights`."""
        xp = array_namespace(columns, measured)
        columns, measured, usable = as_floats(columns, xp), *usable_scores(measured, xp)
        mean = columns[:, 0] + xp.sum(columns[:, 1] * measured)  # (S1 + S2) / B
        usable = xp.logical_and(usable, xp.all(mean > 0))
        mean = xp.where(usable, mean, xp.ones_like(mean))
        # The limit on the weights is a lower limit on the scores, which prevents a division by zero too.
        adjusted = mean / xp.maximum(measured, mean / MAX_WEIGHT)
        return xp.where(usable, rescaled_power(adjusted, self.k, measured, xp), xp.ones_like(mean))

    def _columns(self, positions: np.ndarray, scores: np.ndarray, p: np.ndarray) -> np.ndarray:
        unique, inverse, counts = np.unique(positions, return_inverse=True, return_counts=True)
        if all_usable(scores):
            outside, size = max(scores.sum() - scores[unique].sum(), 0.0), scores.size
        else:
            outside, size = 0.0, unique.size  # unusable scores: the batch takes the place of the pool
        return np.stack([np.full(inverse.size, outside / size), 1.0 / (size * counts[inverse])], axis=1)


class CorrectingReweightingPolicy(BiasedReweightingPolicy):
    """The biased weight times clip(predicted_i / measured_i, 0, 2).

    The ratio is replaced by 1 if one of the two scores is unusable, or if both are zero.

    Biased for every k. Cost: none. Not suited to predicted and measured scores on different scales.

    The two columns are the biased weight and the predicted score.

    Args:
        k: float in (-inf, 1], default 1.

    Raises:
        ValueError: `k` is greater than 1, or not a number.

    Example:
        >>> policy = CorrectingReweightingPolicy(k=1.0)
        >>> columns = policy.sample_weights([0, 1], np.array([4.0, 1.0, 2.0, 1.0]))  # weights .5 and 2
        >>> policy.final_weights(columns, np.array([8.0, 0.4]))  # times .5 and 2
        array([0.25, 4.  ])

    Source: the policy of the same name in earlier versions of the method's library.
    """

    unbiased = False
    weight_size = 2

    def uniform_weights(self, batch_size: int) -> np.ndarray:
        """Return weights of 1 with predicted scores of -1, which are unusable."""
        return np.tile(np.array([1.0, -1.0], "float32"), (batch_size, 1))

    def final_weights(self, columns: Any, measured: Any) -> Any:
        """Compute the product. Arguments and result are those of `ReweightingPolicy.final_weights`."""
        xp = array_namespace(columns, measured)
        columns, measured = as_floats(columns, xp), as_floats(measured, xp)
        weights, predicted = columns[:, 0], columns[:, 1]
        usable = xp.logical_and(xp.isfinite(measured), measured >= 0)
        usable = xp.logical_and(usable, xp.logical_and(predicted >= 0, xp.maximum(predicted, measured) > 0))
        ones = xp.ones_like(weights)
        predicted, measured = xp.where(usable, predicted, ones), xp.where(usable, measured, ones)
        # A ratio of at most 2 means a measured score of at least half of the predicted one.
        minimum = predicted / 2.0
        return weights * predicted / xp.maximum(measured, xp.where(minimum > 0, minimum, ones * 1e-30))

    def _columns(self, positions: np.ndarray, scores: np.ndarray, p: np.ndarray) -> np.ndarray:
        predicted = np.where(np.isfinite(scores[positions]), scores[positions], -1.0)
        return np.stack([self.weights(p, scores.size, scores[positions]), predicted], axis=1)
