"""Recurrent models for sequences."""

from __future__ import annotations

import keras
from keras import layers

from importance_sampling.models.heads import check, classifier


def lstm_lm(input_shape: tuple[int | None], output_size: int) -> keras.Model:
    """A language model: an embedding of size 64, an LSTM of 128 units, a softmax over the next word.

    The loss is sparse categorical cross-entropy; Adam with learning rate 0.001.

    Args:
        input_shape: `(context,)`, the number of words of x, int or None for any number; x contains word ids.
        output_size: int >= 2, the number of words in the vocabulary; y is a word id.

    Returns:
        A compiled `keras.Model`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> lstm_lm((20,), 10000).output_shape
        (None, 10000)
    """
    inputs = keras.Input(check(input_shape, output_size, (1,), "(context,)", least=2), dtype="int32")
    x = layers.Embedding(output_size, 64)(inputs)
    x = layers.LSTM(128)(x)
    logits = layers.Dense(output_size, name="logits")(x)
    model = keras.Model(inputs, layers.Activation("softmax", name="probabilities")(logits), name="lstm_lm")
    model.compile(keras.optimizers.Adam(0.001), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def lstm_mnist(input_shape: tuple[int | None, int], output_size: int) -> keras.Model:
    """An LSTM of 128 units over an image as a sequence, and a dense layer.

    Adam with learning rate 0.001; gradients are clipped to norm 1.

    Args:
        input_shape: `(steps, features)`: (784, 1) for pixels, (28, 28) for lines of pixels; steps may be None.
        output_size: int >= 1, the number of classes; 1 for a binary classifier.

    Returns:
        A compiled `keras.Model`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> lstm_mnist((784, 1), 10).output_shape
        (None, 10)

    Source: Le, Jaitly & Hinton, A Simple Way to Initialize Recurrent Networks of Rectified Linear Units, 2015
    (arXiv 1504.00941), section 4.2, for the task but not for the network.
    """
    inputs = keras.Input(check(input_shape, output_size, (2,), "(steps, features)"))
    x = layers.LSTM(128)(inputs)
    return classifier(inputs, x, output_size, keras.optimizers.Adam(0.001, clipnorm=1.0), "lstm_mnist")
