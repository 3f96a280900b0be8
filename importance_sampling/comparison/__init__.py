"""Train one model in several ways for the same seconds, cost or steps, and see how far each gets."""

from importance_sampling.comparison.clock import Clock, Evaluation, Point, forward_equivalents
from importance_sampling.comparison.data import Data
from importance_sampling.comparison.picture import Panel, draw
from importance_sampling.comparison.task import Budget, Task, check, compare
from importance_sampling.comparison.training import alike, fit_of, train

__all__ = [
    "Budget",
    "Clock",
    "Data",
    "Evaluation",
    "Panel",
    "Point",
    "Task",
    "alike",
    "check",
    "compare",
    "draw",
    "fit_of",
    "forward_equivalents",
    "train",
]
