"""The weighted gradient step on the user's own model, which measures scores on its way.

It does what Keras does in a step (`keras.src.backend.tensorflow.trainer.TensorFlowTrainer.train_step`), in its order,
each sample's loss times its weight. What is trained on, and with what weights, is decided elsewhere.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops

from importance_sampling import backend
from importance_sampling.pre_activations import PreActivations
from importance_sampling.scores import call, row_norms
from importance_sampling.weighted_loss import OutputLoss, WeightedLoss, weighted_loss


class Stepped(NamedTuple):
    """What a step saw."""

    measured: Any  # float32 (batch,), scores in training mode; None where there are none to see
    y_pred: Any  # the model's outputs, in training mode, before the step
    loss: WeightedLoss


def weighted_step(
    model: keras.Model,
    points: PreActivations,
    batch: tuple,
    weights: Any,
    expected: list | None = None,
    measure: str = "gnorm",
) -> Stepped:
    """Follow the weighted gradient of a batch.

    Args:
        model: compiled and built.
        points: where `gnorm` is measured.
        batch: `(x, y, sample_weight)`, the last two may be None.
        weights: float32 `(batch,)`, importance weights, > 0.
        expected: for every output how many entries of a sample count on average, None for outputs without a mask.
            Keras divides a masked loss by the valid entries of the batch that it sees; a picked batch's are biased,
            and are replaced by these. None: by the weighted mean over the batch itself.
        measure: "gnorm" or "loss", which scores to measure.

    Returns:
        `Stepped`.
    """
    x, y, sample_weight = batch
    rows = keras.tree.flatten(x)[0].shape[0]
    ones = ops.ones((rows,), dtype="float32")

    def multiplier(number: int, output: OutputLoss) -> Any:
        if output.entries is None or not output.is_mean:
            return weights * ones
        of_all = ops.mean(weights * output.entries) if expected is None else expected[number]
        return weights * ones * ops.mean(output.entries) / ops.maximum(of_all, 1e-7)

    trainable = model.trainable_weights

    def forward() -> tuple:
        with points.caught() as caught:
            y_pred = call(model, x, training=True)
        at = [ones] if measure == "loss" else points.of(y_pred, caught)
        loss = weighted_loss(model, x, y, y_pred, sample_weight, multiplier, training=True)
        return model.optimizer.scale_loss(loss.total), [*trainable, *at], (y_pred, loss)

    scale = model.optimizer.scale_loss(ops.ones(()))
    gradients, _, (y_pred, loss) = backend.differentiate(forward, (ones,) if measure == "loss" else ())
    model.optimizer.apply_gradients(zip(gradients[: len(trainable)], trainable, strict=True))
    at = gradients[len(trainable) :]
    measured = at[0] if measure == "loss" else row_norms(at)
    if measured is not None:
        measured = ops.cast(measured, "float32") * ((rows if loss.is_mean else 1) / scale) / weights
    return Stepped(measured, y_pred, loss)
