"""The gradient step on the user's own model, a multiplier per sample in its loss, which measures scores on its way.

It does what Keras does in a step (`keras.src.backend.tensorflow.trainer.TensorFlowTrainer.train_step`), in its order.
What is trained on, and with what weights, is decided elsewhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from importance_sampling import backend
from importance_sampling.pre_activations import PreActivations
from importance_sampling.scores import call, flat, row_norms
from importance_sampling.utils.numerics import FLOAT
from importance_sampling.weighted_loss import Multiplier, OutputLoss, WeightedLoss, weighted_loss


class Measured(NamedTuple):
    """What a training-mode forward pass tells of every sample, its weight left out."""

    losses: Any  # float32 (batch,)
    norms: Any  # float32 (batch,): of the gradient at the pre-activations, None where there is none


class Pass(NamedTuple):
    """A forward and a backward pass; gradients are of the weighted loss, scaled, and None where it doesn't depend."""

    gradients: list  # one per trainable weight
    samples: Any  # (batch,), with respect to a multiplier of every sample's loss
    points: list  # one per tensor of pre-activations
    y_pred: Any
    loss: WeightedLoss


class Stepped(NamedTuple):
    """What a step saw."""

    measured: Any  # float32 (batch,), scores in training mode; None where there are none to see
    y_pred: Any  # the model's outputs, in training mode, before the step
    loss: WeightedLoss  # of the batch, before the step


def backward(
    model: keras.Model,
    points: PreActivations | None,
    batch: tuple,
    weigh: Callable[[Callable[[], Measured]], Multiplier],
    scale: Callable,
    trainable: Sequence[Any] | None = None,
) -> Pass:
    """Take the gradient of a batch's weighted loss, in training mode. No weight moves.

    Args:
        model: compiled and built.
        points: where gradient norms are measured; None: nowhere.
        batch: `(x, y, sample_weight)`, the last two may be None.
        weigh: called with `measure` after the forward pass, returns the loss's multiplier. `measure() -> Measured` adds
            a backward pass that ends at the pre-activations.
        scale: applied to the loss ahead of its differentiation: the optimizer's `scale_loss`.
        trainable: tensors that stand for the trainable weights in the `keras.StatelessScope` around this call; None:
            the model's own.

    Returns:
        `Pass`.
    """
    x, y, sample_weight = batch
    weights = model.trainable_weights if trainable is None else trainable
    rows = ops.shape(flat(x)[0][0])[0]
    ones = ops.ones((rows,), dtype=FLOAT)
    with backend.recording([ones, *(trainable or ())]) as gradient:
        with contextlib.nullcontext() if points is None else points.caught() as caught:
            y_pred = call(model, x, training=True)
        at = [] if points is None else points.of(y_pred, caught)

        def measure() -> Measured:
            plain = weighted_loss(model, x, y, y_pred, sample_weight, lambda *_: ones, training=True)
            losses, *norms = gradient(plain.summed(rows), [ones, *at])
            return Measured(ops.cast(losses, "float32"), row_norms(norms, rows))

        multiplier = weigh(measure)
        loss = weighted_loss(
            model, x, y, y_pred, sample_weight, lambda *output: multiplier(*output) * ones, training=True
        )
        gradients = gradient(scale(loss.total), [*weights, ones, *at])
    n = len(weights)
    return Pass(gradients[:n], gradients[n], gradients[n + 1 :], y_pred, loss)


def weighted(weights: Any, expected: list | None = None) -> Multiplier:
    """The multiplier of importance weights.

    Keras divides a masked loss by the valid entries of the batch that it sees; a picked batch's are biased.

    Args:
        weights: float32 `(batch,)`, > 0.
        expected: for every output how many entries of a sample count on average, None for outputs without a mask. A
            `compute_loss` that takes the compiled loss twice goes through them twice. None, or NaN: the weighted mean
            over the batch itself, which is biased.
    """

    def multiplier(number: int, output: OutputLoss) -> Any:
        if output.entries is None or not output.is_mean:
            return weights
        of_all = ops.mean(weights * output.entries)
        if expected is not None:
            known = expected[number % len(expected)]
            of_all = ops.where(ops.isnan(known), of_all, known)
        return weights * ops.mean(output.entries) / ops.maximum(of_all, 1e-7)

    return multiplier


def follow(model: keras.Model, gradients: list) -> None:
    """Hand the gradients of the trainable weights to the model's optimizer."""
    model.optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))


def weighted_step(
    model: keras.Model,
    points: PreActivations,
    batch: tuple,
    weights: Any,
    expected: list | None = None,
    measure: str = "gnorm",
    fair: Any = None,
) -> Stepped:
    """Follow the weighted gradient of a batch; scores are measured for nothing, and the weights divided out of them.

    Args:
        model, batch: as for `backward`.
        points: where "gnorm" is measured.
        weights, expected: as for `weighted`.
        measure: "gnorm" or "loss", which scores to measure.
        fair: float32 `(batch,)`, weights for the loss that is handed out; None: those that are trained with.

    Returns:
        `Stepped`.
    """
    scale = model.optimizer.scale_loss(ops.ones((), dtype=FLOAT))
    at = points if measure == "gnorm" else None
    taken = backward(model, at, batch, lambda _: weighted(weights, expected), model.optimizer.scale_loss)
    loss = taken.loss
    if fair is not None:  # ahead of the step, which moves what regularises
        x, y, sample_weight = batch
        loss = weighted_loss(model, x, y, taken.y_pred, sample_weight, weighted(fair, expected), training=True)
    follow(model, taken.gradients)
    rows = flat(batch[0])[0][0].shape[0]
    measured = taken.samples if measure == "loss" else row_norms(taken.points, rows)
    if measured is not None:
        measured = ops.cast(measured, "float32") * ((rows if taken.loss.is_mean else 1) / scale) / weights
    return Stepped(measured, taken.y_pred, loss)
