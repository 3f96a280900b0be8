"""Find the logits of a model: the inputs of its output activations, where the score "gnorm" takes its gradient.

The layers that compute the outputs are found in the model's graph, and their pre-activations are captured while the
model is called. Source: [KF18] (arXiv 1803.00942), equation 20, the gradient at the pre-activations of the last layer.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from importance_sampling.backend import keras_internals
from importance_sampling.backend.scopes import replaced_attribute
from importance_sampling.utils.numerics import at_least_float32
from importance_sampling.utils.warn import warn_caller

# Layers that apply `self.activation` last: its argument is the pre-activation.
_WITH_ACTIVATION = (
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
# Layers that only change the shape, or do nothing in inference mode.
_TRANSPARENT = (
    keras.layers.Reshape,
    keras.layers.Flatten,
    keras.layers.Permute,
    keras.layers.Identity,
    keras.layers.Dropout,
)


class Logits:
    """Find the logits (pre-activations) of a model's outputs, or of one layer, while the model is called.

    Args:
        model: a `keras.Model`.
        layer: a layer of the model, its name, or its index in `model.layers`. Default None, the layers that compute the
            outputs.
        warns: bool, default True: warn if a model's logits can't be found, which matters for gradients only.

    Raises:
        ValueError: `layer` is not in the model.

    Example:
        >>> logits = Logits(model)
        >>> tensors = []
        >>> y_pred = logits.tap(lambda: model(x), lambda z: tensors.append(z) or z)
        >>> len(tensors)  # one tensor per output
        1
    """

    def __init__(self, model: keras.Model, layer: keras.Layer | str | int | None = None, warns: bool = True):
        self.model = model
        self.layer = None if layer is None else find_layer(model, layer)
        self._warned = not warns

    def tap(self, call: Callable[[], Any], tap: Callable, as_float32: bool = False) -> Any:
        """Call the model with a function applied to its logits.

        If no logits can be captured, the function is applied to the logits that Keras attached to each output, or else
        to the output itself.

        Args:
            call: calls the model and returns its outputs.
            tap: function from a tensor to the tensor to continue with, as for `backend.differentiate`.
            as_float32: bool, default False. Cast logits in half precision to float32, so that the output activations,
                the loss and the gradients are computed in float32. Gradients in float16 underflow.

        Returns:
            The outputs of the model.

        Warns:
            UserWarning: once, if the function is applied to probabilities because no logits were found.
        """
        is_captured = False
        output_layers = _output_layers(self.model)
        is_output = self.layer is None or self.layer in output_layers

        def capture(z):
            nonlocal is_captured
            is_captured = True
            captured = tap(at_least_float32(z) if as_float32 else z)
            return captured if is_output else ops.cast(captured, z.dtype)  # an inner layer continues in its own dtype

        layers = [self.layer] if self.layer is not None else output_layers
        if None in layers:
            layers = []  # capture all outputs or none
        with contextlib.ExitStack() as stack:
            for layer in dict.fromkeys(layers):
                _intercept(layer, capture, stack)
            y_pred = call()
        if is_captured or self.layer is not None:
            return y_pred
        self._warn_of_probabilities(keras.tree.flatten(y_pred))
        return keras.tree.map_structure(lambda output: _tap_output(output, tap), y_pred)

    def _warn_of_probabilities(self, outputs: list) -> None:
        with_logits = sum(keras_internals.get_logits(y) is not None for y in outputs)
        losses = keras_internals.output_losses(self.model)
        if not self._warned and with_logits < sum(map(_expects_probabilities, losses)):
            self._warned = True
            warn_caller(
                'The score "gnorm" is computed at the probabilities that the model returns, because no logits were '
                "found. Gradients at probabilities overrate confident mistakes. Pass `layer=` with the layer that "
                "computes the logits, or end the model with a softmax or sigmoid activation."
            )


def _tap_output(output: Any, tap: Callable) -> Any:
    """Apply a function to the logits that are attached to an output, or else to the output, whose mask is kept."""
    logits = keras_internals.get_logits(output)
    if logits is not None:
        keras_internals.set_logits(output, tap(logits))
        return output
    mask, tapped = keras_internals.get_mask(output), tap(output)
    if mask is not None:
        keras_internals.set_mask(tapped, mask)
    return tapped


def find_layer(model: keras.Model, layer: keras.Layer | str | int) -> keras.Layer:
    """Return a layer of a model.

    Args:
        model: a `keras.Model`.
        layer: the layer itself, its name, or its index in `model.layers`. Layers inside other layers are found by name.

    Raises:
        ValueError: the layer is not in the model.
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


def _intercept(layer: keras.Layer, capture: Any, stack: contextlib.ExitStack) -> None:
    """Pass the pre-activations of a layer through `capture` until the stack is closed."""
    if isinstance(layer, keras.layers.TimeDistributed):
        # The inner layer runs once per time step. The activation is moved behind the joined time steps, which computes
        # the same values.
        activation, call = layer.layer.activation, layer.call
        stack.enter_context(replaced_attribute(layer.layer, "activation", lambda z: z))
        stack.enter_context(
            replaced_attribute(layer, "call", lambda *args, **kwargs: activation(capture(call(*args, **kwargs))))
        )
    elif isinstance(layer, _WITH_ACTIVATION):
        activation = layer.activation
        stack.enter_context(replaced_attribute(layer, "activation", lambda z: activation(capture(z))))
    elif isinstance(layer, keras.layers.Softmax):
        call = layer.call
        stack.enter_context(
            replaced_attribute(layer, "call", lambda z, *args, **kwargs: call(capture(z), *args, **kwargs))
        )
    else:
        call = layer.call
        stack.enter_context(replaced_attribute(layer, "call", lambda *args, **kwargs: capture(call(*args, **kwargs))))


def _output_layers(model: keras.Model) -> list:
    """Return for each output the layer that computes its activation, None if it can't be found in the graph.

    The list is empty for subclassed models and for models that aren't built.
    """
    try:
        outputs = keras.tree.flatten(model.outputs)
    except (AttributeError, ValueError):  # subclassed, or not built yet
        return []
    return [_output_layer(output) for output in outputs or []]


def _output_layer(tensor: Any) -> keras.Layer | None:
    """Walk the graph back from an output to the layer that computes its activation."""
    while True:
        operation, node, index = keras_internals.producer(tensor)
        if isinstance(operation, keras.Model):
            inner = keras.tree.flatten(getattr(operation, "outputs", None) or [])
            if index >= len(inner):
                return None
            tensor = inner[index]
        elif isinstance(operation, keras.layers.TimeDistributed):
            return operation if isinstance(operation.layer, _WITH_ACTIVATION) else None
        elif isinstance(operation, keras.layers.Activation) and operation.activation is keras.activations.linear:
            tensor = keras_internals.first_input(operation, node)
        elif isinstance(operation, (*_WITH_ACTIVATION, keras.layers.Softmax)):
            return operation
        elif isinstance(operation, _TRANSPARENT) or type(operation).__name__ in ("Cast", "Reshape", "Squeeze"):
            tensor = keras_internals.first_input(operation, node)
        else:
            return None


def _expects_probabilities(loss: Any) -> bool:
    """Return True if a loss is one of Keras's cross-entropies, configured for probabilities."""
    function = getattr(loss, "fn", None)
    if function is None or "from_logits" not in inspect.signature(function).parameters:
        return False
    return not keras_internals.loss_arguments(loss).get("from_logits", False)
