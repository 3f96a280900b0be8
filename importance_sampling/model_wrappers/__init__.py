"""The steps on the user's own model. One file an idea."""

from importance_sampling.model_wrappers.base import ModelWrapper
from importance_sampling.model_wrappers.figures import evaluate
from importance_sampling.model_wrappers.importance import ImportanceStep, pool_signals
from importance_sampling.model_wrappers.oracle import OracleWrapper
from importance_sampling.model_wrappers.rows import RowStep, fair_signals, row_signals
from importance_sampling.model_wrappers.variance_reduced import KatyushaWrapper, SVRGWrapper

__all__ = [
    "ImportanceStep",
    "KatyushaWrapper",
    "ModelWrapper",
    "OracleWrapper",
    "RowStep",
    "SVRGWrapper",
    "evaluate",
    "fair_signals",
    "pool_signals",
    "row_signals",
]
