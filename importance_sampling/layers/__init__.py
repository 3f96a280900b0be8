"""Layers for users' own models: values per sample, and normalisations that don't lean on how a batch was drawn."""

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
