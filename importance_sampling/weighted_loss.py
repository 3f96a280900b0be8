"""The compiled loss with one multiplier per sample: how weights enter, and how per-sample numbers come out.

A multiplier v of shape `(batch,)` scales every sample's loss ahead of masks, the user's own weights and the reduction,
all of which Keras then applies as ever. So the gradient with respect to v at 1 is the per-sample loss, whatever was
compiled and whatever shape the user's weights have. Source: `keras.src.trainers.compile_utils.CompileLoss` and
`keras.src.losses.loss`. No loss is implemented here, and no gradient is taken.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
from keras import ops

from importance_sampling.backend import keras_internals
from importance_sampling.utils.numerics import at_least_float32_dtype

Multiplier = Callable[[int, "OutputLoss"], Any]


class Unsupported(ValueError):
    """The loss can't be weighed sample by sample; the message says why, and what to do."""


def reporting_failure(function: Callable) -> Callable:
    """Return the function with any error that it raises as `Unsupported`: training can continue without it."""

    @functools.wraps(function)
    def reported(*args: Any) -> Any:
        try:
            return function(*args)
        except Unsupported:
            raise
        except Exception as error:
            message = str(error).strip().split("\n")[0]
            raise Unsupported(
                f"building an importance step for this model failed with {type(error).__name__}: {message}. If "
                "`model.fit` trains it, please report this"
            ) from error

    return reported


class OutputLoss(NamedTuple):
    """One output's loss."""

    entries: Any  # float32 (batch,): how many entries of each sample count, None without a mask
    reduction: str | None  # Keras's name for how entries become a number
    values: Any  # (batch, ...): the loss of every entry, ahead of masks, weights and the reduction

    @property
    def is_mean(self) -> bool:
        """Whether it is divided by the number of (valid) entries of the batch."""
        return self.reduction in ("sum_over_batch_size", "mean")


class WeightedLoss(NamedTuple):
    """A batch's loss."""

    total: Any  # the scalar that is minimised
    value: Any  # what `compute_loss` returned: a vector with reduction=None, else the same scalar
    outputs: tuple[OutputLoss, ...]
    scope: keras.StatelessScope  # knows what the loss trackers of the outputs would have become

    @property
    def is_mean(self) -> bool:
        """Whether the batch's loss is a mean over the batch, not a sum."""
        return any(output.is_mean for output in self.outputs)

    def summed(self, rows: Any) -> Any:
        """The total as a sum over the batch's rows, whose gradients are those of single samples."""
        return self.total * (rows if self.is_mean else 1)


def weighted_loss(
    model: keras.Model,
    x: Any,
    y: Any,
    y_pred: Any,
    sample_weight: Any,
    multiplier: Multiplier | None,
    training: bool,
) -> WeightedLoss:
    """The loss that `model.compute_loss` returns, each sample's share of it scaled by a multiplier.

    No metric tracker moves. Call it where the model's loss has been built.

    Args:
        model: a compiled model.
        x, y, y_pred, sample_weight: as `model.compute_loss` takes them.
        multiplier: called with the number of the output and its `OutputLoss`, returns float32 `(batch,)`; None scales
            nothing.
        training: as `model.compute_loss` takes it. In inference mode a loss in half precision is computed in float32.

    Returns:
        `WeightedLoss`.

    Raises:
        Unsupported: a loss is a scalar, is divided by the sum of weights, or there is none to scale.
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
    # reduction=None leaves a vector; its gradient is that of its sum, and that is what Keras's step follows.
    return WeightedLoss(ops.sum(total), total, tuple(outputs), scope)


def stateless(model: keras.Model) -> keras.StatelessScope:
    """A scope in which nothing of the model moves, in which its weights are still what they were around it."""
    return keras.StatelessScope(state_mapping=[(v, v.value) for v in model.trainable_variables])


def per_sample(t: Any, like: Any) -> Any:
    """`t` of shape `(batch,)` with as many axes as `like`."""
    return ops.reshape(t, (-1,) + (1,) * (len(like.shape) - 1))


@contextlib.contextmanager
def _multiplied(
    model: keras.Model, x: Any, multiplier: Multiplier | None, outputs: list, training: bool
) -> Iterator[None]:
    """Replace every compiled loss by a copy that multiplies its per-sample values and appends to `outputs`."""
    num_rows = _rows(x)
    with keras_internals.replaced_losses(model, lambda loss: _wrap(loss, multiplier, outputs, num_rows, training)):
        yield


def _wrap(
    loss: keras.losses.Loss, multiplier: Multiplier | None, outputs: list, num_rows: int | None, training: bool
) -> Callable:
    def wrapped(y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        _check_reduction(loss)
        mask = keras_internals.get_mask(y_pred)
        called = False

        def call(y_true, y_pred):
            nonlocal called
            called = True
            values = loss.call(y_true, y_pred)
            if not _has_rows(values, num_rows or _rows(y_pred)):
                raise Unsupported(
                    f"the loss `{loss.name}` returns values of shape {_shape(values)}, not one per sample. "
                    "Reduce it over all axes but the first, and give entries that don't count a value of 0"
                )
            output = OutputLoss(_valid_entries(mask, values), loss.reduction, values)
            outputs.append(output)
            if multiplier is None:
                return values
            scaled = values * ops.cast(per_sample(multiplier(len(outputs) - 1, output), values), values.dtype)
            if keras_internals.get_mask(values) is not None:
                keras_internals.set_mask(scaled, keras_internals.get_mask(values))
            return scaled

        intercepted = object.__new__(type(loss))  # a shallow copy: the user's loss stays as it is
        vars(intercepted).update(vars(loss), call=call)
        if not training:  # Keras computes the loss of a training step in the loss's own dtype
            keras_internals.set_loss_dtype(intercepted, at_least_float32_dtype(loss.dtype))
        value = intercepted(y_true, y_pred, sample_weight)
        if not called:
            raise Unsupported(f"the loss `{loss.name}` overrides `__call__`. Override `call` in it instead")
        return value

    return wrapped


def _check_reduction(loss: keras.losses.Loss) -> None:
    if loss.reduction == "mean_with_sample_weight":
        raise Unsupported(
            f'the loss `{loss.name}` has reduction="mean_with_sample_weight", which divides the weights out again. '
            'Use reduction="sum_over_batch_size"'
        )


def _valid_entries(mask: Any, values: Any) -> Any:
    """How many entries of every sample count, by the model's mask and the loss's own."""
    own = keras_internals.get_mask(values)
    masks = [ops.cast(m, "float32") for m in (mask, own) if m is not None]
    if not masks:
        return None
    mask = masks[0] if len(masks) == 1 else masks[0] * masks[1]
    return ops.sum(ops.reshape(mask, (ops.shape(mask)[0], -1)), axis=1)


def _rows(data: Any) -> int | None:
    """Return the number of rows of a structure of tensors, None where it isn't static."""
    return next(leaf for leaf in keras.tree.flatten(data) if leaf is not None).shape[0]


def _has_rows(values: Any, num_rows: int | None) -> bool:
    """Return True if there is a value per sample. A size that depends on the data isn't the batch's."""
    shape = _shape(values)
    return shape is not None and len(shape) > 0 and (num_rows is None or shape[0] == num_rows)


def _shape(values: Any) -> tuple | None:
    """Return the static shape, None where the rank isn't known."""
    try:
        return tuple(values.shape)
    except ValueError:  # TensorFlow's, of an unknown rank
        return None
