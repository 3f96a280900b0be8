"""Formulas for dense layers and embeddings.

The projections of Keras's attention layers are `EinsumDense` layers.
"""

from __future__ import annotations

import math
import string
from typing import Any

import keras
from keras import ops

from importance_sampling.scores.formulas import register_sample_gradients
from importance_sampling.scores.weight_gradients import OuterProducts, TokenGradients, sum_positions


@register_sample_gradients(keras.layers.Dense, pre_activation=True)
def dense_gradients(layer: keras.layers.Dense, inputs: Any, gradient: Any) -> list:
    """Return the gradients of a `Dense` layer: outer products of inputs and gradients, summed over the positions."""
    rows = inputs.shape[0]
    flat_inputs = ops.reshape(inputs, (rows, -1, inputs.shape[-1]))
    flat_gradient = ops.reshape(gradient, (rows, -1, gradient.shape[-1]))
    return [(layer.kernel, OuterProducts((flat_inputs,), flat_gradient)), (layer.bias, sum_positions(gradient))]


@register_sample_gradients(keras.layers.EinsumDense, pre_activation=True)
def einsum_dense_gradients(layer: keras.layers.EinsumDense, inputs: Any, gradient: Any) -> list:
    """Return the gradients of an `EinsumDense` layer, as those of a `Dense` layer after a transposition."""
    in_axes, kernel_axes, out_axes = _axes(layer.equation, len(inputs.shape), len(gradient.shape))
    groups = [axis for axis in kernel_axes if axis in in_axes and axis in out_axes]
    positions = [axis for axis in in_axes[1:] if axis in out_axes and axis not in kernel_axes]
    features = [axis for axis in kernel_axes if axis in in_axes and axis not in groups]
    units = [axis for axis in kernel_axes if axis in out_axes and axis not in groups]
    sizes = dict(zip(in_axes + out_axes, (*inputs.shape, *gradient.shape), strict=True))

    def matrices(tensor: Any, axes: str, last: list) -> Any:
        transposed = ops.einsum(f"{axes}->{axes[0]}{''.join(groups + positions + last)}", tensor)
        group_sizes = [sizes[axis] for axis in groups]
        return ops.reshape(transposed, (tensor.shape[0], *group_sizes, -1, math.prod(sizes[axis] for axis in last)))

    kernel = OuterProducts((matrices(inputs, in_axes, features),), matrices(gradient, out_axes, units))
    if layer.bias is None:
        return [(layer.kernel, kernel)]
    first = len(gradient.shape) - len(layer.bias.shape)
    bias_axes = [first + i for i, size in enumerate(layer.bias.shape) if size == gradient.shape[first + i]]
    return [(layer.kernel, kernel), (layer.bias, sum_positions(gradient, bias_axes))]


def _axes(equation: str, in_rank: int, out_rank: int) -> tuple[str, str, str]:
    """Return a letter for each axis of the inputs, the kernel and the outputs, with an ellipsis replaced by letters."""
    inputs, kernel, outputs = equation.replace(" ", "").replace("->", ",").split(",")
    unused = [letter for letter in string.ascii_letters if letter not in equation]
    ellipsis = "".join(unused[: in_rank - len(inputs.replace("...", ""))])
    return inputs.replace("...", ellipsis), kernel, outputs.replace("...", ellipsis)


@register_sample_gradients(keras.layers.Embedding)
def embedding_gradients(layer: keras.layers.Embedding, inputs: Any, gradient: Any) -> list:
    """Return the gradients of an `Embedding` layer: those at each position, added for equal tokens."""
    rows = inputs.shape[0]
    tokens = ops.reshape(ops.cast(inputs, "int32"), (rows, -1))
    return [(layer.embeddings, TokenGradients(tokens, ops.reshape(gradient, (rows, -1, gradient.shape[-1]))))]
