"""MNIST digits, with a small convolutional network (two convolutions, 16 and 32 channels): the forward pass is slow."""

import keras
from keras import layers

from tasks.mnist import images
from tasks.task import Task


def build(outputs: int = 10) -> keras.Model:
    """Build two 3x3 convolutions with ReLU and pooling, and a dense layer of 64 units; Adam."""
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, "relu"),
            layers.Dense(outputs, "softmax"),
        ]
    )
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


TASK = Task(load=images, build=build, rate=0.001, tuned=0.004, seconds=45, steps=3200)
