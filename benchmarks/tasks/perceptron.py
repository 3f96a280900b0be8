"""The network of the tasks on tables and flattened images."""

from __future__ import annotations

import keras
from keras import layers


def uncompiled_perceptron(inputs: int, units: int, outputs: int, activation: str | None = None) -> keras.Model:
    """Build two hidden layers with ReLU and an output layer.

    Args:
        inputs: int, numbers per sample.
        units: int, of each hidden layer.
        outputs: int.
        activation: of the output layer.
    """
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            layers.Dense(units, "relu"),
            layers.Dense(units, "relu"),
            layers.Dense(outputs, activation),
        ]
    )
