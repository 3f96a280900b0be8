"""'8 or not': 0.5 % of the training digits are eights; the test set is complete, with 10 % of eights."""

from pathlib import Path

from importance_sampling.comparison import Data
from tasks.mnist import digits, perceptron, rows
from tasks.task import Task

EIGHTS = 0.005  # the fraction of eights in the training set


def load(path: Path | None) -> Data:
    """Keep the first eights up to the fraction EIGHTS of the training set; labels are `(rows, 1)`."""
    data = rows(path)
    others = int((digits(data.y_train) != 8).sum())
    data = data.thinned({8: round(others * EIGHTS / (1 - EIGHTS))})
    return data._replace(y_train=data.y_train[:, [8]], y_test=data.y_test[:, [8]])


TASK = Task(load=load, build=lambda: perceptron(1), rate=0.001, tuned=0.001, seconds=16)
