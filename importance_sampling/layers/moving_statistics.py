"""The base class of normalisation layers with moving statistics: arguments, variables, batch moments, gamma and beta.

Statistics aren't synchronised between replicas.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops


class MovingStatistics(keras.layers.Layer):
    """A layer with a moving mean and a moving spread (variance or standard deviation) per channel.

    The output is gamma * z + beta, where z is the normalised input. All variables have the shape `(channels,)`. The
    computation is in float32 or float64; the output is cast to the policy's compute dtype. A subclass sets `SPREAD`,
    the name of the spread variable, and implements `normalise`.
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
        self.momentum = finite_float(
            "momentum", momentum, 0.0, 1.0, "0 uses only the last batch, 1 never changes the statistics"
        )
        self.epsilon = finite_float("epsilon", epsilon, 0.0, math.inf, "it is added to the variance")
        if self.epsilon == 0.0:
            raise ValueError(f"`epsilon` must be greater than 0 to avoid a division by zero. Received: {epsilon=}")
        if isinstance(axis, bool) or not isinstance(axis, int) or axis == 0:
            raise ValueError(
                "`axis` must be an int, the channel axis, and not the batch axis: use -1 for channels last, 1 for "
                f"channels first. Received: {axis=}"
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
        """Create the variables in the order gamma, beta, moving mean, moving spread."""
        self.compute_output_shape(input_shape)
        channels = input_shape[self.axis]
        if channels is None:
            raise ValueError(
                "The channel axis must have a known size: specify it in `keras.Input`. "
                f"Received: axis={self.axis}, input_shape={tuple(input_shape)}"
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
        """Normalise the inputs. Statistics are updated only if `training` and `trainable` are both True."""
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        z = self.normalise(x, bool(training) and self.trainable, mask)
        if self.gamma is not None:
            z = z * self.per_channel(self.gamma, z)
        if self.beta is not None:
            z = z + self.per_channel(self.beta, z)
        return ops.cast(z, self.compute_dtype)

    def normalise(self, x: Any, training: bool, mask: Any) -> Any:
        """Return the normalised x, before gamma and beta."""
        raise NotImplementedError

    def per_channel(self, vector: Any, x: Any) -> Any:
        """Reshape a vector `(channels,)` for broadcasting against x, and cast it to the dtype of x."""
        shape = [1] * len(x.shape)
        shape[self.axis] = -1
        return ops.reshape(ops.cast(vector, x.dtype), shape)

    def moments(self, x: Any, mask: Any) -> tuple[Any, Any]:
        """Return mean and variance per channel, `(channels,)` each, over the unmasked entries."""
        channels = self.axis % len(x.shape)
        axes = tuple(axis for axis in range(len(x.shape)) if axis != channels)
        if mask is None:
            mean = ops.mean(x, axis=axes)
            return mean, ops.mean(ops.square(x - self.per_channel(mean, x)), axis=axes)
        if len(mask.shape) != len(x.shape) - 1:
            raise ValueError(
                "`mask` must have all axes of the inputs except the channel axis. "
                f"Received: mask of shape {tuple(mask.shape)}, inputs of shape {tuple(x.shape)}"
            )
        valid = ops.broadcast_to(ops.expand_dims(ops.cast(mask, "bool"), channels), ops.shape(x))
        count = ops.maximum(ops.sum(ops.cast(valid, x.dtype), axis=axes), 1.0)
        zero = ops.zeros_like(x)
        mean = ops.sum(ops.where(valid, x, zero), axis=axes) / count
        square = ops.square(ops.where(valid, x - self.per_channel(mean, x), zero))
        return mean, ops.sum(square, axis=axes) / count

    def update_statistics(self, mean: Any, spread: Any) -> None:
        """Update the moving statistics by those of a batch: m <- momentum m + (1 - momentum) batch."""
        for moving, batch in ((self.moving_mean, mean), (self.moving_spread, spread)):
            previous = self.momentum * ops.cast(moving, batch.dtype)
            moving.assign(ops.cast(previous + (1.0 - self.momentum) * batch, moving.dtype))

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Return the input shape.

        Raises:
            ValueError: the inputs don't have the axis `axis`, or it is the batch axis.
        """
        axes = len(input_shape)
        if not -axes < self.axis < axes:
            raise ValueError(
                "`axis` must be an axis of the inputs other than the batch axis. "
                f"Received: axis={self.axis}, input_shape={tuple(input_shape)}"
            )
        return tuple(input_shape)

    def get_config(self) -> dict:
        """Return the constructor arguments."""
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


def finite_float(name: str, value: Any, low: float, high: float, meaning: str) -> float:
    """Return `value` as a float.

    Args:
        name: str, the name of the argument, for the error message.
        value: the value to check.
        low: float, the minimum.
        high: float, the maximum, or infinity.
        meaning: str, the meaning of the argument, for the error message.

    Raises:
        ValueError: `value` isn't a finite number in [low, high].
    """
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not usable or not low <= value <= high:
        bounds = f"in [{low:g}, {high:g}]" if math.isfinite(high) else f"of at least {low:g}"
        raise ValueError(f"`{name}` must be a finite number {bounds}; {meaning}. Received: {name}={value!r}")
    return float(value)
