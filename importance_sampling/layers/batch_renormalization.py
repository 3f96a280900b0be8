"""Batch renormalisation: normalisation by batch statistics, corrected by moving statistics.

Source: [I17] Ioffe, Batch Renormalization (arXiv 1702.03275), Algorithm 1. The bounds follow section 4, but grow
linearly from the first step; the paper uses batch normalisation for the first 5000 steps. Statistics aren't
synchronised between replicas.
"""

from __future__ import annotations

from typing import Any

from keras import ops, saving

from importance_sampling.layers.moving_statistics import MovingStatistics, finite_float


@saving.register_keras_serializable(package="importance_sampling")
class BatchRenormalization(MovingStatistics):
    """Batch normalisation with similar outputs in training and inference, for small or non-uniformly drawn batches.

    In training, the batch statistics are the mean mu_B and the standard deviation s_B = sqrt(var_B + epsilon), the
    moving statistics are mu and s, and there is no gradient through r and d:

    r = clip(s_B / s, 1 / rmax, rmax), d = clip((mu_B - mu) / s, -dmax, dmax)
    y = gamma ((x - mu_B) / s_B r + d) + beta, then mu and s are updated by mu_B and s_B

    In inference: y = gamma (x - mu) / s + beta. Both outputs are equal where r and d aren't clipped. rmax = 1 and
    dmax = 0 is batch normalisation. After t training steps rmax is
    rmax_0 + (rmax_inf - rmax_0) min(t / rmax_duration, 1), and dmax correspondingly. A layer with `trainable=False`
    runs in inference mode.

    Args:
        momentum: float in [0, 1], default 0.99; the weight of the previous mu and s in an update.
        epsilon: float > 0, default 1e-3; added to the variance of the batch.
        rmax_0, rmax_inf: floats, 1 <= rmax_0 <= rmax_inf, default 1 and 3; the initial and the final bound of r.
        dmax_0, dmax_inf: floats, 0 <= dmax_0 <= dmax_inf, default 0 and 5; the initial and the final bound of d.
        rmax_duration, dmax_duration: int >= 0, default 40000 and 25000; the number of training steps until the final
            bound is reached. 0 starts with the final bound.
        axis: int other than 0, default -1; the channel axis.
        center, scale: bool, default True; add beta, multiply by gamma.
        beta_initializer, gamma_initializer, moving_mean_initializer, moving_std_initializer: Keras initialisers,
            default zeros, ones, zeros, ones; `moving_std_initializer` must return positive values.
        **kwargs: of `keras.layers.Layer`: name, dtype, trainable.

    Call arguments:
        inputs: float `(batch, ..., channels)`.
        training: bool or None; True for a training step.
        mask: bool, the shape of the inputs without the channel axis, or None. Masked entries are excluded from mu_B
            and s_B.

    Returns:
        Tensor of the shape of the inputs, computed in float32 and cast to the policy's compute dtype.

    Raises:
        ValueError: an argument is out of range.

    Attributes:
        gamma, beta: trainable float32 `(channels,)`, or None.
        moving_mean, moving_std: float32 `(channels,)`, mu and s; s includes epsilon.
        step: int scalar, the number of training steps so far; int64 on TensorFlow, int32 on JAX and torch.

    Example:
        >>> layer = BatchRenormalization(rmax_0=3.0, dmax_0=5.0)
        >>> outputs = layer(np.array([[1.0], [3.0]]), training=True)  # s_B = 1.0005, mu_B = 2: nothing is clipped
        >>> keras.ops.convert_to_numpy(outputs).round(4).tolist()
        [[1.0], [3.0]]

    Source: [I17], Algorithm 1.
    """

    SPREAD = "moving_std"

    def __init__(
        self,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        rmax_0: float = 1.0,
        rmax_inf: float = 3.0,
        dmax_0: float = 0.0,
        dmax_inf: float = 5.0,
        rmax_duration: int = 40000,
        dmax_duration: int = 25000,
        *,
        moving_std_initializer: Any = "ones",
        **kwargs: Any,
    ):
        super().__init__(momentum, epsilon, spread_initializer=moving_std_initializer, **kwargs)
        infinity = float("inf")
        self.rmax_0 = finite_float("rmax_0", rmax_0, 1.0, infinity, "1 means no correction of the standard deviation")
        self.rmax_inf = finite_float("rmax_inf", rmax_inf, self.rmax_0, infinity, "the final bound of r, >= rmax_0")
        self.dmax_0 = finite_float("dmax_0", dmax_0, 0.0, infinity, "0 means no correction of the mean")
        self.dmax_inf = finite_float("dmax_inf", dmax_inf, self.dmax_0, infinity, "the final bound of d, >= dmax_0")
        self.rmax_duration = _num_steps("rmax_duration", rmax_duration)
        self.dmax_duration = _num_steps("dmax_duration", dmax_duration)

    def build(self, input_shape: Any) -> None:
        """Create the variables; the step counter is the last one."""
        super().build(input_shape)
        self.step = self.add_weight(
            name="step",
            shape=(),
            dtype="int",  # as Keras counts steps: int64, or int32 on JAX and torch
            initializer="zeros",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    @property
    def moving_std(self) -> Any:
        """The moving standard deviation s."""
        return self.moving_spread

    def rmax(self) -> Any:
        """Return the bound of r at the current step, float32 scalar."""
        return _linear(self.step, self.rmax_0, self.rmax_inf, self.rmax_duration)

    def dmax(self) -> Any:
        """Return the bound of d at the current step, float32 scalar."""
        return _linear(self.step, self.dmax_0, self.dmax_inf, self.dmax_duration)

    def normalise(self, x: Any, training: bool, mask: Any) -> Any:
        """Normalise by Algorithm 1 in training, by the moving statistics in inference."""
        moving_mean, moving_std = (ops.cast(v, x.dtype) for v in (self.moving_mean, self.moving_std))
        if not training:
            return (x - self.per_channel(moving_mean, x)) / self.per_channel(moving_std, x)
        mean, variance = self.moments(x, mask)
        std = ops.sqrt(variance + self.epsilon)
        rmax, dmax = (ops.cast(bound, x.dtype) for bound in (self.rmax(), self.dmax()))
        r = ops.stop_gradient(ops.clip(std / moving_std, 1.0 / rmax, rmax))
        d = ops.stop_gradient(ops.clip((mean - moving_mean) / moving_std, -dmax, dmax))
        z = (x - self.per_channel(mean, x)) * self.per_channel(r / std, x) + self.per_channel(d, x)
        self.update_statistics(mean, std)
        self.step.assign(self.step + 1)
        return z

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        names = ("rmax_0", "rmax_inf", "dmax_0", "dmax_inf", "rmax_duration", "dmax_duration")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _num_steps(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"`{name}` must be an int of at least 0, in training steps. Received: {name}={value!r}")
    return value


def _linear(step: Any, first: float, last: float, duration: int) -> Any:
    """Interpolate from first to last over `duration` steps; last afterwards."""
    fraction = ops.minimum(ops.cast(step, "float32") / duration, 1.0) if duration else 1.0
    return ops.convert_to_tensor(first + (last - first) * fraction, dtype="float32")
