"""Compare ways to train a model, with equal initial weights and equal budgets of seconds, cost or epochs."""

import warnings
from typing import Any

from importance_sampling.comparison.clock import Clock, forward_equivalents
from importance_sampling.comparison.data import Data
from importance_sampling.comparison.equal_budget import fit_of, identical_models, train
from importance_sampling.comparison.result import Comparison
from importance_sampling.comparison.user_task import compare

__all__ = [
    "Clock",
    "Comparison",
    "Data",
    "compare",
    "fit_of",
    "forward_equivalents",
    "identical_models",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "alike":
        warnings.warn(
            "`comparison.alike` is deprecated: use `comparison.identical_models`.", DeprecationWarning, stacklevel=2
        )
        return identical_models
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
