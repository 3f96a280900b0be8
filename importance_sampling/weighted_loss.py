"""The compiled loss with one multiplier per sample: how weights enter, and how per-sample numbers come out.

A multiplier v of shape `(batch,)` scales every sample's loss ahead of masks, the user's own weights and the reduction,
all of which Keras then applies as ever. So the gradient with respect to v at 1 is the per-sample loss, whatever was
compiled and whatever shape the user's weights have. Source: `keras.src.trainers.compile_utils.CompileLoss` and
`keras.src.losses.loss`. No loss is implemented here, and no gradient is taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
from keras import ops

Multiplier = Callable[[int, "OutputLoss"], Any]


class Unsupported(ValueError):
    """The loss can't be weighed sample by sample; the message says why, and what to do."""


class OutputLoss(NamedTuple):
    """What is known of one output's loss."""

    entries: Any  # float32 (batch,): how many entries of each sample count, None without a mask
    reduction: str | None  # Keras's name for how entries become a number

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
        training: as `model.compute_loss` takes it.

    Returns:
        `WeightedLoss`.

    Raises:
        Unsupported: a loss is a scalar, is divided by the sum of weights, or there is none to scale.
    """
    outputs: list[OutputLoss] = []
    with stateless(model) as scope, _multiplied(model, multiplier, outputs):
        total = model._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
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
def _multiplied(model: keras.Model, multiplier: Multiplier | None, outputs: list) -> Iterator[None]:
    """Have every compiled loss of the model multiply its per-sample values, and note what it is like."""
    compiled = model._compile_loss
    if compiled is None or not compiled.built:  # an overridden `compute_loss` that leaves it alone
        yield
        return
    entries = compiled._flat_losses
    compiled._flat_losses = [entry._replace(loss=_wrap(entry.loss, multiplier, outputs)) for entry in entries]
    try:
        yield
    finally:
        compiled._flat_losses = entries


def _wrap(loss: keras.losses.Loss, multiplier: Multiplier | None, outputs: list) -> Callable:
    def wrapped(y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        _check_reduction(loss)
        mask = getattr(y_pred, "_keras_mask", None)
        own_call = loss.call
        called = False

        def call(y_true, y_pred):
            nonlocal called
            called = True
            values = own_call(y_true, y_pred)
            if len(values.shape) == 0 or _rows(values) not in (None, _rows(y_pred) or _rows(values)):
                raise Unsupported(
                    f"the loss `{loss.name}` returns a value of shape {tuple(values.shape)}, not one per sample. "
                    "Reduce it over all axes but the first"
                )
            output = OutputLoss(_valid_entries(mask, values), loss.reduction)
            outputs.append(output)
            if multiplier is None:
                return values
            scaled = values * ops.cast(per_sample(multiplier(len(outputs) - 1, output), values), values.dtype)
            if getattr(values, "_keras_mask", None) is not None:
                scaled._keras_mask = values._keras_mask
            return scaled

        loss.call = call
        try:
            value = loss(y_true, y_pred, sample_weight)
        finally:
            del loss.call
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
    own = getattr(values, "_keras_mask", None)
    masks = [ops.cast(m, "float32") for m in (mask, own) if m is not None]
    if not masks:
        return None
    mask = masks[0] if len(masks) == 1 else masks[0] * masks[1]
    return ops.sum(ops.reshape(mask, (ops.shape(mask)[0], -1)), axis=1)


def _rows(t: Any) -> int | None:
    return keras.tree.flatten(t)[0].shape[0]  # a loss may be given a structure of outputs
