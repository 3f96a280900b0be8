"""What trainers do while their gates are open. One file a kind of step."""

from importance_sampling.open_steps.base import OpenSteps
from importance_sampling.open_steps.chosen import ChosenPoolSteps
from importance_sampling.open_steps.pool import PoolSteps
from importance_sampling.open_steps.rows import RowSteps
from importance_sampling.open_steps.sized import SizedPoolSteps
from importance_sampling.open_steps.variance_reduced import VarianceReducedSteps

__all__ = [
    "ChosenPoolSteps",
    "OpenSteps",
    "PoolSteps",
    "RowSteps",
    "SizedPoolSteps",
    "VarianceReducedSteps",
]
