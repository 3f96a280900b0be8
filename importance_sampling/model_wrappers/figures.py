"""The figures of the progress bar: the model's own loss and metrics, from a fair sample of the data.

A batch drawn by importance is no fair sample, so figures come from the pool that it was drawn from (`evaluate`), or
from the batch made fair by its weights (`count`). Where the batch is a fair sample it is counted as it is (`record`).
Source: what `keras.src.trainers.trainer.Trainer.compute_metrics` does with a batch. Nothing is trained here.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.model_wrappers.gradient import Stepped
from importance_sampling.samplers.resampling import SystematicResampling
from importance_sampling.scores import flat
from importance_sampling.utils.numerics import FLOAT, at_least_float32
from importance_sampling.weighted_loss import OutputLoss, WeightedLoss, stateless, weighted_loss

FAIR = SystematicResampling()


def evaluate(model: keras.Model, data: tuple, y_pred: Any, count_as: int) -> tuple[dict, WeightedLoss]:
    """Update the model's loss and metrics from a uniform pool, counting as `count_as` samples.

    Args:
        model: compiled and built.
        data: `(x, y, sample_weight)` of the pool.
        y_pred: its outputs, in inference mode.
        count_as: int, how many samples the pool counts as, beside the batches of plain steps.

    Returns:
        The logs, as Keras's own step returns them, and the pool's loss.
    """
    x, y, sample_weight = data
    size = flat(x)[0][0].shape[0]

    def multiplier(_: int, output: OutputLoss) -> Any:
        # A loss that is summed would count every candidate.
        return ops.full((size,), count_as / size if output.reduction == "sum" else 1.0, dtype=FLOAT)

    loss = weighted_loss(model, x, y, y_pred, sample_weight, multiplier, training=False)
    share = count_as / size
    return _counted(model, data, y_pred, loss, count_as, share, share), loss


def count(model: keras.Model, data: tuple, stepped: Stepped, weights: Any, uniform: Any) -> dict:
    """Update the model's loss and metrics from a batch that was drawn by importance, in training mode.

    The weighted loss estimates the mean loss as it is. For metrics, whatever they are, the batch is drawn from once
    more, in proportion to the weights, and counts as many samples as the weights add up to.

    Args:
        model: compiled and built.
        data: `(x, y, sample_weight)` of the batch.
        stepped: what the step saw, its loss by these weights.
        weights: float32 `(batch,)`, the unbiased ones, whatever the batch was trained on with.
        uniform: float `(1,)` in [0, 1).

    Returns:
        The logs, as Keras's own step returns them.
    """
    x, y, sample_weight = data
    rows = weights.shape[0]
    positions = FAIR.positions(weights / ops.sum(weights), uniform, rows)
    x, y, y_pred, sample_weight = _take((x, y, stepped.y_pred, sample_weight), positions)
    return _counted(model, (x, y, sample_weight), y_pred, stepped.loss, rows, 1.0, ops.mean(weights))


def _counted(
    model: keras.Model, data: tuple, y_pred: Any, loss: WeightedLoss, rows: int, loss_share: Any, share: Any
) -> dict:
    """Update the model's loss and metrics.

    Args:
        data, y_pred: of fair samples.
        loss: what the trackers of loss are shown.
        rows: int, how many samples it stands for.
        loss_share: as what part of a sample each one counts, where losses are added up.
        share: the same for metrics; those that add nothing up are shown the first `rows` samples.
    """
    x, y, sample_weight = data
    additive = {id(v) for metric in _metrics(model) if _is_additive(metric) for v in metric.variables}
    for metric in _metrics(model):
        for variable in metric.variables:
            if id(variable) in additive:
                _scale_update(variable, loss.scope.get_current_value(variable), loss_share)
    keras_internals.loss_tracker(model).update_state(loss.value, sample_weight=rows)
    first = (x, y, y_pred, sample_weight)
    if rows < flat(x)[0][0].shape[0]:
        first = _take(first, ops.arange(rows, dtype="int32"))
    if type(model).compute_metrics is not keras.Model.compute_metrics:
        # The user's own bookkeeping: it is shown as many fair samples as a plain step would show it.
        return model.compute_metrics(first[0], first[1], first[2], sample_weight=first[3])
    if keras_internals.compiled_metrics(model) is not None:
        with stateless(model) as all_scope:
            keras_internals.compiled_metrics(model).update_state(y, y_pred, sample_weight)
        with stateless(model) as first_scope:
            keras_internals.compiled_metrics(model).update_state(*first[1:])
        for variable in keras_internals.compiled_metrics(model).variables:
            if id(variable) in additive:
                _scale_update(variable, all_scope.get_current_value(variable), share)
            elif first_scope.get_current_value(variable) is not None:
                variable.assign(first_scope.get_current_value(variable))
    return model.get_metrics_result()


def _take(structure: Any, positions: Any) -> Any:
    """Rows of a structure of tensors, with the masks that hang on them."""

    def take(t: Any) -> Any:
        if t is None:
            return None
        rows = backend.gather(t, positions)
        mask = keras_internals.get_mask(t)
        if mask is not None:
            keras_internals.set_mask(rows, backend.gather(mask, positions))
        return rows

    return keras.tree.map_structure(take, structure)


def record(model: keras.Model, data: tuple, y_pred: Any) -> dict:
    """Update the model's loss and metrics from a batch, as Keras's own training step does.

    Args:
        model: compiled and built.
        data: `(x, y, sample_weight)` of the batch.
        y_pred: its outputs, in training mode.

    Returns:
        The logs.
    """
    x, y, sample_weight = data
    loss = keras_internals.compute_loss(model, x, y, y_pred, sample_weight, training=True)
    keras_internals.loss_tracker(model).update_state(loss, sample_weight=ops.shape(flat(x)[0][0])[0])
    return model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)


def of_batch(model: keras.Model, data: tuple, y_pred: Any) -> dict:
    """What `record` would return if this were the first batch; nothing moves."""
    with stateless(model):
        model.reset_metrics()
        return record(model, data, y_pred)


def _scale_update(variable: keras.Variable, value: Any, scale: Any) -> None:
    """Move a variable by a part of what it would have moved."""
    if value is not None:
        before = at_least_float32(variable.value)
        variable.assign(before + ops.cast(scale, before.dtype) * (at_least_float32(value) - before))


def _metrics(model: keras.Model) -> list[keras.Metric]:
    """The model's metrics, those that `compile` holds taken out of their container."""
    found: list[keras.Metric] = []
    for metric in model.metrics:
        found.extend(metric.metrics if metric is keras_internals.compiled_metrics(model) else [metric])
    return found


def _is_additive(metric: keras.Metric) -> bool:
    """Whether a metric's state is a sum over samples, so that a part of an update counts as a part of the samples."""
    return type(metric).__module__.startswith("keras.") and all(
        keras.backend.is_float_dtype(v.dtype) for v in metric.variables
    )
