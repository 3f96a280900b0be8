"""Data of three classes, and a classifier of one layer: for tests of comparisons."""

import keras
import numpy as np

X = np.random.default_rng(0).normal(size=(160, 6)).astype("float32")
Y = X[:, :3].argmax(1)


def build():
    """Return a compiled model."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
