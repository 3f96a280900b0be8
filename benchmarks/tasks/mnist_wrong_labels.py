"""Digits of which 20 % have a wrong training label, another digit by chance: importance sampling should hurt here.

The training loss is that of the labels trained on; test labels are right.
"""

from pathlib import Path

import numpy as np

from importance_sampling.comparison import Data
from tasks.mnist import digits, perceptron, rows
from tasks.task import Task

SHARE = 0.2


def load(file: Path | None) -> Data:
    """The same wrong labels every time."""
    x_train, y_train, x_test, y_test = rows(file)
    random = np.random.default_rng(0)
    labels = digits(y_train)
    wrong = random.random(len(labels)) < SHARE
    labels = np.where(wrong, (labels + random.integers(1, 10, len(labels))) % 10, labels)
    return Data(x_train, np.eye(10, dtype="float32")[labels], x_test, y_test)


TASK = Task(load=load, build=perceptron, rate=0.001, tuned=0.002, seconds=16)
