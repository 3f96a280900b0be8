"""Reweighting policies: the correction that keeps the gradient estimate honest.

Source: [KF17] (arXiv 1706.00043), section 3.1, for the exponent k; [KF18] (arXiv 1803.00942), equation 3, for k = 1.
They don't draw, and they know nothing of losses. What is known when a batch is drawn goes into `weight_size` columns;
what the training step measures is added to them afterwards (`final_weights`), by two of the policies.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from importance_sampling.datasets.base import is_real
from importance_sampling.numerics import floats, side
from importance_sampling.probabilities import probabilities as normalised

LARGEST = 10.0  # what no weight by measured scores exceeds before it is rescaled, as with a uniform share of a tenth


class ReweightingPolicy:
    """What policies have in common. A policy fills in `_columns`, and `final_weights` where measured scores count.

    Attributes:
        unbiased: bool, whether the weighted gradient's mean is the full gradient.
        weight_size: int, how many numbers per sample its weights are made of.
    """

    unbiased = False
    weight_size = 1

    def weights(self, probabilities: Any, pool_size: int, scores: Any) -> Any:
        """Weights of the picked by what is known when they are drawn.

        Args:
            probabilities: float `(batch_size,)`, with which each of the picked was drawn, > 0.
            pool_size: int, how many candidates there were.
            scores: float `(batch_size,)`, of the picked.

        Returns:
            Float `(batch_size,)`.
        """
        raise NotImplementedError

    def sample_weights(self, positions: Any, scores: Any, probabilities: Any = None) -> np.ndarray:
        """Weights of a batch drawn from a pool, on the host; for more than one column, to be finished by measured ones.

        Args:
            positions: int `(batch_size,)`, into the pool.
            scores: float `(pool_size,)`, >= 0, of the whole pool: unnormalised, or the probabilities themselves.
            probabilities: float `(pool_size,)`, with which the batch was drawn. None: the scores, normalised.

        Returns:
            float32 `(batch_size, weight_size)`.

        Raises:
            ValueError: a position has a probability of zero.
        """
        positions, scores = np.asarray(positions), np.asarray(scores, "float64")
        p = np.asarray(normalised(scores, alpha=0.0) if probabilities is None else probabilities)[positions]
        if not (p > 0).all():
            raise ValueError(
                "`positions` must be of samples that can be drawn, with a score above 0. "
                f"Received: positions={positions!r}, with scores {scores[positions]!r}"
            )
        return self._columns(positions, scores, p).astype("float32")

    def even(self, batch_size: int) -> np.ndarray:
        """The columns of a uniform batch: final weights are 1, whatever is measured. float32 `(b, weight_size)`."""
        return np.ones((batch_size, self.weight_size), "float32")

    def final_weights(self, columns: Any, measured: Any) -> Any:
        """Finish what `sample_weights` began.

        Args:
            columns: float `(batch_size, weight_size)`.
            measured: float `(batch_size,)`, the scores that the training step measured.

        Returns:
            Float `(batch_size,)`.
        """
        return columns[:, 0]

    def weight_layer(self) -> WeightLayer:
        """`final_weights` as a Keras layer on `[columns, measured]`."""
        return WeightLayer(self)

    def get_config(self) -> dict:
        """The constructor's arguments, for Keras's serialisation."""
        return {}

    @classmethod
    def from_config(cls, config: dict) -> ReweightingPolicy:
        """The policy of those arguments."""
        return cls(**config)

    def _columns(self, positions: np.ndarray, scores: np.ndarray, p: np.ndarray) -> np.ndarray:
        """`(batch_size, weight_size)`; positions and scores as in `sample_weights`, p of the picked."""
        return np.asarray(self.weights(p, scores.size, scores[positions]))[:, None]


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
        return _power(1.0 / (pool_size * floats(probabilities, xp)), self.k, scores, xp)


@keras.saving.register_keras_serializable(package="importance_sampling")
class NoReweightingPolicy(ReweightingPolicy):
    """Every weight is 1: the estimate leans towards what is drawn often, by as much as the probabilities differ.

    It loses where that isn't what is to be learnt: wrong labels and outliers count as often as they are drawn.
    """

    def weights(self, probabilities: Any, pool_size: int, scores: Any) -> Any:
        """Ones; arguments and result as `ReweightingPolicy.weights` has them."""
        xp = side(probabilities)
        return xp.ones_like(floats(probabilities, xp))


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
        columns, measured, usable = floats(columns, xp), *_usable(measured, xp)
        mean = columns[:, 0] + xp.sum(columns[:, 1] * measured)
        usable = xp.logical_and(usable, xp.all(mean > 0))
        # The bound as a floor of the score: nothing is divided by zero.
        mean = xp.where(usable, mean, xp.ones_like(mean))
        adjusted = mean / xp.maximum(measured, mean / LARGEST)
        return xp.where(usable, _power(adjusted, self.k, measured, xp), xp.ones_like(mean))

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


@keras.saving.register_keras_serializable(package="importance_sampling")
class WeightLayer(keras.layers.Layer):
    """A policy's `final_weights` as a layer, on `[columns (b, weight_size), measured scores (b,)]` -> `(b,)`.

    Args:
        policy: a `ReweightingPolicy`.

    Example:
        >>> WeightLayer(BiasedReweightingPolicy())([np.ones((3, 1), "float32"), np.zeros(3, "float32")])
    """

    def __init__(self, policy: ReweightingPolicy, **kwargs: Any):
        super().__init__(**kwargs)
        self.policy = policy

    def call(self, inputs: list) -> Any:
        """Final weights."""
        columns, measured = inputs
        return self.policy.final_weights(ops.convert_to_tensor(columns), ops.convert_to_tensor(measured))

    def compute_output_shape(self, input_shape: list) -> tuple:
        """`(b,)`."""
        return (input_shape[0][0],)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "policy": keras.saving.serialize_keras_object(self.policy)}

    @classmethod
    def from_config(cls, config: dict) -> WeightLayer:
        """The layer of those arguments."""
        policy = keras.saving.deserialize_keras_object(config["policy"])
        return cls(**{**config, "policy": policy})


UNWEIGHTED = NoReweightingPolicy()
UNBIASED = BiasedReweightingPolicy(1.0)


def _usable(scores: Any, xp: Any) -> tuple[Any, Any]:
    """The scores, or ones where any of them is no number or all are zero; and which of the two."""
    scores = floats(scores, xp)
    usable = xp.logical_and(xp.all(xp.isfinite(scores)), xp.all(scores >= 0))
    usable = xp.logical_and(usable, xp.any(scores > 0))
    return xp.where(usable, scores, xp.ones_like(scores)), usable


def _power(weights: Any, k: float, scores: Any, xp: Any) -> Any:
    """w^k, rescaled so that sum(w^k s) = sum(w s); where the scores are no use, the sum of the weights is kept."""
    if k == 1.0:
        return weights
    powers = xp.power(weights, k)
    by, _ = _usable(scores, xp)
    return powers * (xp.sum(weights * by) / xp.sum(powers * by))
