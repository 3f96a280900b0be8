"""Score, evaluate and train a model batch by batch, for training loops outside of `fit`."""

from typing import Any

from importance_sampling.core import indexed_step, metric_updates
from importance_sampling.model_wrappers.base import ModelWrapper
from importance_sampling.model_wrappers.katyusha import KatyushaWrapper
from importance_sampling.model_wrappers.oracle import OracleWrapper
from importance_sampling.model_wrappers.variance_reduced import SVRGWrapper
from importance_sampling.strategies import pool
from importance_sampling.utils.deprecation import renamed

RENAMED = {
    "ImportanceStep": pool.PoolStep,
    "RowStep": indexed_step.IndexedStep,
    "evaluate": metric_updates.update_from_pool,
    "fair_signals": indexed_step.uniform_signals,
    "pool_signals": pool.pool_signals,
    "row_signals": indexed_step.row_signals,
}
__all__ = ["KatyushaWrapper", "ModelWrapper", "OracleWrapper", "SVRGWrapper"]


def __getattr__(name: str) -> Any:
    """Return an object by its former name, with a `DeprecationWarning`."""
    return renamed(__name__, name, RENAMED)
