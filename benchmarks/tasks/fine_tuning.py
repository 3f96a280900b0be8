"""MNIST digits from 5 to 9, with the network of `mnist_cnn` pretrained on the digits from 0 to 4 and a new last layer.

All layers are trained, at a tenth of the usual learning rate.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from importance_sampling.comparison import Data
from tasks import mnist_cnn
from tasks.mnist import digits, images
from tasks.task import Task

FIRST, LAST = range(5), range(5, 10)  # the digits of the pretraining and of the task


def load(path: Path | None) -> Data:
    """Return the images of the digits from 5 to 9, and one-hot labels of 5 columns."""
    return subset(images(path), LAST)


def subset(data: Data, classes: range) -> Data:
    """Return the rows of some digits, with a column of y for each of them."""
    x_train, y_train, x_test, y_test = data
    train, test = np.isin(digits(y_train), classes), np.isin(digits(y_test), classes)
    columns = list(classes)
    return Data(x_train[train], y_train[train][:, columns], x_test[test], y_test[test][:, columns])


@functools.lru_cache(1)
def pretrained(path: Path | None) -> list[np.ndarray]:
    """Return the weights of the pretrained network: an epoch on the first digits (240 steps), always the same."""
    keras.utils.set_random_seed(0)
    model, data = mnist_cnn.build(5), subset(images(path), FIRST)
    model.fit(data.x_train, data.y_train, batch_size=128, verbose=0)
    return model.get_weights()


def pretrained_builder(path: Path | None) -> Callable[[], keras.Model]:
    """Return a function that builds the network with pretrained weights, except those of the last layer."""
    weights = pretrained(path)

    def build_pretrained() -> keras.Model:
        model = mnist_cnn.build(5)
        last = model.layers[-1].get_weights()
        model.set_weights([*weights[: -len(last)], *last])
        return model

    return build_pretrained


TASK = Task(
    load=load,
    build=lambda: mnist_cnn.build(5),
    rate=0.0001,
    tuned=0.0001,
    seconds=30,
    steps=2000,
    pretrained_builder=pretrained_builder,
)
