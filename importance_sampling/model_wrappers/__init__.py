"""The steps on the user's own model. One file an idea."""

from importance_sampling.model_wrappers.figures import evaluate
from importance_sampling.model_wrappers.importance import ImportanceStep, Probe, pool_signals

__all__ = ["ImportanceStep", "Probe", "evaluate", "pool_signals"]
