"""The registry of model builders."""

from __future__ import annotations

from collections.abc import Callable

import keras

from importance_sampling.models.convolutional import all_conv, cnn, elu_cnn, small_cnn
from importance_sampling.models.dense import lr, small_nn, svrg_nn
from importance_sampling.models.pretrained import pretrained_resnet50
from importance_sampling.models.recurrent import lstm_lm, lstm_mnist
from importance_sampling.models.residual import wide_resnet

BUILDERS: dict[str, Callable[[tuple, int], keras.Model]] = {
    "small_nn": small_nn,
    "small_cnn": small_cnn,
    "cnn": cnn,
    "all_conv": all_conv,
    "elu_cnn": elu_cnn,
    "lr": lr,
    "svrg_nn": svrg_nn,
    "lstm_lm": lstm_lm,
    "lstm_mnist": lstm_mnist,
    "wide_resnet_28_2": wide_resnet(28, 2),
    "pretrained_resnet50": pretrained_resnet50,
}


def get(name: str) -> Callable[[tuple, int], keras.Model]:
    """Return a model builder by name.

    Args:
        name: "small_nn", "small_cnn", "cnn", "all_conv", "elu_cnn", "lr", "svrg_nn", "lstm_lm", "lstm_mnist",
            "wide_resnet_28_2" or "pretrained_resnet50".

    Returns:
        A function `(input_shape, output_size)` -> compiled `keras.Model`; pass the attributes `shape` and `output_size`
        of a dataset. Classifiers have a softmax output and the loss categorical cross-entropy; with one output, a
        sigmoid and binary cross-entropy.

    Raises:
        ValueError: the name is unknown.

    Example:
        >>> model = get("small_nn")((784,), 10)
        >>> model.output_shape
        (None, 10)
    """
    if name not in BUILDERS:
        raise ValueError(f"`name` must be one of {', '.join(BUILDERS)}. Received: name={name!r}")
    return BUILDERS[name]
