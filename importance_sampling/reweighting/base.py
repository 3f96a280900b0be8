"""What policies have in common, and the Keras layer that finishes their weights.

What is known when a batch is drawn goes into `weight_size` columns; what the training step measures is added to them
afterwards (`final_weights`), by two of the policies. Policies don't draw, and they know nothing of losses.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from importance_sampling.probabilities import probabilities as normalised


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
class WeightLayer(keras.layers.Layer):
    """A policy's `final_weights` as a layer, on `[columns (b, weight_size), measured scores (b,)]` -> `(b,)`.

    Args:
        policy: a `ReweightingPolicy`.

    Example:
        >>> layer = WeightLayer(BiasedReweightingPolicy())
        >>> weights = layer([columns, measured])
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
