"""Finding z: the tensor, ahead of the last activation, at which the per-sample gradient of `gnorm` is taken.

Source: [KF18] (arXiv 1803.00942), equation 20, the gradient at the last layer's pre-activations. This module finds
the layers and catches the tensors while a model is called; it takes no gradient.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from importance_sampling.backend import keras_internals
from importance_sampling.utils.numerics import at_least_float32

# Layers that apply `self.activation` last, so that what they hand to it is the pre-activation.
_ACTIVATED = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Activation,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
# Layers that only rearrange or recast, or do nothing when not training.
_TRANSPARENT = (
    keras.layers.Reshape,
    keras.layers.Flatten,
    keras.layers.Permute,
    keras.layers.Identity,
    keras.layers.Dropout,
)


class PreActivations:
    """Catches the pre-activations of a model's outputs, or of one layer, while the model is called.

    Args:
        model: a `keras.Model`.
        layer: None for the outputs, or a layer, its name or its index in `model.layers`.

    Raises:
        ValueError: `layer` is not in the model.

    Example:
        >>> points = PreActivations(model)
        >>> with points.caught() as z:
        ...     y_pred = model(x)
        >>> points.of(y_pred, z)  # one tensor per output
    """

    def __init__(self, model: keras.Model, layer: keras.Layer | str | int | None = None):
        self.model = model
        self.layer = None if layer is None else find_layer(model, layer)
        self._warned = False

    @contextlib.contextmanager
    def caught(self, in_float: bool = False) -> Iterator[list]:
        """While open, calls of the model append their pre-activations to the list that this yields.

        Args:
            in_float: bool, default False; cast pre-activations in half precision to float32, and with them those of the
                outputs' activations and the loss, ahead of the differentiation: float16 gradients underflow.
        """
        points: list = []
        heads = _heads(self.model)
        is_output = self.layer is None or self.layer in heads

        def catch(z):
            point = at_least_float32(z) if in_float else z
            points.append(point)
            return point if is_output else ops.cast(point, z.dtype)  # inside, the model goes on in its own dtype

        heads = [self.layer] if self.layer is not None else heads
        if None in heads:
            heads = []  # all outputs count, or none is caught: then they are taken as they come, in `of`
        with contextlib.ExitStack() as stack:
            for head in dict.fromkeys(heads):
                _tap(head, catch, stack)
            yield points

    def of(self, y_pred: Any, points: list) -> list:
        """The tensors to differentiate at: those that were caught, else the logits that Keras hangs on an output."""
        outputs = keras.tree.flatten(y_pred)
        if points or self.layer is not None:
            return points
        if not self._warned and any(
            keras_internals.get_logits(y) is None and _wants_probabilities(loss)
            for y, loss in zip(outputs, keras_internals.output_losses(self.model), strict=False)
        ):
            self._warned = True
            warnings.warn(
                'The score "gnorm" is taken at the probabilities that the model returns, not at the logits ahead of '
                "them: none were found, and gradients at probabilities favour confident mistakes. Pass "
                "`layer=` with the layer that makes the logits, or end the model in a softmax or sigmoid activation.",
                stacklevel=2,
            )
        logits = map(keras_internals.get_logits, outputs)
        return [y if z is None else z for y, z in zip(outputs, logits, strict=True)]


def find_layer(model: keras.Model, layer: keras.Layer | str | int) -> keras.Layer:
    """The layer that the user means: itself, by name, or by index.

    Raises:
        ValueError: it is not in the model.
    """
    layers = keras_internals.layers_of(model, include_self=False)
    is_index = isinstance(layer, int) and not isinstance(layer, bool)
    if is_index and -len(model.layers) <= layer < len(model.layers):
        return model.layers[layer]
    for candidate in layers:
        if candidate is layer or (isinstance(layer, str) and candidate.name == layer):
            return candidate
    raise ValueError(
        "`layer` must be a layer of the model, its name, or its index in `model.layers`: one of "
        f"{[candidate.name for candidate in layers]}. Received: layer={layer!r}"
    )


def _tap(head: keras.Layer, catch: Any, stack: contextlib.ExitStack) -> None:
    """Have `catch` see what `head` computes ahead of its activation, until the stack unwinds."""
    if isinstance(head, keras.layers.TimeDistributed):
        # The inner layer runs step by step; activating the joined steps afterwards is the same, and in reach.
        activation, call = head.layer.activation, head.call
        stack.enter_context(swapped(head.layer, "activation", lambda z: z))
        stack.enter_context(swapped(head, "call", lambda *args, **kwargs: activation(catch(call(*args, **kwargs)))))
    elif isinstance(head, _ACTIVATED):
        activation = head.activation
        stack.enter_context(swapped(head, "activation", lambda z: activation(catch(z))))
    elif isinstance(head, keras.layers.Softmax):
        call = head.call
        stack.enter_context(swapped(head, "call", lambda z, *args, **kwargs: call(catch(z), *args, **kwargs)))
    else:
        call = head.call
        stack.enter_context(swapped(head, "call", lambda *args, **kwargs: catch(call(*args, **kwargs))))


@contextlib.contextmanager
def swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an object another attribute while open, and leave none behind that it did not have itself."""
    own, before = name in vars(owner), getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


def _heads(model: keras.Model) -> list:
    """For every output the layer that activates it; None where the model's graph doesn't tell."""
    try:
        outputs = keras.tree.flatten(model.outputs)
    except (AttributeError, ValueError):  # subclassed, or not built yet
        return []
    return [_head(output) for output in outputs or []]


def _head(tensor: Any) -> keras.Layer | None:
    """Walk back from an output to the layer that activates it."""
    while True:
        operation, node, index = keras_internals.producer(tensor)
        if isinstance(operation, keras.Model):
            inner = keras.tree.flatten(getattr(operation, "outputs", None) or [])
            if index >= len(inner):
                return None
            tensor = inner[index]
        elif isinstance(operation, keras.layers.TimeDistributed):
            return operation if isinstance(operation.layer, _ACTIVATED) else None
        elif isinstance(operation, keras.layers.Activation) and operation.activation is keras.activations.linear:
            tensor = keras_internals.first_input(operation, node)
        elif isinstance(operation, (*_ACTIVATED, keras.layers.Softmax)):
            return operation
        elif isinstance(operation, _TRANSPARENT) or type(operation).__name__ in ("Cast", "Reshape", "Squeeze"):
            tensor = keras_internals.first_input(operation, node)
        else:
            return None


def _wants_probabilities(loss: Any) -> bool:
    """Whether a loss is one of Keras's cross-entropies, of probabilities."""
    function = getattr(loss, "fn", None)
    if function is None or "from_logits" not in inspect.signature(function).parameters:
        return False
    return not keras_internals.loss_arguments(loss).get("from_logits", False)
