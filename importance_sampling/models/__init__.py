"""Builders of example models: `get(name)(input_shape, output_size)` returns a compiled `keras.Model`."""

from importance_sampling.models.convolutional import all_conv, cnn, elu_cnn, small_cnn
from importance_sampling.models.dense import lr, small_nn, svrg_nn
from importance_sampling.models.pretrained import pretrained_resnet50
from importance_sampling.models.recurrent import lstm_lm, lstm_mnist
from importance_sampling.models.registry import get
from importance_sampling.models.residual import wide_resnet

__all__ = [
    "all_conv",
    "cnn",
    "elu_cnn",
    "get",
    "lr",
    "lstm_lm",
    "lstm_mnist",
    "pretrained_resnet50",
    "small_cnn",
    "small_nn",
    "svrg_nn",
    "wide_resnet",
]
