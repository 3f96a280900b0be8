"""How every builder begins and ends: the arguments checked, an output with its loss, the model compiled."""

from __future__ import annotations

from typing import Any

import keras


def check(input_shape: Any, output_size: Any, axes: tuple[int, ...], kind: str, least: int = 1) -> tuple:
    """Check a builder's arguments.

    Args:
        input_shape: tuple, of one row.
        output_size: int.
        axes: how many axes `input_shape` may have; () for any but none.
        kind: what rows must be, for the error.
        least: int, the least output_size.

    Returns:
        `input_shape` as a tuple.

    Raises:
        ValueError: they are of the wrong kind or out of their range.
    """
    shape = tuple(input_shape) if isinstance(input_shape, (tuple, list)) else ()
    if not shape or (axes and len(shape) not in axes):
        raise ValueError(
            f"`input_shape` must be a tuple, the shape of one row, {kind}. Received: input_shape={input_shape!r}"
        )
    if not isinstance(output_size, int) or isinstance(output_size, bool) or output_size < least:
        raise ValueError(f"`output_size` must be an int of at least {least}. Received: output_size={output_size!r}")
    return shape


def classifier(
    inputs: Any, features: Any, output_size: int, optimizer: keras.Optimizer, name: str, regularizer: Any = None
) -> keras.Model:
    """A compiled classifier with a dense layer on top.

    Args:
        inputs: `keras.Input`.
        features: Keras tensor `(batch, d)`.
        output_size: int; 1 makes it binary.
        optimizer: `keras.Optimizer`.
        name: str, of the model.
        regularizer: of the dense layer's kernel, or None.
    """
    logits = keras.layers.Dense(output_size, kernel_regularizer=regularizer, name="logits")(features)
    return from_logits(inputs, logits, optimizer, name)


def from_logits(inputs: Any, logits: Any, optimizer: keras.Optimizer, name: str) -> keras.Model:
    """A compiled classifier of logits `(batch, output_size)`, as `classifier`."""
    binary = logits.shape[-1] == 1
    outputs = keras.layers.Activation("sigmoid" if binary else "softmax", name="probabilities")(logits)
    model = keras.Model(inputs, outputs, name=name)
    loss = "binary_crossentropy" if binary else "categorical_crossentropy"
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def flattened(x: Any) -> Any:
    """A tensor `(batch, d)`."""
    return x if len(x.shape) == 2 else keras.layers.Flatten()(x)
