"""MNIST digits, with 60 instead of 6000 training samples of the classes 3 and 8; the test set is complete."""

from pathlib import Path

from importance_sampling.comparison import Data
from tasks.mnist import perceptron, rows
from tasks.task import Task

RARE, NUM_SAMPLES = (3, 8), 60


def load(path: Path | None) -> Data:
    """Keep the first 60 training samples of each rare class, and all of the other classes."""
    return rows(path).thinned({digit: NUM_SAMPLES for digit in RARE})


TASK = Task(load=load, build=perceptron, rate=0.001, tuned=0.002, seconds=16, has_rare_classes=True)
