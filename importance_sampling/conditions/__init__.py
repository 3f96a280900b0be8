"""Conditions: decide whether training uses importance sampling.

Decisions depend on scores, the learning rate and the number of steps, so the same seed gives the same weights in every
run.
"""

from typing import Any

from importance_sampling.conditions.base import Condition, GateContext, ScoreCondition, step_cost
from importance_sampling.conditions.gates import GainCondition
from importance_sampling.conditions.loss_trend import LossComparison, LossTrend
from importance_sampling.conditions.published import VarianceReductionCondition, gate
from importance_sampling.conditions.signals import Signals, measured_variance_gain, moving_average, tau, variance_gain
from importance_sampling.conditions.simple import ExpCondition, TotalVariationCondition, WarmupCondition
from importance_sampling.utils.warn import renamed

RENAMED = {
    "GrowthCondition": GainCondition,
    "Terms": GateContext,
    "growth": variance_gain,
    "measured_growth": measured_variance_gain,
}
__all__ = [
    "Condition",
    "ExpCondition",
    "GainCondition",
    "GateContext",
    "LossComparison",
    "LossTrend",
    "ScoreCondition",
    "Signals",
    "TotalVariationCondition",
    "VarianceReductionCondition",
    "WarmupCondition",
    "gate",
    "measured_variance_gain",
    "moving_average",
    "step_cost",
    "tau",
    "variance_gain",
]


def __getattr__(name: str) -> Any:
    """Return an object by its former name, with a `DeprecationWarning`."""
    return renamed(__name__, name, RENAMED)
