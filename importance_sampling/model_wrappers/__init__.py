"""The steps on the user's own model. One file an idea."""

from importance_sampling.model_wrappers.figures import evaluate
from importance_sampling.model_wrappers.importance import ImportanceStep, Probe, pool_signals
from importance_sampling.model_wrappers.rows import RowStep, fair_signals, row_signals

__all__ = ["ImportanceStep", "Probe", "RowStep", "evaluate", "fair_signals", "pool_signals", "row_signals"]
