"""Compute the compiled loss of a model with one multiplier per sample.

A multiplier v, float `(batch,)`, scales the loss values of each sample before Keras applies masks and the reduction.
Importance weights enter the loss this way: v is multiplied into `sample_weight`, with the rank of the loss values. The
gradient with respect to v at 1 is the loss of each sample, for any compiled loss and any shape of user weights. Source:
`keras.src.trainers.compile_utils.CompileLoss` and `keras.src.losses.loss`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from importance_sampling.backend import keras_internals
from importance_sampling.core.loss_specs import LossSpec, LossSpecs, Unsupported, in_float32, per_sample, stateless
from importance_sampling.utils.numerics import FLOAT, at_least_float32_dtype

# multiplier(index of the compiled loss, loss of the output) -> float32 (batch,)
Multiplier = Callable[[int, "OutputLoss"], Any]


def reporting_failure(function: Callable) -> Callable:
    """Return a wrapper that converts all errors of a function to `Unsupported`: training can continue without it."""

    @functools.wraps(function)
    def wrapped(*args: Any) -> Any:
        try:
            return function(*args)
        except Unsupported:
            raise
        except Exception as error:
            message = str(error).strip().split("\n")[0]
            raise Unsupported(
                f"building an importance step for this model failed with {type(error).__name__}: {message}. If "
                "`model.fit` trains it, please report this error"
            ) from error

    return wrapped


class OutputLoss(NamedTuple):
    """The compiled loss of one output, for a batch."""

    spec: LossSpec
    entries: Any  # float32 (batch,), the number of valid entries of each sample; None without a mask or for a sum


class WeightedLoss(NamedTuple):
    """The loss of a batch."""

    total: Any  # scalar, the value to minimise
    value: Any  # the result of `compute_loss`: a vector with reduction=None, else the same scalar
    outputs: tuple[OutputLoss, ...]  # one per compiled loss
    scope: keras.StatelessScope  # holds the updated values of the loss trackers of the outputs

    @property
    def is_mean(self) -> bool:
        """True if the loss is a mean over the batch, False if it is a sum."""
        return any(output.spec.is_mean for output in self.outputs)

    def summed(self, rows: Any) -> Any:
        """Return the total as a sum over the `rows` samples; its gradients are those of single samples."""
        return self.total * (rows if self.is_mean else 1)


def weighted_loss(
    specs: LossSpecs,
    x: Any,
    y: Any,
    y_pred: Any,
    sample_weight: Any,
    multiplier: Multiplier | None,
    training: bool,
) -> WeightedLoss:
    """Return the result of `model.compute_loss` with the loss of each sample scaled by a multiplier.

    The variables of the model and its loss trackers don't change.

    Args:
        specs: the descriptions of the losses of a compiled model that has been built.
        x, y, y_pred, sample_weight: as for `model.compute_loss`.
        multiplier: called as `multiplier(index, output)` with the index of the compiled loss and its `OutputLoss`,
            returns float32 `(batch,)`. None applies no multiplier.
        training: bool, as for `model.compute_loss`. In inference mode losses in half precision are computed in float32.

    Returns:
        `WeightedLoss`.

    Raises:
        Unsupported: samples can't be weighted.
    """
    model = specs.model
    described = specs.describe(x, y, y_pred, sample_weight, training)
    losses = keras_internals.output_losses(model)
    outputs = tuple(
        OutputLoss(spec, _valid_entries(spec, loss, y, y_pred)) for spec, loss in zip(described, losses, strict=False)
    )
    if multiplier is not None:
        weights: dict[tuple, Any] = {}
        for index, output in enumerate(outputs):
            path = output.spec.path
            if path not in weights:  # several losses of one output share a weight
                weights[path] = combined_weights(
                    _resolve(sample_weight, path),
                    multiplier(index, output),
                    output.spec.shape,
                    at_least_float32_dtype(losses[index].dtype),
                )
        sample_weight = _nested(weights)
    with stateless(model) as scope, contextlib.nullcontext() if training else _float32_losses(model, losses):
        total = keras_internals.compute_loss(model, x, y, y_pred, sample_weight, training)
    # The result is a vector if reduction=None. Keras's step differentiates its sum.
    return WeightedLoss(ops.sum(total), total, outputs, scope)


def combined_weights(sample_weight: Any, multiplier: Any, shape: tuple, dtype: str) -> Any:
    """Multiply a multiplier into the user's weights, so that Keras scales the loss values of each sample by it.

    Args:
        sample_weight: float `(batch, ...)`, in any shape that Keras accepts for the loss values; None for weights of 1.
        multiplier: float `(batch,)`.
        shape: the static shape of the loss values of one sample.
        dtype: of the product.

    Returns:
        `(batch, ...)` with the rank of the loss values.
    """
    rank = 1 + len(shape)
    multiplier = ops.cast(per_sample(multiplier, rank), dtype)
    if sample_weight is None:
        return multiplier
    weight = ops.cast(sample_weight, dtype)
    # As `squeeze_or_expand_to_same_rank` of Keras; other ranks are broadcast.
    if len(weight.shape) == rank - 1 and shape[-1] == 1:
        weight = ops.expand_dims(weight, -1)
    elif len(weight.shape) == rank + 1 and weight.shape[-1] == 1:
        weight = ops.squeeze(weight, -1)
    return weight * multiplier


def _resolve(sample_weight: Any, path: tuple) -> Any:
    """Return the user's weights of the output at a path, as Keras finds them."""
    if keras.tree.is_nested(sample_weight):
        for key in path:
            sample_weight = sample_weight[key]
    return sample_weight


def _nested(by_path: dict[tuple, Any]) -> Any:
    """Return a structure of lists and dicts with values at their paths; items of lists without a value are None."""
    if () in by_path:
        return by_path[()]
    children: dict[str | int, dict[tuple, Any]] = {}
    for (key, *rest), value in by_path.items():
        children.setdefault(key, {})[tuple(rest)] = value
    if all(isinstance(key, int) for key in children):
        return [_nested(children[key]) if key in children else None for key in range(max(children) + 1)]
    return {key: _nested(child) for key, child in children.items()}


def _float32_losses(model: keras.Model, losses: list) -> contextlib.AbstractContextManager:
    """Compute losses in half precision in float32 inside this context."""
    if all(in_float32(loss) is loss for loss in losses):
        return contextlib.nullcontext()
    return keras_internals.replaced_losses(model, in_float32)


def _valid_entries(spec: LossSpec, loss: keras.losses.Loss, y: Any, y_pred: Any) -> Any:
    """Return the number of valid entries of each sample, float32 `(batch,)`; None without a mask or for a sum."""
    if not spec.is_mean or not (spec.is_masked or spec.masks_itself):
        return None
    output = keras.tree.flatten(y_pred)[spec.output]
    masks = [keras_internals.get_mask(output)] if spec.is_masked else []
    if spec.masks_itself:
        loss = in_float32(loss)
        arguments = [ops.convert_to_tensor(t, dtype=loss.dtype) for t in (keras.tree.flatten(y)[spec.target], output)]
        masks.append(keras_internals.get_mask(loss.call(*arguments)))
    mask = functools.reduce(ops.multiply, [ops.cast(mask, FLOAT) for mask in masks])
    return ops.sum(ops.reshape(mask, (ops.shape(mask)[0], -1)), axis=1)
