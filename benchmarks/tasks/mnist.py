"""Data and models of the tasks on MNIST."""

from __future__ import annotations

import functools
from pathlib import Path

import keras
import numpy as np

from importance_sampling.comparison import Data
from importance_sampling.datasets import MNIST
from tasks.files import find
from tasks.perceptron import uncompiled_perceptron


@functools.lru_cache(1)
def images(path: Path | None) -> Data:
    """Return images `(rows, 28, 28, 1)` in [0, 1] and one-hot labels."""
    return Data.of(MNIST(path=find(path, "mnist.npz")))


def rows(path: Path | None) -> Data:
    """Return flattened images `(rows, 784)` in [0, 1] and one-hot labels."""
    x_train, y_train, x_test, y_test = images(path)
    return Data(x_train.reshape(-1, 784), y_train, x_test.reshape(-1, 784), y_test)


def digits(labels: np.ndarray) -> np.ndarray:
    """Convert one-hot labels to digits."""
    return labels.argmax(axis=1)


def perceptron(outputs: int = 10) -> keras.Model:
    """Build a perceptron 784-512-512 with ReLU, and softmax or, for one output, sigmoid; Adam."""
    binary = outputs == 1
    model = uncompiled_perceptron(784, 512, outputs, "sigmoid" if binary else "softmax")
    model.compile("adam", "binary_crossentropy" if binary else "categorical_crossentropy", metrics=["accuracy"])
    return model
