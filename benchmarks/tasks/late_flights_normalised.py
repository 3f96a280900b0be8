"""The task `late_flights` with batch normalisation and dropout."""

import keras
from keras import layers

from tasks import late_flights
from tasks.flights import INPUTS
from tasks.task import Task


def build() -> keras.Model:
    """Build two hidden layers of 128 units, each with batch normalisation, ReLU and dropout, and a sigmoid; Adam."""
    hidden = [layer for _ in range(2) for layer in dense(128)]
    model = keras.Sequential(
        [keras.Input((INPUTS - 1,)), layers.BatchNormalization(), *hidden, layers.Dense(1, "sigmoid")]
    )
    model.compile("adam", "binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")])
    return model


def dense(units: int) -> list[layers.Layer]:
    """Return the layers of a hidden layer."""
    return [layers.Dense(units, use_bias=False), layers.BatchNormalization(), layers.ReLU(), layers.Dropout(0.2)]


TASK = Task(
    load=late_flights.load,
    build=build,
    rate=0.001,
    tuned=0.001,
    seconds=20,
    steps=8000,
    error=late_flights.TASK.error,
    unit=late_flights.TASK.unit,
    has_rare_classes=True,
)
