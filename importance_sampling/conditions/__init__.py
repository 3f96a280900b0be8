"""Conditions: decide whether importance sampling is used.

Decisions depend on scores only, so that the same seed gives the same weights on every machine. The exception is
`MeasuredCost`, which depends on the time of steps.
"""

from importance_sampling.conditions.base import Condition, ScoreCondition, Terms
from importance_sampling.conditions.cost import Cost, MeasuredCost
from importance_sampling.conditions.gates import GrowthCondition, VarianceReductionCondition, gate
from importance_sampling.conditions.signals import Signals, growth, measured_growth, moving_average, tau
from importance_sampling.conditions.simple import ExpCondition, TotalVariationCondition, WarmupCondition

__all__ = [
    "Condition",
    "Cost",
    "ExpCondition",
    "GrowthCondition",
    "MeasuredCost",
    "ScoreCondition",
    "Signals",
    "Terms",
    "TotalVariationCondition",
    "VarianceReductionCondition",
    "WarmupCondition",
    "gate",
    "growth",
    "measured_growth",
    "moving_average",
    "tau",
]
