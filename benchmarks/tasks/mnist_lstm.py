"""MNIST digits, with an LSTM of 64 units that reads them row by row."""

from pathlib import Path

import keras
from keras import layers

from importance_sampling.comparison import Data
from tasks.mnist import images
from tasks.task import Task


def load(path: Path | None) -> Data:
    """Return images as sequences of 28 lines with 28 pixels."""
    x_train, y_train, x_test, y_test = images(path)
    return Data(x_train[..., 0], y_train, x_test[..., 0], y_test)


def build() -> keras.Model:
    """Build one LSTM and a softmax; Adam."""
    model = keras.Sequential([keras.Input((28, 28)), layers.LSTM(64), layers.Dense(10, "softmax")])
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


TASK = Task(load=load, build=build, rate=0.001, tuned=0.008, seconds=45, steps=4000)
