"""Sensors of the space shuttle: 58,000 rows of 9 numbers, and 7 classes, of which two have 10 and 13 rows.

Source: Statlog (Shuttle), UCI Machine Learning Repository.
"""

from pathlib import Path

import keras

from importance_sampling.comparison import Data
from tasks.files import standardised
from tasks.perceptron import uncompiled_perceptron
from tasks.task import Task


def load(path: Path | None) -> Data:
    """Return standardised inputs and one-hot labels."""
    return standardised(path, "shuttle.npz", classes=7)


def build() -> keras.Model:
    """Build two hidden layers of 64 units with ReLU; Adam."""
    model = uncompiled_perceptron(inputs=9, units=64, outputs=7, activation="softmax")
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


TASK = Task(load=load, build=build, rate=0.001, tuned=0.004, seconds=20, steps=8000, has_rare_classes=True)
