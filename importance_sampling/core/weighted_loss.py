"""Compute the compiled loss of a model with one multiplier per sample.

A multiplier v, float `(batch,)`, scales the loss values of each sample before Keras applies masks, user weights and the
reduction. Importance weights enter the loss this way. The gradient with respect to v at 1 is the loss of each sample,
for any compiled loss and any shape of user weights. Source: `keras.src.trainers.compile_utils.CompileLoss` and
`keras.src.losses.loss`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.backend.scopes import NestedScope
from importance_sampling.data.batches import count_rows
from importance_sampling.utils.errors import Unsupported
from importance_sampling.utils.numerics import at_least_float32_dtype

# multiplier(index of the output, loss of the output) -> float32 (batch,)
Multiplier = Callable[[int, "OutputLoss"], Any]


class OutputLoss(NamedTuple):
    """The compiled loss of one output."""

    entries: Any  # float32 (batch,), the number of valid entries of each sample; None without a mask
    reduction: str | None  # the name of the reduction in Keras
    values: Any  # (batch, ...), the loss of each entry before masks, weights and reduction

    @property
    def is_mean(self) -> bool:
        """True if the loss is divided by the number of (valid) entries of the batch."""
        return self.reduction in ("sum_over_batch_size", "mean")


class WeightedLoss(NamedTuple):
    """The loss of a batch."""

    total: Any  # scalar, the value to minimise; divided by the number of replicas, whose gradients are added
    value: Any  # the result of `compute_loss`, not divided: a vector with reduction=None, else a scalar
    outputs: tuple[OutputLoss, ...]  # one per call of a compiled loss
    updates: list  # for each of `model.metrics_variables`, its new value as a loss tracker of an output, or None
    read: list  # the variables that the loss itself depends on, such as weights with a regulariser

    @property
    def is_mean(self) -> bool:
        """True if the loss is a mean over the batch, False if it is a sum."""
        return any(output.is_mean for output in self.outputs)

    def summed(self, rows: Any) -> Any:
        """Return the total as a sum over the `rows` samples; its gradients are those of single samples."""
        return self.total * ((rows if self.is_mean else 1) * backend.replicas_in_step())


def weighted_loss(
    model: keras.Model,
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
        model: a compiled model whose loss has been built.
        x, y, y_pred, sample_weight: as for `model.compute_loss`.
        multiplier: called as `multiplier(index, output)` with the index of the output and its `OutputLoss`, returns
            float32 `(batch,)`. None applies no multiplier.
        training: bool, as for `model.compute_loss`. In inference mode losses in half precision are computed in float32.

    Returns:
        `WeightedLoss`.

    Raises:
        Unsupported: a loss returns no value per sample, a reduction divides by the sum of the weights, a loss overrides
            `__call__`, or `compute_loss` doesn't use the compiled loss.
    """
    outputs: list[OutputLoss] = []
    with stateless(model) as scope, _multiplied(model, x, multiplier, outputs, training):
        try:
            total = keras_internals.compute_loss(model, x, y, y_pred, sample_weight, training)
        except ValueError as error:  # from Keras 3.16 on, an error in a loss is the cause of an error of Keras
            if isinstance(error.__cause__, Unsupported):
                raise error.__cause__ from None
            raise
    if not outputs:
        raise Unsupported(
            "`compute_loss` of the model doesn't use the compiled loss. Call `super().compute_loss(...)` in it, and "
            "pass a loss to `compile`"
        )
    # The result is a vector if reduction=None. Keras's step differentiates its sum.
    updates = [scope.updated(variable) for variable in model.metrics_variables]
    replicas = backend.replicas_in_step()
    value = total if replicas == 1 else total * replicas
    return WeightedLoss(ops.sum(total), value, tuple(outputs), updates, list(scope.read.values()))


def valid_entries(outputs: Sequence[OutputLoss], rows: Any) -> list:
    """Return the number of valid entries of each sample for each output, or zeros for an output without a mask.

    Args:
        outputs: the losses of the outputs.
        rows: float `(batch,)`, a tensor of the shape of the results.
    """
    return [ops.zeros_like(rows) if output.entries is None else output.entries for output in outputs]


def stateless(model: keras.Model) -> NestedScope:
    """Return a scope that discards all changes of variables."""
    # Keras asks the scope, and not the variables, for the weights that regularisers depend on.
    return NestedScope([(v, v.value) for v in model.trainable_variables])


def per_sample(t: Any, like: Any) -> Any:
    """Reshape a tensor `t` of shape `(batch,)` to `(batch, 1, ...)`, with the rank of `like`."""
    return ops.reshape(t, (-1,) + (1,) * (len(like.shape) - 1))


@contextlib.contextmanager
def _multiplied(
    model: keras.Model, x: Any, multiplier: Multiplier | None, outputs: list, training: bool
) -> Iterator[None]:
    """Replace each compiled loss inside this context by a copy that applies the multiplier and extends `outputs`."""
    num_rows = count_rows(x)
    with keras_internals.replaced_losses(model, lambda loss: _wrap(loss, multiplier, outputs, num_rows, training)):
        yield


def _wrap(
    loss: keras.losses.Loss, multiplier: Multiplier | None, outputs: list, num_rows: int | None, training: bool
) -> Callable:
    """Return a function in the place of a compiled loss; it calls a copy of the loss that applies the multiplier."""

    def wrapped(y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        _check_reduction(loss)
        mask = keras_internals.get_mask(y_pred)
        called = False

        def call(y_true, y_pred):
            nonlocal called
            called = True
            values = loss.call(y_true, y_pred)
            if not _has_rows(values, num_rows or count_rows(y_pred)):
                raise Unsupported(
                    f"the loss `{loss.name}` returns values of shape {_shape(values)}, not one per sample. "
                    "Reduce it over all axes except the first, and set the value of invalid entries to 0"
                )
            output = OutputLoss(_valid_entries(mask, values), loss.reduction, values)
            outputs.append(output)
            if multiplier is None:
                return values
            scaled = values * ops.cast(per_sample(multiplier(len(outputs) - 1, output), values), values.dtype)
            if keras_internals.get_mask(values) is not None:
                keras_internals.set_mask(scaled, keras_internals.get_mask(values))
            return scaled

        intercepted = object.__new__(type(loss))  # a shallow copy: the loss of the user isn't modified
        vars(intercepted).update(vars(loss), call=call)
        if not training:  # in training mode the loss is computed in its own dtype, as in Keras's step
            keras_internals.set_loss_dtype(intercepted, at_least_float32_dtype(loss.dtype))
        if sample_weight is not None:  # on torch Keras multiplies it by the mask in place
            sample_weight = ops.copy(sample_weight)
        value = intercepted(y_true, y_pred, sample_weight)
        if not called:
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


def _valid_entries(mask: Any, values: Any) -> Any:
    """Return the number of valid entries of each sample, float32 `(batch,)`; None without a mask.

    Args:
        mask: the mask of the output, or None.
        values: the loss values, which may have another mask.
    """
    loss_mask = keras_internals.get_mask(values)
    masks = [ops.cast(m, "float32") for m in (mask, loss_mask) if m is not None]
    if not masks:
        return None
    mask = masks[0] if len(masks) == 1 else masks[0] * masks[1]
    return ops.sum(ops.reshape(mask, (ops.shape(mask)[0], -1)), axis=1)


def _has_rows(values: Any, num_rows: int | None) -> bool:
    """Return True if there is one value per sample. A dynamic number of values is accepted only for dynamic batches."""
    shape = _shape(values)
    return shape is not None and len(shape) > 0 and (num_rows is None or shape[0] == num_rows)


def _shape(values: Any) -> tuple | None:
    """Return the static shape, None if the rank is unknown."""
    try:
        return tuple(values.shape)
    except ValueError:  # raised by TensorFlow for an unknown rank
        return None
