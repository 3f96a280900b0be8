"""Wide residual networks.

Source: [ZK16] Zagoruyko & Komodakis, Wide Residual Networks, BMVC 2016 (arXiv 1605.07146).
"""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import layers

from importance_sampling.models.heads import check, classifier


def wide_resnet(L: int, k: int, drop_rate: float = 0.0) -> Callable[[tuple, int], keras.Model]:
    """Return a builder of the wide residual network of depth L and width k.

    The network has a 3x3 convolution with 16 channels; three groups of (L - 4) / 6 blocks with 16k, 32k and 64k
    channels, where the second and third group start with stride 2; batch normalisation and ReLU; global average
    pooling; and a dense layer. A block adds two rounds of batch normalisation, ReLU and 3x3 convolution, with dropout
    between them, to its input. Where the shape changes, the input is replaced by a 1x1 convolution of the output of the
    first ReLU. SGD with Nesterov momentum 0.9, learning rate 0.1; L2 regularisation of every kernel with the gradient
    0.0005 w.

    Args:
        L: int of the form 6 n + 4 (10, 16, 22, 28, ...); the number of layers.
        k: int >= 1; the width relative to a residual network with 16, 32 and 64 channels.
        drop_rate: float in [0, 1), default 0; the dropout rate.

    Returns:
        A builder `(input_shape, output_size)` for images `(height, width, channels)`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> wide_resnet(28, 2)((32, 32, 3), 10).name
        'wide_resnet_28_2'

    Source: [ZK16], table 1 and section 3.
    """
    if not isinstance(L, int) or L < 10 or (L - 4) % 6:
        raise ValueError(f"`L` must be an int of the form 6 n + 4, with n at least 1. Received: L={L!r}")
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"`k` must be an int of at least 1. Received: k={k!r}")
    if not 0 <= drop_rate < 1:
        raise ValueError(f"`drop_rate` must be a number in [0, 1). Received: drop_rate={drop_rate!r}")

    def build(input_shape: tuple[int, int, int], output_size: int) -> keras.Model:
        """Build a wide residual network; SGD with Nesterov momentum 0.9, learning rate 0.1, L2 regularisation."""
        inputs = keras.Input(check(input_shape, output_size, (3,), "(height, width, channels)"))
        x = _convolution(inputs, 16)
        for group in range(3):
            for block in range((L - 4) // 6):
                x = _block(x, 16 * k * 2**group, 2 if group and not block else 1, drop_rate)
        x = layers.GlobalAveragePooling2D()(_activated(x))
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)
        return classifier(inputs, x, output_size, optimizer, f"wide_resnet_{L}_{k}", _penalty())

    return build


def _block(x: keras.KerasTensor, channels: int, stride: int, drop_rate: float) -> keras.KerasTensor:
    activated = _activated(x)
    if stride != 1 or x.shape[-1] != channels:
        x = _convolution(activated, channels, size=1, stride=stride)
    y = _activated(_convolution(activated, channels, stride=stride))
    if drop_rate:
        y = layers.Dropout(drop_rate)(y)
    return layers.Add()([x, _convolution(y, channels)])


def _activated(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x))


def _convolution(x: keras.KerasTensor, channels: int, size: int = 3, stride: int = 1) -> keras.KerasTensor:
    return layers.Conv2D(
        channels,
        size,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        kernel_regularizer=_penalty(),
    )(x)


def _penalty() -> keras.Regularizer:
    return keras.regularizers.L2(0.25e-3)
