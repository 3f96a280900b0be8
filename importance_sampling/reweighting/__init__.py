"""Reweighting policies: compute the weights of a batch, for an unbiased or a deliberately biased gradient estimate.

Policies need NumPy only. Keras is imported for `WeightLayer`.
"""

import sys
from typing import TYPE_CHECKING, Any

from importance_sampling.reweighting.base import ReweightingPolicy
from importance_sampling.reweighting.importance_weights import (
    UNBIASED,
    UNWEIGHTED,
    BiasedReweightingPolicy,
    NoReweightingPolicy,
)
from importance_sampling.reweighting.measured import AdjustedBiasedReweightingPolicy, CorrectingReweightingPolicy

if TYPE_CHECKING or sys.modules.get("keras") is not None:  # models that contain a `WeightLayer` can be loaded
    from importance_sampling.reweighting.weight_layer import WeightLayer

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


def __getattr__(name: str) -> Any:
    """Import `WeightLayer` when it is first used."""
    if name != "WeightLayer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importance_sampling.reweighting.weight_layer import WeightLayer

    return WeightLayer


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
