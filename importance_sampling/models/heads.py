"""Functions that all builders use: argument checks, output layers and compilation."""

from __future__ import annotations

from typing import Any

import keras


def check(input_shape: Any, output_size: Any, axes: tuple[int, ...], description: str, least: int = 1) -> tuple:
    """Check the arguments of a builder.

    Args:
        input_shape: tuple, the shape of one sample.
        output_size: int, the number of outputs.
        axes: tuple of ints, the allowed numbers of axes of `input_shape`; () allows any number above 0.
        description: str, the expected shape, for the error message.
        least: int, the minimum of `output_size`.

    Returns:
        `input_shape` as a tuple.

    Raises:
        ValueError: an argument has the wrong type or is out of range.
    """
    shape = tuple(input_shape) if isinstance(input_shape, (tuple, list)) else ()
    if not shape or (axes and len(shape) not in axes):
        raise ValueError(
            f"`input_shape` must be a tuple, the shape of one sample, {description}. "
            f"Received: input_shape={input_shape!r}"
        )
    if not isinstance(output_size, int) or isinstance(output_size, bool) or output_size < least:
        raise ValueError(f"`output_size` must be an int of at least {least}. Received: output_size={output_size!r}")
    return shape


def classifier(
    inputs: Any, features: Any, output_size: int, optimizer: keras.Optimizer, name: str, regularizer: Any = None
) -> keras.Model:
    """Return a compiled classifier with a dense output layer.

    Args:
        inputs: `keras.Input`.
        features: Keras tensor `(batch, d)`.
        output_size: int, the number of classes; 1 for a binary classifier.
        optimizer: `keras.Optimizer`.
        name: str, the name of the model.
        regularizer: regularizer of the kernel of the output layer, or None.
    """
    logits = keras.layers.Dense(output_size, kernel_regularizer=regularizer, name="logits")(features)
    return from_logits(inputs, logits, optimizer, name)


def from_logits(inputs: Any, logits: Any, optimizer: keras.Optimizer, name: str) -> keras.Model:
    """Return a compiled classifier with the given logits `(batch, output_size)`; see `classifier`."""
    binary = logits.shape[-1] == 1
    outputs = keras.layers.Activation("sigmoid" if binary else "softmax", name="probabilities")(logits)
    model = keras.Model(inputs, outputs, name=name)
    loss = "binary_crossentropy" if binary else "categorical_crossentropy"
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def flattened(x: Any) -> Any:
    """Flatten a tensor to `(batch, d)`."""
    return x if len(x.shape) == 2 else keras.layers.Flatten()(x)
