"""What the tasks on MNIST share."""

from __future__ import annotations

import functools
from pathlib import Path

import keras
import numpy as np
from keras import layers

from importance_sampling.comparison import Data
from importance_sampling.datasets import MNIST


@functools.lru_cache(1)
def images(file: Path | None) -> Data:
    """Pixels in [0, 1], `(rows, 28, 28, 1)`, and one-hot labels."""
    return Data.of(MNIST(path=file))


def rows(file: Path | None) -> Data:
    """As `images`, an image a row of 784."""
    x_train, y_train, x_test, y_test = images(file)
    return Data(x_train.reshape(-1, 784), y_train, x_test.reshape(-1, 784), y_test)


def digits(labels: np.ndarray) -> np.ndarray:
    """From one-hot labels back to digits."""
    return labels.argmax(axis=1)


def perceptron(outputs: int = 10) -> keras.Model:
    """784-512-512 with ReLU, and a softmax, or a sigmoid for a single output; Adam."""
    binary = outputs == 1
    model = keras.Sequential(
        [
            keras.Input((784,)),
            layers.Dense(512, "relu"),
            layers.Dense(512, "relu"),
            layers.Dense(outputs, "sigmoid" if binary else "softmax"),
        ]
    )
    model.compile("adam", "binary_crossentropy" if binary else "categorical_crossentropy", metrics=["accuracy"])
    return model
