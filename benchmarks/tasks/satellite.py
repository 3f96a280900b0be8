"""Soil types in satellite images: 6,435 rows of 36 numbers, 4 spectral bands of 3 x 3 pixels, and 6 classes.

Source: Statlog (Landsat Satellite), UCI Machine Learning Repository.
"""

from pathlib import Path

import keras

from importance_sampling.comparison import Data
from tasks.files import standardised
from tasks.perceptron import uncompiled_perceptron
from tasks.task import Task


def load(path: Path | None) -> Data:
    """Return standardised inputs and one-hot labels."""
    return standardised(path, "satellite.npz", classes=6)


def build() -> keras.Model:
    """Build two hidden layers of 128 units with ReLU; Adam."""
    model = uncompiled_perceptron(inputs=36, units=128, outputs=6, activation="softmax")
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


TASK = Task(load=load, build=build, rate=0.001, tuned=0.004, seconds=20, steps=8000, batch_size=64)
