"""Normalisation by moving statistics in training and inference: `StatsBatchNorm`.

Source: Ioffe & Szegedy, Batch Normalization (arXiv 1502.03167), Algorithm 2: the inference mode, here used in training
too.
"""

from __future__ import annotations

from typing import Any

from keras import ops, saving

from importance_sampling.layers.moving_statistics import MovingStatistics


@saving.register_keras_serializable(package="importance_sampling")
class StatsBatchNorm(MovingStatistics):
    """Normalise by the moving statistics m and v, so that the output of a sample doesn't depend on its batch.

    y = gamma (x - m) / sqrt(v + epsilon) + beta

    Use this layer for batches that aren't drawn uniformly, as in importance sampling, and for fine-tuning. The weights
    are in the order of `keras.layers.BatchNormalization`, so `stats.set_weights(batch_norm.get_weights())` copies a
    trained layer. The gradient flows through x, gamma and beta. With `update_stats=True` a training step normalises
    first and then updates m and v by the batch. The layer doesn't replace batch normalisation for training from
    scratch: without pre-trained statistics, the output isn't normalised until m and v have converged.

    Args:
        momentum: float in [0, 1], default 0.99; the weight of the previous m and v in an update.
        epsilon: float > 0, default 1e-3; added to the variance.
        update_stats: bool, default False; update m and v in training steps. A layer with `trainable=False` doesn't
            update them.
        axis: int other than 0, default -1; the channel axis.
        center, scale: bool, default True; add beta, multiply by gamma.
        beta_initializer, gamma_initializer, moving_mean_initializer, moving_variance_initializer: Keras initialisers,
            default zeros, ones, zeros, ones.
        **kwargs: of `keras.layers.Layer`: name, dtype, trainable.

    Call arguments:
        inputs: float `(batch, ..., channels)`.
        training: bool or None; True for a training step.
        mask: bool, the shape of the inputs without the channel axis, or None. Masked entries are excluded from the
            update.

    Returns:
        Tensor of the shape of the inputs, computed in float32 and cast to the policy's compute dtype.

    Raises:
        ValueError: an argument is out of range.

    Attributes:
        gamma, beta: trainable float32 `(channels,)`, or None.
        moving_mean, moving_variance: float32 `(channels,)`, m and v.

    Example:
        >>> layer = StatsBatchNorm(epsilon=1e-12, moving_mean_initializer="ones")
        >>> keras.ops.convert_to_numpy(layer(np.array([[3.0], [5.0]]), training=True)).tolist()
        [[2.0], [4.0]]

    Source: arXiv 1502.03167, Algorithm 2, line 11.
    """

    SPREAD = "moving_variance"

    def __init__(
        self,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        update_stats: bool = False,
        *,
        moving_variance_initializer: Any = "ones",
        **kwargs: Any,
    ):
        super().__init__(momentum, epsilon, spread_initializer=moving_variance_initializer, **kwargs)
        if not isinstance(update_stats, bool):
            raise ValueError(
                "`update_stats` must be True to update the statistics in training, or False to keep them fixed. "
                f"Received: {update_stats=}"
            )
        self.update_stats = update_stats

    @property
    def moving_variance(self) -> Any:
        """The moving variance v."""
        return self.moving_spread

    def normalise(self, x: Any, training: bool, mask: Any) -> Any:
        """Normalise x by the moving statistics before their update by this batch."""
        deviation = ops.sqrt(ops.cast(self.moving_variance, x.dtype) + self.epsilon)
        z = (x - self.per_channel(self.moving_mean, x)) / self.per_channel(deviation, x)
        if training and self.update_stats:
            self.update_statistics(*self.moments(x, mask))
        return z

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        return {**super().get_config(), "update_stats": self.update_stats}
