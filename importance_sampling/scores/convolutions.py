"""Formulas for convolutions: those of a dense layer on the patches of the inputs, one entry of the kernel at a time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from importance_sampling import backend
from importance_sampling.scores.formulas import register_sample_gradients
from importance_sampling.scores.weight_gradients import OuterProducts, sum_positions

SLICE = 32  # samples, whose patches are in memory at once


class KernelGradients(NamedTuple):
    """Gradients with respect to the kernel of a convolution.

    Args:
        inputs: float `(batch, *positions, channels)`, unpadded.
        gradients: float `(batch, *positions, units)`, the gradients with respect to the outputs.
        layer: the convolution.
        groups: int, the number of groups of channels that are convolved separately.
    """

    inputs: Any
    gradients: Any
    layer: keras.Layer
    groups: int

    @staticmethod
    def sum(parts: Sequence[KernelGradients]) -> OuterProducts:
        """Return the sum of gradients with respect to the same kernel, from several calls of a layer."""
        return OuterProducts.sum([part.outer_products() for part in parts])

    def outer_products(self) -> OuterProducts:
        """Return the gradients as those of a dense layer for each entry of the kernel."""
        parts = _shifted(self.layer, self.inputs, self.gradients, self.groups)
        return OuterProducts(parts, _grouped(self.gradients, self.groups))

    def squared_norms(self) -> Any:
        """Return the squared norm of the gradient of each sample, float `(batch,)`."""
        rows = self.inputs.shape[0]

        def norms(leaves: list) -> Any:
            return KernelGradients(*leaves, self.layer, self.groups).outer_products().squared_norms()

        return backend.map_chunks(norms, [self.inputs, self.gradients], rows, min(SLICE, rows))


@register_sample_gradients(keras.layers.Conv1D, pre_activation=True)
@register_sample_gradients(keras.layers.Conv2D, pre_activation=True)
@register_sample_gradients(keras.layers.Conv3D, pre_activation=True)
def convolution_gradients(layer: keras.Layer, inputs: Any, gradient: Any) -> list:
    """Return the gradients of a convolution: at each entry of the kernel, those of a dense layer."""
    inputs, gradient = _channels_last(layer, inputs), _channels_last(layer, gradient)
    kernel = KernelGradients(inputs, gradient, layer, layer.groups)
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


def _depthwise(layer: keras.Layer, inputs: Any, gradient: Any) -> KernelGradients:
    return KernelGradients(inputs, gradient, layer, groups=inputs.shape[-1])


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
    sizes, strides, dilations = gradient.shape[1:-1], layer.strides, layer.dilation_rate
    phases = _phases(layer, inputs, sizes)

    def part(entry: Sequence[int]) -> Any:
        offsets = [n * dilation for n, dilation in zip(entry, dilations, strict=True)]
        phase = phases[tuple(offset % stride for offset, stride in zip(offsets, strides, strict=True))]
        starts = [offset // stride for offset, stride in zip(offsets, strides, strict=True)]
        window = [slice(start, start + size) for start, size in zip(starts, sizes, strict=True)]
        return _grouped(phase[(slice(None), *window)], groups)

    return tuple(part(entry) for entry in itertools.product(*map(range, layer.kernel_size)))


def _phases(layer: keras.Layer, inputs: Any, sizes: Sequence[int]) -> dict[tuple, Any]:
    """Return the padded inputs at each `stride`-th position, from each first position within a stride.

    TensorFlow takes ten times as long to slice with a stride as to reshape, and to slice without one.

    Args:
        layer: the convolution.
        inputs: float `(batch, *positions, channels)`.
        sizes: the shape of the positions of the outputs.
    """
    strides, counts, pads = layer.strides, [], []
    for i, (before, stride) in enumerate(zip(_pads_before(layer, inputs), strides, strict=True)):
        counts.append(sizes[i] + (layer.kernel_size[i] - 1) * layer.dilation_rate[i] // stride)
        pads.append((before, counts[-1] * stride - before - inputs.shape[1 + i]))
    used = tuple(slice(0, size + min(after, 0)) for (_, after), size in zip(pads, inputs.shape[1:-1], strict=True))
    pads = [(before, max(after, 0)) for before, after in pads]
    padded = ops.pad(inputs[(slice(None), *used)], ((0, 0), *pads, (0, 0)))
    if max(strides) == 1:
        return {(0,) * len(strides): padded}
    pairs = itertools.chain.from_iterable(zip(counts, strides, strict=True))
    split = ops.reshape(padded, (inputs.shape[0], *pairs, inputs.shape[-1]))
    return {
        phase: split[(slice(None), *itertools.chain.from_iterable((slice(None), first) for first in phase))]
        for phase in itertools.product(*map(range, strides))
    }


def _pads_before(layer: keras.Layer, inputs: Any) -> list[int]:
    """Return the number of zeros that the layer puts before the inputs, for each axis of the positions."""
    reach = [dilation * (n - 1) for n, dilation in zip(layer.kernel_size, layer.dilation_rate, strict=True)]
    if layer.padding == "valid":
        return [0] * len(reach)
    if layer.padding == "causal":
        return reach
    totals = (
        max((-(-size // stride) - 1) * stride + one + 1 - size, 0)
        for size, stride, one in zip(inputs.shape[1:-1], layer.strides, reach, strict=True)
    )
    return [total // 2 for total in totals]
