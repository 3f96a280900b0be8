"""The Keras layer that computes the final weights of a policy, and the registration of policies for `keras.saving`."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from importance_sampling.reweighting.base import ReweightingPolicy, check_policy
from importance_sampling.reweighting.importance_weights import BiasedReweightingPolicy, NoReweightingPolicy
from importance_sampling.reweighting.measured import AdjustedBiasedReweightingPolicy, CorrectingReweightingPolicy

for _policy in (
    AdjustedBiasedReweightingPolicy,
    BiasedReweightingPolicy,
    CorrectingReweightingPolicy,
    NoReweightingPolicy,
):
    keras.saving.register_keras_serializable(package="importance_sampling")(_policy)


@keras.saving.register_keras_serializable(package="importance_sampling")
class WeightLayer(keras.layers.Layer):
    """A Keras layer that computes the final weights of a policy.

    Import this class, or a trainer, before you load a saved model that contains it.

    The inputs are `[columns, measured scores]` with the shapes `(b, weight_size)` and `(b,)`; the output is `(b,)`.

    Args:
        policy: a `ReweightingPolicy`.

    Raises:
        ValueError: `policy` is none.

    Example:
        >>> policy = CorrectingReweightingPolicy(k=1.0)
        >>> columns = policy.sample_weights([0, 1], np.array([4.0, 1.0, 2.0, 1.0]))  # weights .5 and 2
        >>> weights = WeightLayer(policy)([columns, np.array([8.0, 0.4])])  # times .5 and 2
        >>> keras.ops.convert_to_numpy(weights).round(4).tolist()
        [0.25, 4.0]
    """

    def __init__(self, policy: ReweightingPolicy, **kwargs: Any):
        check_policy(policy=policy)
        super().__init__(**kwargs)
        self.policy = policy

    def call(self, inputs: list) -> Any:
        """Compute the final weights, `(b,)`."""
        columns, measured = inputs
        return self.policy.final_weights(ops.convert_to_tensor(columns), ops.convert_to_tensor(measured))

    def compute_output_shape(self, input_shape: list) -> tuple:
        """Return `(b,)`."""
        return (input_shape[0][0],)

    def get_config(self) -> dict:
        """Return the constructor's arguments, for Keras's serialisation."""
        return {**super().get_config(), "policy": keras.saving.serialize_keras_object(self.policy)}

    @classmethod
    def from_config(cls, config: dict) -> WeightLayer:
        """Create a layer from the constructor's arguments."""
        policy = keras.saving.deserialize_keras_object(config["policy"])
        return cls(**{**config, "policy": policy})
