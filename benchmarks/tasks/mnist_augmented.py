"""MNIST digits, shifted, rotated and zoomed at random, with a small convolutional network with batch normalisation."""

import keras
from keras import layers

from tasks.mnist import images
from tasks.task import Task


def build() -> keras.Model:
    """Build Keras's augmentation layers, and two 3x3 convolutions with batch normalisation, ReLU and pooling; Adam."""
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.RandomTranslation(0.07, 0.07, fill_mode="constant"),
            layers.RandomRotation(0.03, fill_mode="constant"),
            layers.RandomZoom(0.1, fill_mode="constant"),
            *convolution(16),
            *convolution(32),
            layers.Flatten(),
            layers.Dense(10, "softmax"),
        ]
    )
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


def convolution(channels: int) -> list[layers.Layer]:
    """Return the layers of a convolution."""
    return [
        layers.Conv2D(channels, 3, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.MaxPooling2D(),
    ]


TASK = Task(load=images, build=build, rate=0.001, tuned=0.001, seconds=30, steps=1200, batch_size=64, loss_rows=5000)
