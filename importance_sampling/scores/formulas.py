"""The registry of formulas for the gradients of single samples with respect to the weights of a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from importance_sampling.backend.scopes import replaced_attribute

# gradients(layer, inputs, gradient) -> [(weight, gradients of the samples at the weight), ...]
SampleGradients = Callable[[keras.Layer, Any, Any], list[tuple[Any, Any]]]


class Formula(NamedTuple):
    """How a layer is called with a tensor tapped, and the gradients at its weights from the gradient at that tensor."""

    gradients: SampleGradients
    # call_tapped(layer, call, inputs, tap) -> (outputs, the `inputs` of `gradients`)
    call_tapped: Callable
    methods: tuple[str, ...]  # a subclass that overrides one of these needs a formula of its own


FORMULAS: dict[type, Formula] = {}


def register_sample_gradients(
    layer_class: type, pre_activation: bool = False, *, call_tapped: Callable | None = None, methods: tuple = ()
) -> Callable:
    """Return a decorator that registers a formula for each sample's gradient with respect to the weights of a layer.

    The formula is used for the class and for those of its subclasses that don't override `call`. It replaces any
    formula registered earlier. The layer must treat the samples of a batch independently. For weights that the formula
    doesn't return, the gradient of each sample is computed.

    The decorated function is called as `gradients(layer, inputs, gradient)`:

    - `inputs`: the first argument of `layer.call`, with one row per sample; half-precision tensors become float32.
    - `gradient`: float `(batch, ...)`, the gradient of the summed loss with respect to the output of the layer.

    It returns a list of pairs `(weight, gradients)`: a variable of the layer (a pair with None is ignored), and the
    samples' gradients with respect to that variable. These are a tensor `(batch, ...)` with the entries of the weight
    in any order, `OuterProducts` or `TokenGradients`. If the layer is called several times, the gradients are added.

    Args:
        layer_class: a subclass of `keras.Layer`.
        pre_activation: bool, default False. If True, the gradient is taken with respect to the argument of
            `layer.activation`, which `call` must apply once; if `layer.activation` is None, with respect to the output.
        call_tapped: function `(layer, call, inputs, tap) -> (outputs, inputs)`, which calls `call()` so that `tap` is
            applied to the tensor with respect to which the gradient is needed. Default: chosen by `pre_activation`.
        methods: names of further methods that a subclass mustn't override.

    Raises:
        ValueError: `layer_class` is not a subclass of `keras.Layer`.

    Example:
        >>> class Scale(keras.layers.Layer):
        ...     def build(self, shape):
        ...         self.factor = self.add_weight(shape=(shape[-1],), initializer="ones")
        ...
        ...     def call(self, inputs):
        ...         return inputs * self.factor
        >>> @register_sample_gradients(Scale)
        ... def scale_gradients(layer, inputs, gradient):
        ...     products = inputs * gradient  # (batch, ..., features)
        ...     return [(layer.factor, keras.ops.sum(products, axis=range(1, len(products.shape) - 1)))]
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.Layer)):
        raise ValueError(
            "`layer_class` must be a subclass of `keras.Layer`; write `@register_sample_gradients(MyLayer)` above the "
            f"formula. Received: layer_class={layer_class!r}"
        )
    call_tapped = call_tapped or (tap_pre_activation if pre_activation else tap_output)

    def register(gradients: SampleGradients) -> SampleGradients:
        FORMULAS[layer_class] = Formula(gradients, call_tapped, ("call", *methods))
        return gradients

    return register


def find_formula(layer: keras.Layer) -> Formula | None:
    """Return the formula of the closest class of a layer that has one; None if the layer computes something else."""
    for cls in type(layer).__mro__:
        if cls in FORMULAS:
            formula = FORMULAS[cls]
            is_same = all(getattr(type(layer), name) is getattr(cls, name) for name in formula.methods)
            return formula if is_same else None
    return None


def tap_output(layer: keras.Layer, call: Callable, inputs: Any, tap: Callable) -> tuple:
    """Call a layer with its output tapped."""
    return tap(call()), inputs


def tap_pre_activation(layer: keras.Layer, call: Callable, inputs: Any, tap: Callable) -> tuple:
    """Call a layer with the argument of its activation tapped."""
    activation = layer.activation
    if activation is None:
        return tap_output(layer, call, inputs, tap)
    with replaced_attribute(layer, "activation", lambda z: activation(tap(z))):
        return call(), inputs
