"""Describe the compiled losses of a model: the shape of their values, their reductions and their masks.

A description is static. It is found by computing the loss once with copies of the compiled losses that record the
shapes of their values. Steps use it to put weights into `sample_weight` (`core/weighted_loss.py`) and replace no loss.
Source: `keras.src.trainers.compile_utils.CompileLoss` and `keras.src.losses.loss`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from importance_sampling.backend import keras_internals
from importance_sampling.utils.numerics import at_least_float32_dtype


class Unsupported(ValueError):
    """Samples of this model can't be weighted one by one. The message gives the reason and the remedy."""


class LossSpec(NamedTuple):
    """The static description of the compiled loss of one output."""

    path: tuple[str | int, ...]  # the place of the output in `y_pred` and in a nested `sample_weight`
    shape: tuple[int | None, ...]  # of the loss values of one sample
    reduction: str | None  # the name of the reduction in Keras
    is_masked: bool  # the output has a mask
    masks_itself: bool  # the loss attaches a mask to its values, as with `ignore_class`
    output: int | None  # with a mask, the position of the output among all outputs; None if it is another tensor
    target: int | None  # with a mask, the position of the target among all targets; None if it is another tensor

    @property
    def is_mean(self) -> bool:
        """True if the loss is divided by the number of (valid) entries of the batch."""
        return self.reduction in ("sum_over_batch_size", "mean")


class Intercepted(NamedTuple):
    """The result of a call of `model.compute_loss` with copies of the compiled losses."""

    total: Any  # scalar, the value to minimise
    specs: tuple[LossSpec, ...]  # one per call of a compiled loss


class LossSpecs:
    """The descriptions of the compiled losses of a model, found once for each kind of batch.

    Batches are of one kind if their targets and outputs have the same shapes apart from the number of rows.

    Args:
        model: a compiled `keras.Model`, built before the first call of `describe`.

    Example:
        >>> specs = LossSpecs(model)
        >>> specs.describe(x, y, model(x), None, training=False)[0].reduction
        'sum_over_batch_size'
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self._compiled: Any = None
        self._known: dict[tuple, tuple[LossSpec, ...]] = {}

    def describe(self, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool) -> tuple[LossSpec, ...]:
        """Return a description of each compiled loss.

        Args:
            x, y, y_pred, sample_weight, training: as for `model.compute_loss`.

        Raises:
            Unsupported: samples can't be weighted.
        """
        compiled = keras_internals.compiled_loss(self.model)
        if compiled is not self._compiled:  # `compile` was called again
            self._compiled, self._known = compiled, {}
        kind = (training, *(_shape(leaf)[1:] for leaf in keras.tree.flatten((y, y_pred)) if leaf is not None))
        if kind not in self._known:
            specs = intercept(self.model, x, y, y_pred, sample_weight, training).specs
            self._known[kind] = _one_per_loss(specs, len(keras_internals.output_losses(self.model)))
        return self._known[kind]


def intercept(
    model: keras.Model,
    x: Any,
    y: Any,
    y_pred: Any,
    sample_weight: Any,
    training: bool,
    multipliers: Sequence[Any] | None = None,
) -> Intercepted:
    """Call `model.compute_loss` with copies of the compiled losses that record their specs.

    The variables of the model and its loss trackers don't change.

    Args:
        model: a compiled model whose loss has been built.
        x, y, y_pred, sample_weight: as for `model.compute_loss`.
        training: bool, as for `model.compute_loss`. In inference mode losses in half precision are computed in float32.
        multipliers: for each compiled loss float `(batch,)`, factors of the loss values of each sample. Default None,
            no factors.

    Returns:
        `Intercepted`.

    Raises:
        Unsupported: a loss returns no value per sample, a reduction divides by the sum of the weights, a loss overrides
            `__call__`, or `compute_loss` doesn't use the compiled loss.
    """
    recorded: list[LossSpec] = []
    tensors = keras.tree.flatten(y), keras.tree.flatten(y_pred)
    num_rows = next(leaf for leaf in keras.tree.flatten(x) if leaf is not None).shape[0]
    paths = iter(keras_internals.output_paths(model))
    factors = itertools.repeat(None) if multipliers is None else iter(multipliers)

    def replace(loss: keras.losses.Loss) -> Callable:
        return _recording(loss, next(paths), next(factors), num_rows, tensors, recorded, training)

    with stateless(model), keras_internals.replaced_losses(model, replace):
        try:
            total = keras_internals.compute_loss(model, x, y, y_pred, sample_weight, training)
        except ValueError as error:  # from Keras 3.16 on, an error in a loss is the cause of an error of Keras
            if isinstance(error.__cause__, Unsupported):
                raise error.__cause__ from None
            raise
    if not recorded:
        raise Unsupported(
            "`compute_loss` of the model doesn't use the compiled loss. Call `super().compute_loss(...)` in it, and "
            "pass a loss to `compile`"
        )
    return Intercepted(ops.sum(total), tuple(recorded))


def stateless(model: keras.Model) -> keras.StatelessScope:
    """Return a scope that discards all changes of variables and in which the trainable weights have current values."""
    return keras.StatelessScope(state_mapping=[(v, v.value) for v in model.trainable_variables])


def per_sample(t: Any, rank: int) -> Any:
    """Reshape a tensor `t` of shape `(batch,)` to `(batch, 1, ...)`, with `rank` axes."""
    return ops.reshape(t, (-1,) + (1,) * (rank - 1))


def in_float32(loss: keras.losses.Loss) -> keras.losses.Loss:
    """Return a shallow copy of a loss in half precision that computes in float32; another loss as it is."""
    dtype = at_least_float32_dtype(loss.dtype)
    if dtype == loss.dtype:
        return loss
    copy = _shallow_copy(loss)
    keras_internals.set_loss_dtype(copy, dtype)
    return copy


def _shallow_copy(loss: keras.losses.Loss) -> keras.losses.Loss:
    """Return a copy of a loss whose attributes can be set without modifying the loss."""
    copy = object.__new__(type(loss))
    vars(copy).update(vars(loss))
    return copy


def _recording(
    loss: keras.losses.Loss,
    path: tuple,
    multiplier: Any,
    num_rows: int | None,
    tensors: tuple[list, list],
    recorded: list,
    training: bool,
) -> Callable:
    """Return a function in the place of a compiled loss, which appends the spec of the loss to `recorded`."""

    def wrapped(target: Any, output: Any, sample_weight: Any = None) -> Any:
        _check_reduction(loss)
        count = len(recorded)

        def call(y_true: Any, y_pred: Any) -> Any:
            values = loss.call(y_true, y_pred)
            shape = _shape(values)
            rows = num_rows or keras.tree.flatten(y_pred)[0].shape[0]
            if not shape or (rows is not None and shape[0] != rows):
                raise Unsupported(
                    f"the loss `{loss.name}` returns values of shape {shape}, not one per sample. "
                    "Reduce it over all axes except the first, and set the value of invalid entries to 0"
                )
            mask = keras_internals.get_mask(values)
            has_masks = keras_internals.get_mask(output) is not None, mask is not None
            positions = (
                (_position(output, tensors[1]), _position(target, tensors[0])) if any(has_masks) else (None, None)
            )
            recorded.append(LossSpec(path, shape[1:], loss.reduction, *has_masks, *positions))
            if multiplier is None:
                return values
            scaled = values * ops.cast(per_sample(multiplier, len(shape)), values.dtype)
            if mask is not None:
                keras_internals.set_mask(scaled, mask)
            return scaled

        copy = _shallow_copy(loss)
        vars(copy).update(call=call)
        if not training:  # in training mode the loss is computed in its own dtype, as in Keras's step
            keras_internals.set_loss_dtype(copy, at_least_float32_dtype(loss.dtype))
        value = copy(target, output, sample_weight)
        if len(recorded) == count:
            raise Unsupported(f"the loss `{loss.name}` overrides `__call__`. Override `call` in it instead")
        return value

    return wrapped


def _check_reduction(loss: keras.losses.Loss) -> None:
    """Check that the reduction of a loss doesn't cancel the weights.

    Raises:
        Unsupported: the reduction divides by the sum of the weights.
    """
    if loss.reduction == "mean_with_sample_weight":
        raise Unsupported(
            f'the loss `{loss.name}` has reduction="mean_with_sample_weight", which divides by the sum of the weights. '
            'Use reduction="sum_over_batch_size"'
        )


def _one_per_loss(specs: tuple[LossSpec, ...], num_losses: int) -> tuple[LossSpec, ...]:
    """Return the first spec of each compiled loss, after a check that one weight per output is enough.

    Raises:
        Unsupported: an output needs several weights, or the mask of a mean can't be found outside of `compute_loss`.
    """
    by_path: dict[tuple, LossSpec] = {}
    for spec in specs:
        by_path.setdefault(spec.path, spec)
        if spec != by_path[spec.path]:
            raise Unsupported(
                "the losses of one output differ in the shape of their values, in their reductions or in their masks, "
                "so that one `sample_weight` doesn't fit them. Add them up in one loss"
            )
        is_unknown = (spec.is_masked or spec.masks_itself) and spec.output is None
        if spec.is_mean and (is_unknown or (spec.masks_itself and spec.target is None)):
            raise Unsupported(
                "`compute_loss` of the model passes other tensors than the model's outputs and targets to a loss with "
                'a mask. Compute them in `call`, or use a loss with `reduction="sum"`'
            )
    return specs[:num_losses]


def _position(tensor: Any, tensors: list) -> int | None:
    """Return the position of an object in a list, by identity; None if it isn't there."""
    return next((i for i, other in enumerate(tensors) if other is tensor), None)


def _shape(values: Any) -> tuple:
    """Return the static shape; an empty tuple if the rank is unknown."""
    try:
        return tuple(values.shape)
    except ValueError:  # raised by TensorFlow for an unknown rank
        return ()
