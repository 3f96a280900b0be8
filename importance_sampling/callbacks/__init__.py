"""Keras callbacks for the `callbacks` of a trainer's `fit`: what was drawn, by sample and in TensorBoard."""

from importance_sampling.callbacks.base import SamplingCallback
from importance_sampling.callbacks.recorder import SamplingRecorder
from importance_sampling.callbacks.seconds import TrainingSeconds
from importance_sampling.callbacks.tensorboard import SamplingTensorBoard

__all__ = ["SamplingCallback", "SamplingRecorder", "SamplingTensorBoard", "TrainingSeconds"]
