"""The forward and backward pass of a training step, with a multiplier per sample.

Source: what Keras does in a step (`keras.src.backend.tensorflow.trainer.TensorFlowTrainer.train_step`), in its order, up
to where the gradients are handed to the optimizer. Which samples, which weights and what becomes of the gradients is
decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from importance_sampling import backend
from importance_sampling.pre_activations import PreActivations
from importance_sampling.scores import call, row_norms
from importance_sampling.weighted_loss import Multiplier, WeightedLoss, weighted_loss


class Measured(NamedTuple):
    """What a training-mode forward pass tells of every sample, its multiplier left out."""

    losses: Any  # float32 (batch,)
    norms: Any  # float32 (batch,): of the gradient at the pre-activations, None where there is none


class Pass(NamedTuple):
    """A forward and a backward pass."""

    gradients: list  # one per trainable weight, scaled as the optimizer wants it; None where there is none
    points: list  # the gradients at the pre-activations, of the weighted loss
    y_pred: Any
    loss: WeightedLoss


def backward(
    model: keras.Model,
    points: PreActivations,
    data: tuple,
    weigh: Callable[[Callable[[], Measured]], Multiplier | None],
    scale: Callable,
    weights: Sequence[Any] | None = None,
) -> Pass:
    """Take the gradient of a batch's weighted loss, in training mode.

    Args:
        model: compiled and built.
        points: where gradient norms are measured.
        data: `(x, y, sample_weight)`.
        weigh: called with `measure`, returns the loss's multiplier. `measure() -> Measured` costs next to nothing: its
            gradients end at the pre-activations.
        scale: applied to the loss ahead of its differentiation; the optimizer's `scale_loss`.
        weights: tensors to differentiate at, where a `keras.StatelessScope` has the model compute with them; None: the
            model's trainable weights.

    Returns:
        `Pass`.
    """
    x, y, sample_weight = data
    at_weights = model.trainable_weights if weights is None else weights
    rows = ops.shape(keras.tree.flatten(x)[0])[0]
    ones = ops.ones((rows,), dtype="float32")
    with backend.recording([ones, *(weights or ())]) as gradient:
        with points.caught() as caught:
            y_pred = call(model, x, training=True)
        at = points.of(y_pred, caught)

        def measure() -> Measured:
            plain = weighted_loss(model, x, y, y_pred, sample_weight, lambda *_: ones, training=True)
            losses, *norms = gradient(plain.summed(rows), [ones, *at])
            return Measured(losses, row_norms(norms))

        loss = weighted_loss(model, x, y, y_pred, sample_weight, weigh(measure), training=True)
        gradients = gradient(scale(loss.total), [*at_weights, *at])
    return Pass(gradients[: len(at_weights)], gradients[len(at_weights) :], y_pred, loss)


def follow(model: keras.Model, gradients: list) -> None:
    """Hand the gradients of the trainable weights to the model's optimizer."""
    model.optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))
