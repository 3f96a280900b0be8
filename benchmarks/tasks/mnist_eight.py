"""'8 or not', with 0.5 % of eights in training; the test set is whole, with its tenth of eights."""

from pathlib import Path

from importance_sampling.comparison import Data
from tasks.mnist import digits, perceptron, rows
from tasks.task import Task

SHARE = 0.005


def load(file: Path | None) -> Data:
    """All rows of other digits, and so many eights, the first ones, that their share is right; labels `(rows, 1)`."""
    whole = rows(file)
    others = int((digits(whole.y_train) != 8).sum())
    kept = whole.thinned({8: round(others * SHARE / (1 - SHARE))})
    return kept._replace(y_train=kept.y_train[:, [8]], y_test=kept.y_test[:, [8]])


TASK = Task(load=load, build=lambda: perceptron(1), rate=0.001, tuned=0.001, seconds=16)
