"""Layers for users' own models: values per sample, and normalisations that don't lean on how a batch was drawn.

`LayerNormalization` and `GroupNormalization` are Keras's own. Their arguments differ from those of earlier versions of
the method's library: `LayerNormalization(axis=-1)` normalises over the axes that are named, with a scale and an offset
for each of their entries, where `axes` named those that were not averaged over, by default none but the batch, with a
single scale; `axis` as all axes but the first comes closest. `GroupNormalization(groups=32)` is given the number of
groups, where `G` was the number of channels in a group.
"""

from keras.layers import GroupNormalization, LayerNormalization

from importance_sampling.layers.batch_renormalization import BatchRenormalization
from importance_sampling.layers.gradient_norm import GradientNormLayer
from importance_sampling.layers.losses import LossLayer
from importance_sampling.layers.metrics import MetricLayer
from importance_sampling.layers.stats_batch_norm import StatsBatchNorm
from importance_sampling.layers.triplet import TripletLossLayer

__all__ = [
    "BatchRenormalization",
    "GradientNormLayer",
    "GroupNormalization",
    "LayerNormalization",
    "LossLayer",
    "MetricLayer",
    "StatsBatchNorm",
    "TripletLossLayer",
]
