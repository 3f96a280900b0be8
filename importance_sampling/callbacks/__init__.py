"""Keras callbacks that record how samples are drawn and learnt, write to TensorBoard, and measure the training time."""

from importance_sampling.callbacks.base import SamplingCallback
from importance_sampling.callbacks.dynamics import TrainingDynamics
from importance_sampling.callbacks.recorder import SamplingRecorder
from importance_sampling.callbacks.seconds import TrainingSeconds
from importance_sampling.callbacks.tensorboard import SamplingTensorBoard

__all__ = ["SamplingCallback", "SamplingRecorder", "SamplingTensorBoard", "TrainingDynamics", "TrainingSeconds"]
