"""Digits, two classes of which (3 and 8) have 60 training samples each in place of 6000; the test set is whole."""

from pathlib import Path

from importance_sampling.comparison import Data
from tasks.mnist import perceptron, rows
from tasks.task import Task

RARE, KEPT = (3, 8), 60


def load(file: Path | None) -> Data:
    """The first 60 rows of each rare class, and all of the others."""
    return rows(file).thinned({digit: KEPT for digit in RARE})


TASK = Task(load=load, build=perceptron, rate=0.001, tuned=0.002, seconds=16)
