"""Reweighting policies: compute the weights of a batch, for an unbiased or a deliberately biased gradient estimate."""

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
