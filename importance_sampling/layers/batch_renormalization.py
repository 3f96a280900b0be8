"""Batch renormalisation: training normalises by the batch, corrected towards what inference will do.

Source: [I17] Ioffe, Batch Renormalization (arXiv 1702.03275), Algorithm 1; the growth of the bounds follows its
section 4, but is linear from the first step, where the paper holds the first 5000 at plain batch normalisation. It
doesn't synchronise statistics between replicas.
"""

from __future__ import annotations

from typing import Any

from keras import ops, saving

from importance_sampling.layers.moving_statistics import MovingStatistics, number


@saving.register_keras_serializable(package="importance_sampling")
class BatchRenormalization(MovingStatistics):
    """Batch normalisation whose training mode approaches its inference mode, for batches small or not drawn fairly.

    In training, with the batch's mean mu_B and deviation s_B = sqrt(var_B + epsilon), the moving ones mu and s, and no
    gradient through r and d:

    r = clip(s_B / s, 1 / rmax, rmax), d = clip((mu_B - mu) / s, -dmax, dmax)
    y = gamma ((x - mu_B) / s_B r + d) + beta, then mu and s move towards mu_B and s_B

    In inference: y = gamma (x - mu) / s + beta. Where nothing is clipped both are the same; rmax = 1 and dmax = 0 is
    batch normalisation. After t training steps rmax is rmax_0 + (rmax_inf - rmax_0) min(t / rmax_duration, 1), dmax
    likewise. A layer with `trainable=False` runs in inference mode.

    Args:
        momentum: float in [0, 1], default 0.99; what mu and s keep of themselves in a step.
        epsilon: float > 0, default 1e-3.
        rmax_0, rmax_inf: floats, 1 <= rmax_0 <= rmax_inf, default 1 and 3; the bound of r at first and at last.
        dmax_0, dmax_inf: floats, 0 <= dmax_0 <= dmax_inf, default 0 and 5; the bound of d at first and at last.
        rmax_duration, dmax_duration: int >= 0, default 40000 and 25000; training steps from first to last, 0: at once.
        axis: int, default -1; the axis of the channels, not 0.
        center, scale: bool, default True; whether there is a beta, a gamma.
        beta_initializer, gamma_initializer, moving_mean_initializer, moving_std_initializer: Keras initialisers,
            default zeros, ones, zeros, ones; those of deviations must be positive.
        **kwargs: of `keras.layers.Layer`: name, dtype, trainable.

    Call arguments:
        inputs: float `(batch, ..., channels)`.
        training: bool or None; whether this is a training step.
        mask: bool, the inputs' shape without the channels, or None; what it leaves out isn't part of mu_B and s_B.

    Returns:
        The inputs' shape, in the policy's compute dtype; computed in float32.

    Raises:
        ValueError: an argument is out of its range.

    Attributes:
        gamma, beta: trainable float32 `(channels,)`, or None.
        moving_mean, moving_std: float32 `(channels,)`, mu and s; s is a deviation and holds epsilon.
        step: int64 scalar, the training steps so far.

    Example:
        >>> layer = BatchRenormalization(rmax_0=3.0, dmax_0=5.0)
        >>> layer(np.array([[1.0], [3.0]]), training=True)  # s_B = 1.0005 and mu_B = 2 in reach: [[1.0], [3.0]]

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
        self.rmax_0 = number("rmax_0", rmax_0, 1.0, infinity, "1 leaves the batch's deviation uncorrected")
        self.rmax_inf = number("rmax_inf", rmax_inf, self.rmax_0, infinity, "it bounds r at last, rmax_0 at first")
        self.dmax_0 = number("dmax_0", dmax_0, 0.0, infinity, "0 leaves the batch's mean uncorrected")
        self.dmax_inf = number("dmax_inf", dmax_inf, self.dmax_0, infinity, "it bounds d at last, dmax_0 at first")
        self.rmax_duration = _steps("rmax_duration", rmax_duration)
        self.dmax_duration = _steps("dmax_duration", dmax_duration)

    def build(self, input_shape: Any) -> None:
        """Make the variables; the count of steps comes last."""
        super().build(input_shape)
        self.step = self.add_weight(
            name="step",
            shape=(),
            dtype="int64",
            initializer="zeros",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    @property
    def moving_std(self) -> Any:
        """The moving deviation s."""
        return self.moving_spread

    def rmax(self) -> Any:
        """The bound of r at this step, float32 scalar."""
        return _linear(self.step, self.rmax_0, self.rmax_inf, self.rmax_duration)

    def dmax(self) -> Any:
        """The bound of d at this step, float32 scalar."""
        return _linear(self.step, self.dmax_0, self.dmax_inf, self.dmax_duration)

    def normalise(self, x: Any, learning: bool, mask: Any) -> Any:
        """Algorithm 1 while learning, the moving statistics otherwise."""
        moving_mean, moving_std = (ops.cast(v, x.dtype) for v in (self.moving_mean, self.moving_std))
        if not learning:
            return (x - self.per_channel(moving_mean, x)) / self.per_channel(moving_std, x)
        mean, variance = self.moments(x, mask)
        std = ops.sqrt(variance + self.epsilon)
        rmax, dmax = (ops.cast(bound, x.dtype) for bound in (self.rmax(), self.dmax()))
        r = ops.stop_gradient(ops.clip(std / moving_std, 1.0 / rmax, rmax))
        d = ops.stop_gradient(ops.clip((mean - moving_mean) / moving_std, -dmax, dmax))
        z = (x - self.per_channel(mean, x)) * self.per_channel(r / std, x) + self.per_channel(d, x)
        self.move(mean, std)
        self.step.assign(self.step + 1)
        return z

    def get_config(self) -> dict:
        """The constructor's arguments."""
        names = ("rmax_0", "rmax_inf", "dmax_0", "dmax_inf", "rmax_duration", "dmax_duration")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _steps(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"`{name}` must be an int of at least 0, in training steps. Received: {name}={value!r}")
    return value


def _linear(step: Any, first: float, last: float, duration: int) -> Any:
    """From first to last in `duration` steps, and last from then on."""
    done = ops.minimum(ops.cast(step, "float32") / duration, 1.0) if duration else 1.0
    return ops.convert_to_tensor(first + (last - first) * done, dtype="float32")
