"""Samplers: select the samples of a batch and compute their importance weights. One file per method.

`BaseSampler` and its subclasses draw row indices on the host. `PoolSampler` draws from a pool inside a compiled step.
"""

from importance_sampling.samplers.base import BaseSampler, Drawn
from importance_sampling.samplers.cache import CacheSampler
from importance_sampling.samplers.conditional import ConditionalStartSampler
from importance_sampling.samplers.constant import ConstantTimeSampler, ConstantVarianceSampler
from importance_sampling.samplers.decorator import SamplerDecorator
from importance_sampling.samplers.history import HistorySampler
from importance_sampling.samplers.lstm import LSTMComparisonSampler, LSTMSampler
from importance_sampling.samplers.model import ModelSampler
from importance_sampling.samplers.online_batch_selection import OnlineBatchSelectionSampler
from importance_sampling.samplers.per_class import PerClassGaussian
from importance_sampling.samplers.pool import Picked, PoolSampler
from importance_sampling.samplers.quota import QuotaSampler
from importance_sampling.samplers.reshuffle import ReshuffleSampler
from importance_sampling.samplers.robust import RobustSampler
from importance_sampling.samplers.scsg import SCSGSampler
from importance_sampling.samplers.selective import HighestSampler, RankSampler
from importance_sampling.samplers.skipping import SkippingSampler
from importance_sampling.samplers.smoothing import (
    AdaptiveAdditiveSmoothingSampler,
    AdditiveSmoothingSampler,
    PowerSmoothingSampler,
)
from importance_sampling.samplers.uniform import UniformSampler

__all__ = [
    "AdaptiveAdditiveSmoothingSampler",
    "AdditiveSmoothingSampler",
    "BaseSampler",
    "CacheSampler",
    "ConditionalStartSampler",
    "ConstantTimeSampler",
    "ConstantVarianceSampler",
    "Drawn",
    "HighestSampler",
    "HistorySampler",
    "LSTMComparisonSampler",
    "LSTMSampler",
    "ModelSampler",
    "OnlineBatchSelectionSampler",
    "PerClassGaussian",
    "Picked",
    "PoolSampler",
    "PowerSmoothingSampler",
    "QuotaSampler",
    "RankSampler",
    "ReshuffleSampler",
    "RobustSampler",
    "SCSGSampler",
    "SamplerDecorator",
    "SkippingSampler",
    "UniformSampler",
]
