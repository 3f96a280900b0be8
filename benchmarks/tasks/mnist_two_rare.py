"""Digits, two classes of which (3 and 8) have 60 training samples each in place of 6000; the test set is whole."""

from pathlib import Path

import numpy as np

from importance_sampling.comparison import Data
from tasks.mnist import digits, perceptron, rows
from tasks.task import Task

RARE, KEPT = (3, 8), 60


def load(file: Path | None) -> Data:
    """The first 60 rows of each rare class, and all of the others."""
    x_train, y_train, x_test, y_test = rows(file)
    labels = digits(y_train)
    kept = np.ones(len(labels), bool)
    for digit in RARE:
        kept[np.flatnonzero(labels == digit)[KEPT:]] = False
    return Data(x_train[kept], y_train[kept], x_test, y_test)


TASK = Task(load=load, build=perceptron, rate=0.001, tuned=0.001)
