"""'8 or not', with 0.5 % of eights in training; the test set is whole, with its tenth of eights."""

from pathlib import Path

import numpy as np

from importance_sampling.comparison import Data
from tasks.mnist import digits, perceptron, rows
from tasks.task import Task

SHARE = 0.005


def load(file: Path | None) -> Data:
    """All rows of other digits, and so many eights, the first ones, that their share is right; labels `(rows, 1)`."""
    x_train, y_train, x_test, y_test = rows(file)
    is_eight, is_eight_test = digits(y_train) == 8, digits(y_test) == 8
    kept = ~is_eight
    kept[np.flatnonzero(is_eight)[: round(kept.sum() * SHARE / (1 - SHARE))]] = True
    return Data(x_train[kept], is_eight[kept, None].astype("float32"), x_test, is_eight_test[:, None].astype("float32"))


TASK = Task(load=load, build=lambda: perceptron(1), rate=0.001, tuned=0.001)
