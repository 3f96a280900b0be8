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
from importance_sampling.core.batch_statistics import weighted_statistics
from importance_sampling.core.logits import Logits
from importance_sampling.core.scoring import OutputPacker, call, row_norms
from importance_sampling.core.weighted_loss import Multiplier, OutputLoss, WeightedLoss, stateless, weighted_loss
from importance_sampling.data.batches import count_rows, flatten
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
    multiplier: Multiplier,
    scale: Callable,
    unbiased: Any = None,
) -> BackwardResult:
    """Compute the gradients of the weighted loss of a batch in training mode. The weights don't change.

    Args:
        model: a compiled and built model.
        logits: the logits at which gradient norms are measured. None measures no norms.
        batch: `(x, y, sample_weight)`, tensors or structures of tensors with `batch` rows. `y` and `sample_weight` may
            be None.
        multiplier: of the loss of each sample, see `weighted_loss`.
        scale: function of the scalar loss, applied before differentiation, such as the `scale_loss` method of the
            optimizer.
        unbiased: float32 `(batch,)`, > 0, the unbiased weights of a batch that was drawn by importance, for the
            statistics of batch normalisation. None (default): a uniform batch.

    Returns:
        `BackwardResult`.
    """
    x, y, sample_weight = batch
    packer = OutputPacker()

    def forward(extra: Sequence[Any], tap: Callable) -> tuple:
        with contextlib.nullcontext() if unbiased is None else weighted_statistics(model, x, unbiased):
            y_pred = _call_in_training(model, logits, x, tap)
        loss = weighted_loss(
            model, x, y, y_pred, sample_weight, lambda *output: multiplier(*output) * extra[0], training=True
        )
        return scale(loss.total), (packer.pack(y_pred), loss)

    gradients, _, (outputs, loss) = backend.differentiate(forward, model.trainable_weights, [_ones(x)])
    return BackwardResult(gradients.variables, gradients.extra[0], gradients.tapped, packer.unpack(outputs), loss)


def measure(model: keras.Model, logits: Logits | None, batch: tuple) -> Measurements:
    """Measure the samples of a batch in training mode. Nothing of the model changes.

    A step that follows uses the same random numbers, for example for dropout.

    Args:
        model, logits, batch: as for `compute_gradients`.
    """
    x, y, sample_weight = batch

    def forward(extra: Sequence[Any], tap: Callable) -> tuple:
        with backend.repeatable_random(), stateless(model):
            y_pred = _call_in_training(model, logits, x, tap)
        loss = weighted_loss(model, x, y, y_pred, sample_weight, lambda *_: extra[0], training=True)
        return loss.summed(_num_rows(x)), None

    gradients, _, _ = backend.differentiate(forward, (), [_ones(x)])
    return Measurements(ops.cast(gradients.extra[0], "float32"), row_norms(gradients.tapped, _num_rows(x)))


def sample_losses(model: keras.Model, batch: tuple, y_pred: Any) -> Any:
    """Return the loss of each sample of a batch in training mode, unweighted, float32 `(batch,)`.

    Args:
        model, batch: as for `compute_gradients`.
        y_pred: the outputs of the model for the batch.
    """
    x, y, sample_weight = batch

    def forward(extra: Sequence[Any], tap: Callable) -> tuple:
        loss = weighted_loss(model, x, y, y_pred, sample_weight, lambda *_: extra[0], training=True)
        return loss.summed(_num_rows(x)), None

    gradients, _, _ = backend.differentiate(forward, (), [_ones(x)])
    return ops.cast(gradients.extra[0], "float32")


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


def weighted_step(
    model: keras.Model,
    logits: Logits,
    batch: tuple,
    weights: Any,
    unbiased: Any,
    expected_entries: list | None = None,
    score: str = "gnorm",
    with_unbiased_loss: bool = False,
) -> WeightedStepResult:
    """Train on a batch with importance weights, and measure the scores of its samples.

    The scores come from the backward pass of the step; the weights are divided out of them.

    Args:
        model: a compiled and built model.
        logits: the logits at which "gnorm" is measured.
        batch: `(x, y, sample_weight)`, as for `compute_gradients`.
        weights: float32 `(batch,)`, > 0, the importance weights of the gradient.
        unbiased: float32 `(batch,)`, > 0, the unbiased weights, for the statistics of batch normalisation.
        expected_entries: as for `importance_multiplier`.
        score: "gnorm" (default) or "loss", to be measured.
        with_unbiased_loss: bool, default False. True: the returned loss is computed again, with the unbiased weights.

    Returns:
        `WeightedStepResult`.
    """
    batch, weights, unbiased = backend.distribute_rows((batch, weights, unbiased))
    loss_scale = model.optimizer.scale_loss(ops.ones((), dtype=FLOAT))
    measured_logits = logits if score == "gnorm" else None
    multiplier = importance_multiplier(weights, expected_entries)
    result = compute_gradients(model, measured_logits, batch, multiplier, model.optimizer.scale_loss, unbiased)
    loss = result.loss
    if with_unbiased_loss:  # before the step, which changes the weights that regularisation losses depend on
        x, y, sample_weight = batch
        multiplier = importance_multiplier(unbiased, expected_entries)
        loss = weighted_loss(model, x, y, result.y_pred, sample_weight, multiplier, training=True)
    backend.apply_gradients(model, result.gradients)
    num_rows = count_rows(batch[0])
    measured = result.sample_gradients if score == "loss" else row_norms(result.logits_gradients, num_rows)
    if measured is not None:
        scale = (num_rows if result.loss.is_mean else 1) * backend.replicas_in_step() / loss_scale
        measured = backend.collect_rows(ops.cast(measured, "float32") * scale / weights)
    return WeightedStepResult(measured, result.y_pred, loss)


def learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """Return the current learning rate, the sum over the parts of an optimizer that consists of several."""
    parts = keras_internals.optimizer_parts(optimizer)
    return float(sum(np.asarray(part.learning_rate) for part in parts if part.built))


def _call_in_training(model: keras.Model, logits: Logits | None, x: Any, tap: Callable) -> Any:
    """Call a model in training mode, with `tap` applied to its logits unless `logits` is None."""
    if logits is None:
        return call(model, x, training=True)
    return logits.tap(lambda: call(model, x, training=True), tap)


def _num_rows(x: Any) -> Any:
    """Return the number of rows of a structure of tensors."""
    return ops.shape(flatten(x)[0][0])[0]


def _ones(x: Any) -> Any:
    """Return the multiplier of an unweighted batch, float32 `(batch,)`."""
    return ops.ones((_num_rows(x),), dtype=FLOAT)
