"""What normalisations by moving statistics share: arguments, variables, a batch's moments, and the affine map.

No source: it is bookkeeping. It doesn't say which statistics normalise, which is what its subclasses differ in, and it
doesn't synchronise statistics between replicas.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops


class MovingStatistics(keras.layers.Layer):
    """A layer that keeps the moving mean and the moving spread of every channel, and returns gamma * z + beta.

    All variables have the shape `(channels,)`. Everything is computed in float32 at least, and cast at the end to the
    policy's compute dtype. A subclass names its spread in `SPREAD`, and implements `normalise`.
    """

    SPREAD = ""

    def __init__(
        self,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        axis: int = -1,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        spread_initializer: Any = "ones",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.momentum = number("momentum", momentum, 0.0, 1.0, "0 keeps the last batch's statistics, 1 never moves")
        self.epsilon = number("epsilon", epsilon, 0.0, math.inf, "it is added to variances")
        if self.epsilon == 0.0:
            raise ValueError(f"`epsilon` must be greater than 0: it bounds what is divided by. Received: {epsilon=}")
        if isinstance(axis, bool) or not isinstance(axis, int) or axis == 0:
            raise ValueError(
                "`axis` must be an int, the axis of the channels, and not that of the batch: -1 where channels come "
                f"last, 1 where they come first. Received: {axis=}"
            )
        self.axis = axis
        self.center = bool(center)
        self.scale = bool(scale)
        self.beta_initializer = keras.initializers.get(beta_initializer)
        self.gamma_initializer = keras.initializers.get(gamma_initializer)
        self.moving_mean_initializer = keras.initializers.get(moving_mean_initializer)
        self.spread_initializer = keras.initializers.get(spread_initializer)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Make the variables: gamma, beta, the moving mean, the moving spread, in this order."""
        self.compute_output_shape(input_shape)
        channels = input_shape[self.axis]
        if channels is None:
            raise ValueError(
                f"The axis of the channels must have a known size: give `keras.Input` one. Received: axis={self.axis}, "
                f"input_shape={tuple(input_shape)}"
            )

        def variable(name: str, initializer: Any, trainable: bool) -> keras.Variable:
            return self.add_weight(
                name=name, shape=(channels,), initializer=initializer, trainable=trainable, autocast=False
            )

        self.gamma = variable("gamma", self.gamma_initializer, True) if self.scale else None
        self.beta = variable("beta", self.beta_initializer, True) if self.center else None
        self.moving_mean = variable("moving_mean", self.moving_mean_initializer, False)
        self.moving_spread = variable(self.SPREAD, self.spread_initializer, False)
        self.input_spec = keras.InputSpec(ndim=len(input_shape), axes={self.axis: channels})

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise; statistics move only where `training` and `trainable` are both true."""
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        z = self.normalise(x, bool(training) and self.trainable, mask)
        if self.gamma is not None:
            z = z * self.per_channel(self.gamma, z)
        if self.beta is not None:
            z = z + self.per_channel(self.beta, z)
        return ops.cast(z, self.compute_dtype)

    def normalise(self, x: Any, learning: bool, mask: Any) -> Any:
        """x normalised, ahead of gamma and beta."""
        raise NotImplementedError

    def per_channel(self, vector: Any, like: Any) -> Any:
        """`(channels,)` with the axes of `like`, in its dtype."""
        shape = [1] * len(like.shape)
        shape[self.axis] = -1
        return ops.reshape(ops.cast(vector, like.dtype), shape)

    def moments(self, x: Any, mask: Any) -> tuple[Any, Any]:
        """Mean and variance of every channel, `(channels,)`, over the entries that `mask` leaves."""
        channels = self.axis % len(x.shape)
        axes = tuple(axis for axis in range(len(x.shape)) if axis != channels)
        if mask is None:
            mean = ops.mean(x, axis=axes)
            return mean, ops.mean(ops.square(x - self.per_channel(mean, x)), axis=axes)
        if len(mask.shape) != len(x.shape) - 1:
            raise ValueError(
                "`mask` must have the inputs' axes but that of the channels. Received: mask of shape "
                f"{tuple(mask.shape)}, inputs of shape {tuple(x.shape)}"
            )
        valid = ops.broadcast_to(ops.expand_dims(ops.cast(mask, "bool"), channels), ops.shape(x))
        count = ops.maximum(ops.sum(ops.cast(valid, x.dtype), axis=axes), 1.0)
        zero = ops.zeros_like(x)
        mean = ops.sum(ops.where(valid, x, zero), axis=axes) / count
        square = ops.square(ops.where(valid, x - self.per_channel(mean, x), zero))
        return mean, ops.sum(square, axis=axes) / count

    def move(self, mean: Any, spread: Any) -> None:
        """Move the statistics towards a batch's: m <- momentum m + (1 - momentum) batch."""
        for moving, batch in ((self.moving_mean, mean), (self.moving_spread, spread)):
            kept = self.momentum * ops.cast(moving, batch.dtype)
            moving.assign(ops.cast(kept + (1.0 - self.momentum) * batch, moving.dtype))

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """The inputs' shape.

        Raises:
            ValueError: it has no such axis, or that axis is the batch's.
        """
        axes = len(input_shape)
        if not -axes < self.axis < axes:
            raise ValueError(
                f"`axis` must be one of the inputs' axes, and not the batch's. Received: axis={self.axis}, "
                f"input_shape={tuple(input_shape)}"
            )
        return tuple(input_shape)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "axis": self.axis,
            "center": self.center,
            "scale": self.scale,
            "beta_initializer": keras.initializers.serialize(self.beta_initializer),
            "gamma_initializer": keras.initializers.serialize(self.gamma_initializer),
            "moving_mean_initializer": keras.initializers.serialize(self.moving_mean_initializer),
            f"{self.SPREAD}_initializer": keras.initializers.serialize(self.spread_initializer),
        }


def number(name: str, value: Any, low: float, high: float, meaning: str) -> float:
    """`value` as a float.

    Raises:
        ValueError: it isn't a finite number in [low, high].
    """
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not usable or not low <= value <= high:
        bounds = f"in [{low:g}, {high:g}]" if math.isfinite(high) else f"of at least {low:g}"
        raise ValueError(f"`{name}` must be a finite number {bounds}; {meaning}. Received: {name}={value!r}")
    return float(value)
