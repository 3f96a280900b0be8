"""Compute the norm of each sample's gradient at all trainable weights, from one backward pass without them.

The backward pass gives the gradients at the outputs (pre-activations) of the layers. With the inputs of the layers,
formulas (`importance_sampling.scores`) give the norms of the gradients at most weights. Gradients of a weight that is
used by several calls of a layer are added before the norm is taken. All other weights are differentiated for each
sample, `FALLBACK_SLICE` samples at once: those without a formula, and those that several layers share. For these, only
the layers that use them are computed again, once per sample.

Source: Goodfellow, Efficient Per-Example Gradient Computations, 2015 (arXiv 1510.01799).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.core.layer_calls import LayerCall
from importance_sampling.core.weighted_loss import stateless
from importance_sampling.scores.weight_gradients import DenseGradients
from importance_sampling.utils.numerics import FLOAT, at_least_float32

FALLBACK_SLICE = 32  # samples, whose gradients at a weight are in memory at once


def exact_norms(model: keras.Model, calls: Sequence[LayerCall], gradients: Sequence[Any], rows: int) -> Any:
    """Return the norm of each sample's gradient at the weights that the recorded calls have read.

    Args:
        model: the `keras.Model` whose layers were called.
        calls: the calls of its layers.
        gradients: the gradients of the summed loss at the tapped tensors, float `(rows, ...)`, or None.
        rows: int, the number of samples.

    Returns:
        float32 `(rows,)`; None if all weights must be differentiated for each sample: if a weight without a formula is
        read in a call and in another one that it makes (repeated by itself, the outer call would differentiate it a
        second time), or after the tensor that a formula has tapped (the gradient there says nothing of such a weight).
    """
    # By number, which a call knows the calls inside it by: JAX copies the calls themselves.
    used = {n: call for n, call in enumerate(calls) if any(gradients[position] is not None for position in call.tapped)}
    parts: dict[int, list] = {}
    for call in used.values():
        for weight, gradient in _weight_gradients(call, gradients):
            parts.setdefault(id(weight), []).append(gradient)
    squares, others = [ops.zeros((rows,), dtype=FLOAT)], []
    weights = {id(weight): weight for call in used.values() for weight in call.weights}
    for key, weight in weights.items():
        readers = [call for call in used.values() if any(weight is read for read in call.weights)]
        found = parts.get(key, [])
        if len(found) == len(readers) and all(call.layer is readers[0].layer for call in readers):
            total = found[0] if len(found) == 1 else type(found[0]).sum(found)
            squares.append(ops.cast(total.squared_norms(), FLOAT))
        else:
            others.append(weight)
    if others:
        users = {n: one for n, one in used.items() if any(weight is read for weight in others for read in one.weights)}
        is_repeated = any(inner in users for outer in users.values() for inner in outer.inside)
        if is_repeated or any(weight is late for weight in others for user in users.values() for late in user.late):
            return None
        squares.append(ops.square(_norms_by_sample(model, list(users.values()), gradients, others, rows)))
    return ops.sqrt(sum(squares[1:], squares[0]))


def norms_by_sample(sample_loss: Callable, leaves: list, weights: Sequence[Any], layers: Sequence[keras.Layer]) -> Any:
    """Return the norm of each sample's gradient of a loss, from a gradient per sample.

    Args:
        sample_loss: function from the leaves of one sample to its loss.
        leaves: tensors with one row per sample.
        weights: the variables to differentiate at.
        layers: the layers that the loss calls.

    Returns:
        float32 `(rows,)`.
    """
    # TensorFlow can't vectorise the gradients of loops.
    has_loop = any(
        isinstance(inner, keras.layers.RNN) for layer in layers for inner in keras_internals.layers_of(layer)
    )

    def norms(leaves: list) -> Any:
        return backend.per_sample_grad_norms(sample_loss, leaves, weights, not has_loop)

    rows = leaves[0].shape[0]
    return backend.map_chunks(norms, leaves, rows, min(FALLBACK_SLICE, rows))


def _weight_gradients(call: LayerCall, gradients: Sequence[Any]) -> list[tuple]:
    """Return pairs of a weight that a call has read and its gradients, which the formula of the layer gives."""
    if call.formula is None:
        return []
    inputs = keras.tree.map_structure(_as_float32, call.inputs)
    found = call.formula.gradients(call.layer, inputs, at_least_float32(gradients[call.tapped[0]]))
    return [
        (weight, gradient if hasattr(gradient, "squared_norms") else DenseGradients(gradient))
        for weight, gradient in found
        if any(weight is read for read in call.weights)
    ]


def _as_float32(leaf: Any) -> Any:
    """Return a tensor densely, in float32 if it is in half precision."""
    if not hasattr(leaf, "dtype"):
        return leaf
    tensor = ops.convert_to_tensor(leaf, sparse=False)
    return at_least_float32(tensor) if keras.backend.is_float_dtype(tensor.dtype) else tensor


def _norms_by_sample(
    model: keras.Model, users: Sequence[LayerCall], gradients: Sequence[Any], weights: list, rows: int
) -> Any:
    """Return the norm of each sample's gradient at weights, from the gradients at the outputs of their users."""
    positions = [position for call in users for position in call.tapped if gradients[position] is not None]
    arguments = [leaf for call in users for leaf in call.leaves_with_rows]
    leaves = [*arguments, *(gradients[position] for position in positions)]

    def sample_loss(sample: list) -> Any:
        """Return the product of the tapped tensors and the gradients at them, whose gradient is that of the loss."""
        remaining, tapped = iter(sample), {}
        with stateless(model):
            for call in users:
                tapped.update(zip(call.tapped, call.repeat(remaining), strict=True))
        products = [
            ops.sum(at_least_float32(tapped[position]) * at_least_float32(gradient))
            for position, gradient in zip(positions, remaining, strict=True)
        ]
        return sum(products[1:], products[0])

    return norms_by_sample(sample_loss, leaves, weights, [call.layer for call in users])
