"""Compute the gradient of a weighted loss, and apply it as Keras's own training step does.

The order of operations follows `keras.src.backend.tensorflow.trainer.TensorFlowTrainer.train_step`. The backward pass
also gives the scores of the trained samples: the gradient norms at the logits, or the losses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.core.logits import Logits
from importance_sampling.core.scoring import call, flatten, row_norms
from importance_sampling.core.weighted_loss import Multiplier, OutputLoss, WeightedLoss, weighted_loss
from importance_sampling.utils.numerics import FLOAT


class Measurements(NamedTuple):
    """Per-sample results of a forward pass in training mode, without importance weights."""

    losses: Any  # float32 (batch,)
    norms: Any  # float32 (batch,), norms of the gradient at the logits; None if no logits were captured


class BackwardResult(NamedTuple):
    """The results of a forward and a backward pass.

    All gradients are of the weighted loss after loss scaling. A gradient is None if the loss doesn't depend on the
    tensor.
    """

    gradients: list  # one per trainable weight
    sample_gradients: Any  # (batch,), with respect to a multiplier of 1 for the loss of each sample
    logits_gradients: list  # one per tensor of logits
    y_pred: Any  # the outputs of the model, in training mode
    loss: WeightedLoss


class WeightedStepResult(NamedTuple):
    """The results of a weighted gradient step. All were computed before the weights changed."""

    measured: Any  # float32 (batch,), scores in training mode; None if the loss doesn't depend on the logits
    y_pred: Any  # the outputs of the model, in training mode
    loss: WeightedLoss


def compute_gradients(
    model: keras.Model,
    logits: Logits | None,
    batch: tuple,
    make_multiplier: Callable[[Callable[[], Measurements]], Multiplier],
    scale: Callable,
    trainable: Sequence[Any] | None = None,
) -> BackwardResult:
    """Compute the gradients of the weighted loss of a batch in training mode. The weights don't change.

    Args:
        model: a compiled and built model.
        logits: the logits at which gradient norms are measured. None measures no norms.
        batch: `(x, y, sample_weight)`, tensors or structures of tensors with `batch` rows. `y` and `sample_weight` may
            be None.
        make_multiplier: called as `make_multiplier(measure)` after the forward pass, returns the multiplier of the
            loss. `measure() -> Measurements` runs an additional backward pass that ends at the logits.
        scale: function of the scalar loss, applied before differentiation, such as the `scale_loss` method of the
            optimizer.
        trainable: tensors that replace the trainable weights in the `keras.StatelessScope` around this call. Default
            None, the trainable weights of the model.

    Returns:
        `BackwardResult`.
    """
    x, y, sample_weight = batch
    weights = model.trainable_weights if trainable is None else trainable
    num_rows = ops.shape(flatten(x)[0][0])[0]
    ones = ops.ones((num_rows,), dtype=FLOAT)
    with backend.recording([ones, *(trainable or ())]) as gradient:
        with contextlib.nullcontext() if logits is None else logits.captured() as captured:
            y_pred = call(model, x, training=True)
        logits_tensors = [] if logits is None else logits.of(y_pred, captured)

        def measure() -> Measurements:
            unweighted = weighted_loss(model, x, y, y_pred, sample_weight, lambda *_: ones, training=True)
            losses, *logits_gradients = gradient(unweighted.summed(num_rows), [ones, *logits_tensors])
            return Measurements(ops.cast(losses, "float32"), row_norms(logits_gradients, num_rows))

        multiplier = make_multiplier(measure)
        loss = weighted_loss(
            model, x, y, y_pred, sample_weight, lambda *output: multiplier(*output) * ones, training=True
        )
        gradients = gradient(scale(loss.total), [*weights, ones, *logits_tensors])
    n = len(weights)
    return BackwardResult(gradients[:n], gradients[n], gradients[n + 1 :], y_pred, loss)


def importance_multiplier(weights: Any, expected_entries: list | None = None) -> Multiplier:
    """Return the loss multiplier for importance weights.

    Keras divides a masked mean loss by the number of valid entries of the batch. In a batch drawn by importance that
    number is biased, so the multiplier replaces it by its expected value.

    Args:
        weights: float32 `(batch,)`, > 0.
        expected_entries: for each output the mean number of valid entries per sample, float scalars; None for outputs
            without a mask. A `compute_loss` that calls the compiled loss twice uses the list twice. If the argument is
            None (default) or an entry is NaN, the weighted mean over the batch is used, which is biased.
    """

    def multiplier(index: int, output: OutputLoss) -> Any:
        if output.entries is None or not output.is_mean:
            return weights
        mean_entries = ops.mean(weights * output.entries)
        if expected_entries is not None:
            expected = expected_entries[index % len(expected_entries)]
            mean_entries = ops.where(ops.isnan(expected), mean_entries, expected)
        return weights * ops.mean(output.entries) / ops.maximum(mean_entries, 1e-7)

    return multiplier


def apply_gradients(model: keras.Model, gradients: list) -> None:
    """Apply gradients of the trainable weights with the optimizer of the model."""
    model.optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))


def weighted_step(
    model: keras.Model,
    logits: Logits,
    batch: tuple,
    weights: Any,
    expected_entries: list | None = None,
    measure: str = "gnorm",
    unbiased: Any = None,
) -> WeightedStepResult:
    """Train on a batch with importance weights, and measure the scores of its samples.

    The scores come from the backward pass of the step; the weights are divided out of them.

    Args:
        model: a compiled and built model.
        logits: the logits at which "gnorm" is measured.
        batch: `(x, y, sample_weight)`, as for `compute_gradients`.
        weights: float32 `(batch,)`, > 0, the importance weights of the gradient.
        expected_entries: as for `importance_multiplier`.
        measure: "gnorm" (default) or "loss", the score to measure.
        unbiased: float32 `(batch,)`, the unbiased weights for the returned loss. Default None, `weights`.

    Returns:
        `WeightedStepResult`.
    """
    loss_scale = model.optimizer.scale_loss(ops.ones((), dtype=FLOAT))
    measured_logits = logits if measure == "gnorm" else None
    multiplier = importance_multiplier(weights, expected_entries)
    result = compute_gradients(model, measured_logits, batch, lambda _: multiplier, model.optimizer.scale_loss)
    loss = result.loss
    if unbiased is not None:  # before the step, which changes the weights that regularisation losses depend on
        x, y, sample_weight = batch
        multiplier = importance_multiplier(unbiased, expected_entries)
        loss = weighted_loss(model, x, y, result.y_pred, sample_weight, multiplier, training=True)
    apply_gradients(model, result.gradients)
    num_rows = flatten(batch[0])[0][0].shape[0]
    measured = result.sample_gradients if measure == "loss" else row_norms(result.logits_gradients, num_rows)
    if measured is not None:
        measured = ops.cast(measured, "float32") * ((num_rows if result.loss.is_mean else 1) / loss_scale) / weights
    return WeightedStepResult(measured, result.y_pred, loss)


def learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """Return the current learning rate, the sum over the parts of an optimizer that consists of several."""
    parts = keras_internals.optimizer_parts(optimizer)
    return float(sum(np.asarray(part.learning_rate) for part in parts if part.built))
