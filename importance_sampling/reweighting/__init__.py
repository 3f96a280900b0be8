"""Reweighting policies: the correction that keeps the gradient estimate honest, or leans on purpose."""

from importance_sampling.reweighting.base import ReweightingPolicy, WeightLayer
from importance_sampling.reweighting.measured import AdjustedBiasedReweightingPolicy, CorrectingReweightingPolicy
from importance_sampling.reweighting.predicted import (
    UNBIASED,
    UNWEIGHTED,
    BiasedReweightingPolicy,
    NoReweightingPolicy,
)

__all__ = [
    "UNBIASED",
    "UNWEIGHTED",
    "AdjustedBiasedReweightingPolicy",
    "BiasedReweightingPolicy",
    "CorrectingReweightingPolicy",
    "NoReweightingPolicy",
    "ReweightingPolicy",
    "WeightLayer",
]
