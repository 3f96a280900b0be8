"""The artificial data of [C16], with a small perceptron: 402,000 points on the unit square, hard only along a curve.

Source: [C16] Canevet, Jose & Fleuret, Importance Sampling Tree for Large-scale Empirical Expectation, ICML 2016.
"""

from pathlib import Path

from importance_sampling.comparison import Data
from importance_sampling.datasets import CanevetICML2016
from importance_sampling.models import small_nn
from tasks.task import Task


def load(path: Path | None) -> Data:
    """Return a grid of 775 x 775 points. The test set is a random sample of 20,000 points."""
    return Data.of(CanevetICML2016(N=775))


TASK = Task(load=load, build=lambda: small_nn((2,), 2), rate=0.001, tuned=0.004, seconds=10, steps=8000)
