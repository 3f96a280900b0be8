"""Layers for losses, metrics and gradient norms per sample, and normalisation layers for importance sampling.

`LayerNormalization` and `GroupNormalization` are Keras's layers. Their arguments differ from those of
importance_sampling 0.10: `LayerNormalization(axis=...)` names the axes to normalise over, and has one scale and one
offset for each entry of these axes. The old argument `axes` named the axes not to normalise over (default: the batch
axis), and the layer had one scale. The closest replacement is `axis` with all axes but the first.
`GroupNormalization(groups=32)` takes the number of groups; the old argument `G` was the number of channels per group.
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
