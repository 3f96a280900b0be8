"""Convolutional models for images, channels last."""

from __future__ import annotations

import keras
from keras import layers

from importance_sampling.models.heads import check, classifier, from_logits

IMAGE = "(height, width, channels)"


def small_cnn(input_shape: tuple[int, int, int], output_size: int) -> keras.Model:
    """Two 3x3 convolutions with 32 channels, 2x2 max-pooling, a dense layer of 128 units.

    ReLU after each of these layers; Adam with learning rate 0.001.

    Args:
        input_shape: `(height, width, channels)`, ints, the shape of one image.
        output_size: int >= 1, the number of classes; 1 for a binary classifier.

    Returns:
        A compiled `keras.Model`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> small_cnn((28, 28, 1), 10).output_shape
        (None, 10)
    """
    inputs = keras.Input(check(input_shape, output_size, (3,), IMAGE))
    x = _convolutions(inputs, 32, 2)
    x = layers.Dense(128, activation="relu")(layers.Flatten()(x))
    return classifier(inputs, x, output_size, keras.optimizers.Adam(0.001), "small_cnn")


def cnn(input_shape: tuple[int, int, int], output_size: int) -> keras.Model:
    """Three stages of two 3x3 convolutions with 32, 64 and 128 channels, and a dense layer of 512 units.

    ReLU after each of these layers; 2x2 max-pooling and dropout of 0.25 after each stage; dropout of 0.5 before the
    output; Adam with learning rate 0.001.

    Args:
        input_shape: `(height, width, channels)`, ints, the shape of one image.
        output_size: int >= 1, the number of classes; 1 for a binary classifier.

    Returns:
        A compiled `keras.Model`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> cnn((32, 32, 3), 10).output_shape
        (None, 10)
    """
    inputs = x = keras.Input(check(input_shape, output_size, (3,), IMAGE))
    for channels in (32, 64, 128):
        x = layers.Dropout(0.25)(_convolutions(x, channels, 2))
    x = layers.Dense(512, activation="relu")(layers.Flatten()(x))
    x = layers.Dropout(0.5)(x)
    return classifier(inputs, x, output_size, keras.optimizers.Adam(0.001), "cnn")


def all_conv(input_shape: tuple[int, int, int], output_size: int) -> keras.Model:
    """Convolutions only, with strides instead of pooling, and logits averaged over the image.

    3x3 convolutions with 96, 96, 96 (stride 2), 192, 192, 192 (stride 2) and 192 channels; 1x1 convolutions with 192
    channels and one channel per class. ReLU after all but the last; dropout of 0.2 on the input and 0.5 after each
    stride; L2 regularisation of every kernel with the gradient 0.001 w. SGD with momentum 0.9, learning rate 0.01.

    Args:
        input_shape: `(height, width, channels)`, ints, the shape of one image.
        output_size: int >= 1, the number of classes; 1 for a binary classifier.

    Returns:
        A compiled `keras.Model`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> all_conv((32, 32, 3), 10).count_params()
        1369738

    Source: Springenberg et al., Striving for Simplicity: The All Convolutional Net, 2014 (arXiv 1412.6806), All-CNN-C.
    In contrast to the source, all convolutions have padding, to allow small images, and the logits have no ReLU.
    """
    inputs = keras.Input(check(input_shape, output_size, (3,), IMAGE))
    penalty = keras.regularizers.L2(0.5e-3)
    x = layers.Dropout(0.2)(inputs)
    for channels, size, stride in (
        (96, 3, 1),
        (96, 3, 1),
        (96, 3, 2),
        (192, 3, 1),
        (192, 3, 1),
        (192, 3, 2),
        (192, 3, 1),
        (192, 1, 1),
    ):
        x = layers.Conv2D(
            channels,
            size,
            strides=stride,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
            kernel_regularizer=penalty,
        )(x)
        if stride == 2:
            x = layers.Dropout(0.5)(x)
    x = layers.Conv2D(output_size, 1, kernel_regularizer=penalty)(x)
    logits = layers.GlobalAveragePooling2D(name="logits")(x)
    return from_logits(inputs, logits, keras.optimizers.SGD(0.01, momentum=0.9), "all_conv")


def elu_cnn(input_shape: tuple[int, int, int], output_size: int) -> keras.Model:
    """Eleven convolutions with ELU, in stacks of increasing width, with pooling between the stacks.

    Stacks, as channels x kernel size: 192x5 | 192x1, 240x3 | 240x1, 260x2 | 260x1, 280x2 | 280x1, 300x2 | 300x1 | 1x1
    with one channel per class. The first five stacks are followed by 2x2 max-pooling and dropout of 0.1, 0.2, 0.3, 0.4
    and 0.5. Logits are averaged over the remaining pixels. L2 regularisation of every kernel with the gradient
    0.0005 w. SGD with momentum 0.9, learning rate 0.01.

    Args:
        input_shape: `(height, width, channels)`, ints, the shape of one image.
        output_size: int >= 1, the number of classes; 1 for a binary classifier.

    Returns:
        A compiled `keras.Model`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> elu_cnn((32, 32, 3), 100).output_shape
        (None, 100)

    Source: the CIFAR-100 network of Clevert, Unterthiner & Hochreiter, Fast and Accurate Deep Network Learning by
    Exponential Linear Units, 2015 (arXiv 1511.07289), section 4.2. Dropout rates and the final averaging differ.
    """
    inputs = x = keras.Input(check(input_shape, output_size, (3,), IMAGE))
    penalty = keras.regularizers.L2(0.25e-3)
    stacks = (
        ((192, 5),),
        ((192, 1), (240, 3)),
        ((240, 1), (260, 2)),
        ((260, 1), (280, 2)),
        ((280, 1), (300, 2)),
        ((300, 1),),
    )
    for index, stack in enumerate(stacks):
        for channels, size in stack:
            x = layers.Conv2D(
                channels,
                size,
                padding="same",
                activation="elu",
                kernel_initializer="he_normal",
                kernel_regularizer=penalty,
            )(x)
        if index < 5:
            x = layers.MaxPooling2D(2, padding="same")(x)
            x = layers.Dropout(0.1 * (index + 1))(x)
    x = layers.Conv2D(output_size, 1, kernel_regularizer=penalty)(x)
    logits = layers.GlobalAveragePooling2D(name="logits")(x)
    return from_logits(inputs, logits, keras.optimizers.SGD(0.01, momentum=0.9), "elu_cnn")


def _convolutions(x: keras.KerasTensor, channels: int, count: int) -> keras.KerasTensor:
    """Apply 3x3 convolutions with ReLU and 2x2 max-pooling."""
    for _ in range(count):
        x = layers.Conv2D(channels, 3, padding="same", activation="relu")(x)
    return layers.MaxPooling2D(2, padding="same")(x)
