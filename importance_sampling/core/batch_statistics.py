"""Statistics of batch normalisation for batches that were drawn by importance.

Such a batch has more hard samples than the data. With importance weights, its mean and variance estimate those of a
uniform batch, so that a layer computes the same function in importance steps, in uniform steps and in inference.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from importance_sampling.backend import keras_internals
from importance_sampling.backend.scopes import replaced_attribute
from importance_sampling.data.batches import count_rows
from importance_sampling.layers.moving_statistics import MovingStatistics


@contextlib.contextmanager
def weighted_statistics(model: keras.Model, x: Any, weights: Any) -> Iterator[None]:
    """Weight the samples in the statistics of all layers for batch normalisation inside this context.

    Inputs with a mask, or without one row per sample, keep the statistics of the layer. So do layers that share them
    between replicas, and layers of classes that compute them in their own way.

    Args:
        model: whose layers are called inside the context.
        x: the inputs of the model, tensors or a structure of tensors with `batch` rows.
        weights: float32 `(batch,)`, > 0, the unbiased importance weights.
    """
    num_rows = count_rows(x)

    def weighted(layer: keras.layers.BatchNormalization | MovingStatistics, moments: Callable) -> Callable:
        def run(inputs: Any, mask: Any) -> tuple[Any, Any]:
            axes = [axis for axis in range(len(inputs.shape)) if axis != layer.axis % len(inputs.shape)]
            if mask is not None or inputs.shape[0] != num_rows or 0 not in axes:
                return moments(inputs, mask)
            return weighted_moments(inputs, weights, axes)

        return run

    with contextlib.ExitStack() as stack:
        stack.enter_context(keras_internals.replaced_moments(model, weighted))
        for layer in keras_internals.layers_of(model):
            if isinstance(layer, MovingStatistics) and type(layer).moments is MovingStatistics.moments:
                stack.enter_context(replaced_attribute(layer, "moments", weighted(layer, layer.moments)))
        yield


def weighted_moments(inputs: Any, weights: Any, axes: list[int]) -> tuple[Any, Any]:
    """Return the weighted mean and variance of the entries of a batch.

    Args:
        inputs: float `(batch, ...)`.
        weights: float `(batch,)`, >= 0, of the rows; their scale doesn't matter.
        axes: the axes over which the moments are taken, 0 among them.

    Returns:
        Mean and variance, with the shape of the other axes.

    Example:
        >>> mean, variance = weighted_moments(ops.array([[0.0], [3.0]]), ops.array([2.0, 1.0]), [0])
        >>> float(mean[0]), float(variance[0])
        (1.0, 2.0)
    """
    rows = ops.cast(weights, inputs.dtype)
    rows = ops.reshape(rows / ops.mean(rows), (-1,) + (1,) * (len(inputs.shape) - 1))
    mean = ops.mean(rows * inputs, axis=axes, keepdims=True)
    # The deviations from the mean sum to 0, and so does the gradient of the variance with respect to the mean.
    variance = ops.mean(rows * ops.square(inputs - ops.stop_gradient(mean)), axis=axes)
    return ops.squeeze(mean, axis=axes), variance
