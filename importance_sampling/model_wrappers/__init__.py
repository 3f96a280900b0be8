"""Score, evaluate and train a model batch by batch, for training loops outside of `fit`."""

from typing import Any

from importance_sampling.model_wrappers.base import ModelWrapper
from importance_sampling.model_wrappers.katyusha import KatyushaWrapper
from importance_sampling.model_wrappers.oracle import OracleWrapper
from importance_sampling.model_wrappers.variance_reduced import SVRGWrapper
from importance_sampling.utils.warn import renamed

__all__ = ["KatyushaWrapper", "ModelWrapper", "OracleWrapper", "SVRGWrapper"]


def __getattr__(name: str) -> Any:
    """Return an object by its former name, with a `DeprecationWarning`."""
    from importance_sampling.conditions import signals  # here, because strategies use `ModelWrapper`
    from importance_sampling.core import metric_updates
    from importance_sampling.strategies import indexed, pool

    former = {
        "ImportanceStep": pool.PoolStep,
        "RowStep": indexed.IndexedStep,
        "evaluate": metric_updates.update_from_pool,
        "fair_signals": signals.uniform_signals,
        "pool_signals": pool.pool_signals,
        "row_signals": signals.row_signals,
    }
    return renamed(__name__, name, former)
