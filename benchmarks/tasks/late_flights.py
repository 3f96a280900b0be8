"""'More than two hours late or not', for the flights of the task `flights`: 3 % of them are late.

The inputs are known before departure: those of `flights` without the departure delay. The test error is 100 (1 - A),
where A is the area under the ROC curve, because no flight is more likely late than not.
"""

import functools
from pathlib import Path

import keras

from importance_sampling.comparison import Data
from tasks.files import split
from tasks.flights import INPUTS, arrived, features
from tasks.perceptron import uncompiled_perceptron
from tasks.task import Task

LATE = 120  # minutes


@functools.lru_cache(1)
def load(path: Path | None) -> Data:
    """Return 133 features per flight, all of order 1, and labels `(rows, 1)`: 1 if it arrived late."""
    flights = arrived()
    return split(features(flights), (flights.arr_delay > LATE).to_numpy("float32")[:, None])


def build() -> keras.Model:
    """Build two hidden layers of 128 units with ReLU, and a sigmoid; Adam."""
    model = uncompiled_perceptron(INPUTS - 1, units=128, outputs=1, activation="sigmoid")
    model.compile("adam", "binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")])
    return model


TASK = Task(
    load=load,
    build=build,
    rate=0.001,
    tuned=0.004,
    seconds=20,
    steps=8000,
    error=lambda figures: 100.0 * (1.0 - figures["auc"]),
    unit="% (1 - area under the ROC curve)",
    has_rare_classes=True,
)
