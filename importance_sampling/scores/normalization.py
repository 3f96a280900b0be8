"""Formulas for layers that normalise their inputs, and then scale and shift them."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from importance_sampling.backend import keras_internals
from importance_sampling.backend.scopes import NestedScope
from importance_sampling.scores.formulas import register_sample_gradients
from importance_sampling.scores.weight_gradients import sum_positions


@register_sample_gradients(keras.layers.BatchNormalization)
@register_sample_gradients(keras.layers.GroupNormalization)
@register_sample_gradients(keras.layers.LayerNormalization)
def normalization_gradients(layer: keras.Layer, inputs: Any, gradient: Any) -> list:
    """Return the gradients of the scale, which is multiplied by the normalised inputs, and of the shift.

    Batch normalisation uses its moving statistics: scores are computed in inference mode.
    """
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    scale, shift = getattr(layer, "gamma", None), getattr(layer, "beta", None)
    pairs = [(shift, sum_positions(gradient, axes))]
    if scale is not None:
        values = [(scale, ops.ones_like(scale.value))]
        values += [(shift, ops.zeros_like(shift.value))] if shift is not None else []
        with NestedScope(values):
            has_argument = keras_internals.has_training_argument(layer)
            normalised = layer(inputs, training=False) if has_argument else layer(inputs)
        pairs.append((scale, sum_positions(gradient * ops.cast(normalised, gradient.dtype), axes)))
    return pairs
