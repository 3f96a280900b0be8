"""The definition of a benchmark task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras

from importance_sampling.comparison import Data


class Task(NamedTuple):
    """Data, a model, and the training budget.

    Attributes:
        load: function from an npz file of MNIST to the data. None downloads MNIST; tasks on other data ignore the file.
        build: function that returns the compiled model.
        rate: float, the learning rate of the protocol `anytime`, a usual default.
        tuned: float, the peak learning rate of the protocol `budget`; `equal_time.py --tune` determines and writes it.
        seconds: float, the default budget in seconds.
        steps: int, the default budget for `--by cost`, in uniform steps of 3 forward passes.
        batch_size: int.
        loss_rows: int, the number of training samples for the training loss.
        error: function from the dict that `evaluate` returns for the test set to the test error. None means
            100 (1 - accuracy).
        unit: str, the unit of the test error.
    """

    load: Callable[[Path | None], Data]
    build: Callable[[], keras.Model]
    rate: float
    tuned: float
    seconds: float = 30.0
    steps: int = 4000
    batch_size: int = 128
    loss_rows: int = 10000
    error: Callable[[dict], float] | None = None
    unit: str = "%"
