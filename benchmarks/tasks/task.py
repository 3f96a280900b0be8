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
        load: function from the path of the data files to the data: a folder, or MNIST's file, beside which the others
            are looked for. None downloads MNIST. Tasks on other data ignore the path.
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
        has_rare_classes: bool, default False; True if the targets are classes, and some have few samples.
        pretrained_builder: function from the path of the data files to a function that builds the model with
            pretrained weights. None (default) means that training starts from the weights of `build`.
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
    has_rare_classes: bool = False
    pretrained_builder: Callable[[Path | None], Callable[[], keras.Model]] | None = None

    def builder(self, path: Path | None) -> Callable[[], keras.Model]:
        """Return the function that builds the compiled model with the weights from which training starts.

        Args:
            path: path of the data files, as for `load`.
        """
        return self.build if self.pretrained_builder is None else self.pretrained_builder(path)
