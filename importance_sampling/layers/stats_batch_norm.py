"""Normalisation by moving statistics, in training too: `StatsBatchNorm`.

Source: the inference mode of Ioffe & Szegedy, Batch Normalization (arXiv 1502.03167), Algorithm 2, used throughout. It
doesn't normalise by a batch, so it doesn't do what batch normalisation does for training from scratch.
"""

from __future__ import annotations

from typing import Any

from keras import ops, saving

from importance_sampling.layers.moving_statistics import MovingStatistics


@saving.register_keras_serializable(package="importance_sampling")
class StatsBatchNorm(MovingStatistics):
    """Normalise by the moving statistics always, so that what a sample gets doesn't depend on its batch.

    y = gamma (x - m) / sqrt(v + epsilon) + beta

    For batches that are no fair sample of the data, such as importance sampling draws, and for fine-tuning: as gamma,
    beta, m and v come in Keras's order, `stats.set_weights(batch_norm.get_weights())` takes over a trained layer. The
    gradient goes through x, gamma and beta. With `update_stats` a training step normalises first, then moves m and v
    by the batch. Statistics that don't fit the data scale activations wrongly: without pre-trained ones, that is until
    they have moved.

    Args:
        momentum: float in [0, 1], default 0.99; what m and v keep of themselves in a step.
        epsilon: float > 0, default 1e-3.
        update_stats: bool, default False; whether training steps move m and v. A layer with `trainable=False` never
            does.
        axis: int, default -1; the axis of the channels, not 0.
        center, scale: bool, default True; whether there is a beta, a gamma.
        beta_initializer, gamma_initializer, moving_mean_initializer, moving_variance_initializer: Keras initialisers,
            default zeros, ones, zeros, ones.
        **kwargs: of `keras.layers.Layer`: name, dtype, trainable.

    Call arguments:
        inputs: float `(batch, ..., channels)`.
        training: bool or None; whether this is a training step.
        mask: bool, the inputs' shape without the channels, or None; what it leaves out doesn't move statistics.

    Returns:
        The inputs' shape, in the policy's compute dtype; computed in float32.

    Raises:
        ValueError: an argument is out of its range.

    Attributes:
        gamma, beta: trainable float32 `(channels,)`, or None.
        moving_mean, moving_variance: float32 `(channels,)`, m and v.

    Example:
        >>> layer = StatsBatchNorm(epsilon=1e-12, moving_mean_initializer="ones")
        >>> layer(np.array([[3.0], [5.0]]), training=True)  # [[2.0], [4.0]]

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
                "`update_stats` must be True, to move the statistics by training batches, or False, to keep them. "
                f"Received: {update_stats=}"
            )
        self.update_stats = update_stats

    @property
    def moving_variance(self) -> Any:
        """The moving variance v."""
        return self.moving_spread

    def normalise(self, x: Any, learning: bool, mask: Any) -> Any:
        """x by the moving statistics, as they were before this batch."""
        deviation = ops.sqrt(ops.cast(self.moving_variance, x.dtype) + self.epsilon)
        z = (x - self.per_channel(self.moving_mean, x)) / self.per_channel(deviation, x)
        if learning and self.update_stats:
            self.move(*self.moments(x, mask))
        return z

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "update_stats": self.update_stats}
