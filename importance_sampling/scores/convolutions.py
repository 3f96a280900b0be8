"""Formulas for convolutions: those of a dense layer on the patches of the inputs, one entry of the kernel at a time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from importance_sampling.scores.formulas import register_sample_gradients
from importance_sampling.scores.weight_gradients import OuterProducts, sum_positions


@register_sample_gradients(keras.layers.Conv1D, pre_activation=True)
@register_sample_gradients(keras.layers.Conv2D, pre_activation=True)
@register_sample_gradients(keras.layers.Conv3D, pre_activation=True)
def convolution_gradients(layer: keras.Layer, inputs: Any, gradient: Any) -> list:
    """Return the gradients of a convolution: at each entry of the kernel, those of a dense layer."""
    inputs, gradient = _channels_last(layer, inputs), _channels_last(layer, gradient)
    kernel = OuterProducts(_shifted(layer, inputs, gradient, layer.groups), _grouped(gradient, layer.groups))
    return [(layer.kernel, kernel), (layer.bias, sum_positions(gradient))]


@register_sample_gradients(keras.layers.DepthwiseConv1D, pre_activation=True)
@register_sample_gradients(keras.layers.DepthwiseConv2D, pre_activation=True)
def depthwise_gradients(layer: keras.Layer, inputs: Any, gradient: Any) -> list:
    """Return the gradients of a depthwise convolution, whose groups are the channels of the inputs."""
    inputs, gradient = _channels_last(layer, inputs), _channels_last(layer, gradient)
    return [(layer.kernel, _depthwise(layer, inputs, gradient)), (layer.bias, sum_positions(gradient))]


@register_sample_gradients(keras.layers.SeparableConv1D, pre_activation=True)
@register_sample_gradients(keras.layers.SeparableConv2D, pre_activation=True)
def separable_gradients(layer: keras.Layer, inputs: Any, gradient: Any) -> list:
    """Return the gradients of a depthwise convolution followed by a dense layer of the channels."""
    depthwise_kernel, pointwise_kernel = (
        ops.cast(kernel, inputs.dtype) for kernel in (layer.depthwise_kernel, layer.pointwise_kernel)
    )
    inputs = _channels_last(layer, inputs)
    hidden = ops.depthwise_conv(
        inputs, depthwise_kernel, layer.strides, layer.padding, "channels_last", dilation_rate=layer.dilation_rate
    )
    gradient = _channels_last(layer, gradient)
    matrix = ops.reshape(pointwise_kernel, pointwise_kernel.shape[-2:])
    hidden_gradient = ops.matmul(gradient, ops.transpose(matrix))
    return [
        (layer.depthwise_kernel, _depthwise(layer, inputs, hidden_gradient)),
        (layer.pointwise_kernel, OuterProducts((_grouped(hidden, 1),), _grouped(gradient, 1))),
        (layer.bias, sum_positions(gradient)),
    ]


def _depthwise(layer: keras.Layer, inputs: Any, gradient: Any) -> OuterProducts:
    channels = inputs.shape[-1]
    return OuterProducts(_shifted(layer, inputs, gradient, channels), _grouped(gradient, channels))


def _channels_last(layer: keras.Layer, tensor: Any) -> Any:
    return tensor if layer.data_format == "channels_last" else ops.moveaxis(tensor, 1, -1)


def _grouped(tensor: Any, groups: int) -> Any:
    """Reshape `(batch, *positions, groups * channels)` to `(batch, groups, positions, channels)`."""
    rows, channels = tensor.shape[0], tensor.shape[-1]
    if groups == 1:
        return ops.reshape(tensor, (rows, 1, -1, channels))
    return ops.swapaxes(ops.reshape(tensor, (rows, -1, groups, channels // groups)), 1, 2)


def _shifted(layer: keras.Layer, inputs: Any, gradient: Any, groups: int) -> tuple:
    """Return for each entry of the kernel its inputs at all positions, `(batch, groups, positions, channels)`."""
    padded, sizes = _padded(layer, inputs), gradient.shape[1:-1]

    def part(offsets: Sequence[int]) -> Any:
        window = [
            slice(offset, offset + (size - 1) * stride + 1, stride)
            for offset, size, stride in zip(offsets, sizes, layer.strides, strict=True)
        ]
        return _grouped(padded[(slice(None), *window)], groups)

    entries = zip(layer.kernel_size, layer.dilation_rate, strict=True)
    return tuple(part(offsets) for offsets in itertools.product(*(range(0, n * d, d) for n, d in entries)))


def _padded(layer: keras.Layer, inputs: Any) -> Any:
    """Pad inputs as the layer does; `(batch, *positions, channels)`."""
    if layer.padding == "valid":
        return inputs
    pads = []
    for size, n, stride, dilation in zip(
        inputs.shape[1:-1], layer.kernel_size, layer.strides, layer.dilation_rate, strict=True
    ):
        if layer.padding == "causal":
            pads.append((dilation * (n - 1), 0))
        else:
            total = max((-(-size // stride) - 1) * stride + dilation * (n - 1) + 1 - size, 0)
            pads.append((total // 2, total - total // 2))
    return ops.pad(inputs, ((0, 0), *pads, (0, 0)))
