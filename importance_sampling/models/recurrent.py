"""Recurrent models of sequences."""

from __future__ import annotations

import keras
from keras import layers

from importance_sampling.models.heads import check, classifier


def lstm_lm(input_shape: tuple[int | None], output_size: int) -> keras.Model:
    """A language model: an embedding of 64, an LSTM of 128, a softmax over the next word; Adam at 0.001.

    Args:
        input_shape: `(context,)`, the words in a row, int or None for any number; x are word ids.
        output_size: int >= 2, the number of words in the vocabulary; y are word ids, under a sparse cross-entropy.

    Returns:
        A compiled `keras.Model`.

    Raises:
        ValueError: an argument is out of its range.

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
    """An LSTM of 128 over an image read as a sequence, and a dense layer; Adam at 0.001, gradients clipped at norm 1.

    Args:
        input_shape: `(steps, features)`: (784, 1) for pixels, (28, 28) for rows of pixels; steps may be None.
        output_size: int >= 1, the number of classes; 1 for a binary classifier.

    Returns:
        A compiled `keras.Model`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> lstm_mnist((784, 1), 10).output_shape
        (None, 10)

    Source: the task is that of Le, Jaitly & Hinton, A Simple Way to Initialize Recurrent Networks of Rectified Linear
    Units, 2015 (arXiv 1504.00941), section 4.2; the network is ours.
    """
    inputs = keras.Input(check(input_shape, output_size, (2,), "(steps, features)"))
    x = layers.LSTM(128)(inputs)
    return classifier(inputs, x, output_size, keras.optimizers.Adam(0.001, clipnorm=1.0), "lstm_mnist")
