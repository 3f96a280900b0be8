"""MNIST digits, of which 20 % have a random wrong training label: importance sampling is expected to hurt here.

The training loss is computed with the wrong labels; the test labels are correct.
"""

from pathlib import Path

import numpy as np

from importance_sampling.comparison import Data
from tasks.mnist import digits, perceptron, rows
from tasks.task import Task

WRONG = 0.2  # the fraction of wrong labels


def load(path: Path | None) -> Data:
    """Return the digits with wrong training labels, the same ones in every call."""
    x_train, y_train, x_test, y_test = rows(path)
    random = np.random.default_rng(0)
    labels = digits(y_train)
    wrong = random.random(len(labels)) < WRONG
    labels = np.where(wrong, (labels + random.integers(1, 10, len(labels))) % 10, labels)
    return Data(x_train, np.eye(10, dtype="float32")[labels], x_test, y_test)


TASK = Task(load=load, build=perceptron, rate=0.001, tuned=0.002, seconds=16)
