"""What a task is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras

from importance_sampling.comparison import Data


class Task(NamedTuple):
    """Data, a model, and how long to train it.

    Attributes:
        load: from an npz file of MNIST (None: downloaded; others than MNIST's pay no heed) to the data.
        build: makes the compiled model.
        rate: learning rate under the protocol `anytime`: what a user would start with.
        tuned: peak learning rate under the protocol `budget`; `equal_time.py --tune` found it, and wrote it here.
        seconds: the default budget, in seconds.
        steps: the default budget where it is cost that counts, in plain steps of 3 forward passes.
        batch_size: int.
        loss_rows: how many training rows the training loss is measured on.
        error: from what `evaluate` returns for the test set to the test error; None: 100 (1 - accuracy).
        unit: of the error.
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
