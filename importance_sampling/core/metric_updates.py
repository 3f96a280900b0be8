"""Update the model's loss and metrics in importance steps, so that they estimate their values on the dataset.

A batch drawn by importance is not a uniform sample of the data. Loss and metrics therefore come from the pool that the
batch was drawn from (`update_from_pool`), or from the batch corrected by its unbiased weights
(`update_from_weighted_batch`). A uniform batch is used as it is (`update_from_batch`).
Source: `keras.src.trainers.trainer.Trainer.compute_metrics`, for the updates of a batch in Keras's own step.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.core.gradients import WeightedStepResult
from importance_sampling.core.weighted_loss import OutputLoss, WeightedLoss, stateless, weighted_loss
from importance_sampling.data.batches import count_rows, flatten
from importance_sampling.samplers.resampling import SystematicResampling
from importance_sampling.utils.numerics import FLOAT, at_least_float32
from importance_sampling.utils.structures import map_leaves

RESAMPLING = SystematicResampling()  # draws the samples that metrics are computed on


def update_from_pool(model: keras.Model, data: tuple, y_pred: Any, count_as: int) -> tuple[dict, WeightedLoss]:
    """Update the model's loss and metrics from a uniformly drawn pool, as if it had `count_as` samples.

    Args:
        model: a compiled and built model.
        data: `(x, y, sample_weight)` of the pool; `y` and `sample_weight` may be None.
        y_pred: the outputs of the model for the pool, in inference mode.
        count_as: int, the number of samples that the pool counts as: the batch size, so that uniform steps and
            importance steps have the same weight in the averages of an epoch.

    Returns:
        The logs of Keras's own step, and the `WeightedLoss` of the pool.
    """
    x, y, sample_weight = data
    size = count_rows(x)

    def multiplier(_: int, output: OutputLoss) -> Any:
        # A sum over the pool is scaled to a sum over `count_as` samples.
        return ops.full((size,), count_as / size if output.reduction == "sum" else 1.0, dtype=FLOAT)

    loss = weighted_loss(model, x, y, y_pred, sample_weight, multiplier, training=False)
    share = count_as / size
    return _update(model, data, y_pred, loss, count_as, share, share), loss


def update_from_weighted_batch(
    model: keras.Model, data: tuple, result: WeightedStepResult, weights: Any, uniform: Any
) -> dict:
    """Update the model's loss and metrics from a batch that was drawn by importance, in training mode.

    The weighted loss is an unbiased estimate of the mean loss. Metrics need not be means, so samples are drawn from the
    batch with probabilities proportional to the weights. They count as sum(weights) samples.

    Args:
        model: a compiled and built model.
        data: `(x, y, sample_weight)` of the batch; `y` and `sample_weight` may be None.
        result: the result of the step, with the loss under `weights`.
        weights: float32 `(batch,)`, the unbiased weights, also if the gradient had others.
        uniform: float `(1,)`, a random number in [0, 1).

    Returns:
        The logs of Keras's own step.
    """
    x, y, sample_weight = data
    num_rows = weights.shape[0]
    positions = RESAMPLING.positions(weights / ops.sum(weights), uniform, num_rows)
    x, y, y_pred, sample_weight = _take((x, y, result.y_pred, sample_weight), positions)
    return _update(model, (x, y, sample_weight), y_pred, result.loss, num_rows, 1.0, ops.mean(weights))


def _update(
    model: keras.Model, data: tuple, y_pred: Any, loss: WeightedLoss, count_as: int, loss_share: Any, share: Any
) -> dict:
    """Update the model's loss and metrics from samples that represent the dataset.

    Args:
        model: a compiled and built model.
        data, y_pred: of uniform samples.
        loss: the value for the loss tracker, and the updates of the loss trackers of the outputs.
        count_as: int, the number of samples that the loss counts as. Metrics whose state isn't a sum over samples are
            updated with the first `count_as` samples.
        loss_share: float, the factor of the updates of losses that are sums over samples.
        share: float, the factor of the updates of metrics that are sums over samples.

    Returns:
        The logs of Keras's own step.
    """
    x, y, sample_weight = data
    copies = backend.copies_of_batch()  # which Keras's own steps count
    loss_share, share = copies * loss_share, copies * share
    loss_updates = {id(v): value for v, value in zip(model.metrics_variables, loss.updates, strict=True)}
    additive = {id(v) for metric in _metrics(model) if _is_additive(metric) for v in metric.variables}
    for metric in _metrics(model):
        for variable in metric.variables:
            if id(variable) in additive:
                _scale_update(variable, loss_updates.get(id(variable)), loss_share)
    keras_internals.loss_tracker(model).update_state(loss.value, sample_weight=copies * count_as)
    first = (x, y, y_pred, sample_weight)
    has_more_rows = count_as < count_rows(x)
    if has_more_rows:
        first = _take(first, ops.arange(count_as, dtype="int32"))
    if type(model).compute_metrics is not keras.Model.compute_metrics:
        # A user-defined method gets as many samples as in a uniform step.
        return model.compute_metrics(first[0], first[1], first[2], sample_weight=first[3])
    if keras_internals.compiled_metrics(model) is not None:
        with stateless(model) as all_scope:
            keras_internals.compiled_metrics(model).update_state(y, y_pred, sample_weight)
        first_scope = all_scope
        if has_more_rows:
            with stateless(model) as first_scope:
                keras_internals.compiled_metrics(model).update_state(*first[1:])
        for variable in keras_internals.compiled_metrics(model).variables:
            if id(variable) in additive:
                _scale_update(variable, all_scope.updated(variable), share)
            elif first_scope.updated(variable) is not None:
                variable.assign(first_scope.updated(variable))
    return model.get_metrics_result()


def _take(structure: Any, positions: Any) -> Any:
    """Return rows of a structure of tensors, with the masks that Keras attached to the tensors."""

    def take(t: Any) -> Any:
        rows = backend.gather(t, positions)
        mask = keras_internals.get_mask(t)
        if mask is not None:
            keras_internals.set_mask(rows, backend.gather(mask, positions))
        return rows

    return map_leaves(take, structure)


def update_from_batch(model: keras.Model, data: tuple, y_pred: Any) -> dict:
    """Update the model's loss and metrics from a uniform batch, as Keras's own training step does.

    Args:
        model: a compiled and built model.
        data: `(x, y, sample_weight)` of the batch; `y` and `sample_weight` may be None.
        y_pred: the outputs of the model for the batch, in training mode.

    Returns:
        The logs of Keras's own step.
    """
    x, y, sample_weight = data
    # On torch Keras multiplies weights by a mask in place: of a copy, and not of the user's array.
    copied = map_leaves(ops.copy, sample_weight)
    loss = keras_internals.compute_loss(model, x, y, y_pred, copied, training=True)
    keras_internals.loss_tracker(model).update_state(loss, sample_weight=ops.shape(flatten(x)[0][0])[0])
    return model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)


def batch_metrics(model: keras.Model, data: tuple, y_pred: Any) -> dict:
    """Return the logs for this batch alone. The metrics of the model don't change.

    Args:
        model, data, y_pred: as for `update_from_batch`.
    """
    with stateless(model):
        model.reset_metrics()
        return update_from_batch(model, data, y_pred)


def _scale_update(variable: keras.Variable, value: Any, scale: Any) -> None:
    """Change a variable by `scale` times its update.

    Args:
        variable: with the value before the update.
        value: the value after the update; None if there was no update.
        scale: float.
    """
    if value is not None:
        before = at_least_float32(variable.value)
        variable.assign(before + ops.cast(scale, before.dtype) * (at_least_float32(value) - before))


def _metrics(model: keras.Model) -> list[keras.Metric]:
    """Return the metrics of a model, with the compiled metrics as single metrics instead of their container."""
    metrics: list[keras.Metric] = []
    for metric in model.metrics:
        metrics.extend(metric.metrics if metric is keras_internals.compiled_metrics(model) else [metric])
    return metrics


def _is_additive(metric: keras.Metric) -> bool:
    """Return True if the state of a metric is a sum over samples, so that its updates can be scaled.

    That holds for Keras's own metrics with floating-point states.
    """
    return type(metric).__module__.startswith("keras.") and all(
        keras.backend.is_float_dtype(v.dtype) for v in metric.variables
    )
