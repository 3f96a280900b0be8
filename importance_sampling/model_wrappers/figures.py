"""The figures of the progress bar: the model's own loss and metrics, from a fair sample of the data.

A batch drawn by importance is no fair sample, so what was trained on is not what is counted. Source: what
`keras.src.trainers.trainer.Trainer.compute_metrics` does with a batch. Nothing is trained here.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from importance_sampling.weighted_loss import OutputLoss, WeightedLoss, stateless, weighted_loss


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
    size = keras.tree.flatten(x)[0].shape[0]

    def multiplier(_: int, output: OutputLoss) -> Any:
        # A loss that is summed would count every candidate.
        return ops.full((size,), count_as / size if output.reduction == "sum" else 1.0)

    loss = weighted_loss(model, x, y, y_pred, sample_weight, multiplier, training=False)
    additive = {id(v): v for metric in _metrics(model) if _is_additive(metric) for v in metric.variables}
    for variable in additive.values():
        _scale_update(variable, loss.scope.get_current_value(variable), count_as / size)
    model._loss_tracker.update_state(loss.value, sample_weight=count_as)
    if type(model).compute_metrics is not keras.Model.compute_metrics:
        # The user's own bookkeeping: it is shown as many fair samples as a plain step would show it.
        rows = keras.tree.map_structure(lambda t: None if t is None else t[:count_as], (x, y, y_pred, sample_weight))
        return model.compute_metrics(rows[0], rows[1], rows[2], sample_weight=rows[3]), loss
    if model._compile_metrics is not None:
        with stateless(model) as pool_scope:
            model._compile_metrics.update_state(y, y_pred, sample_weight)
        with stateless(model) as rows_scope:
            rows = keras.tree.map_structure(lambda t: None if t is None else t[:count_as], (y, y_pred, sample_weight))
            model._compile_metrics.update_state(*rows)
        for variable in model._compile_metrics.variables:
            if id(variable) in additive:
                _scale_update(variable, pool_scope.get_current_value(variable), count_as / size)
            elif rows_scope.get_current_value(variable) is not None:
                variable.assign(rows_scope.get_current_value(variable))
    return model.get_metrics_result(), loss


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
    loss = model._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True)
    model._loss_tracker.update_state(loss, sample_weight=ops.shape(keras.tree.flatten(x)[0])[0])
    return model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)


def of_batch(model: keras.Model, data: tuple, y_pred: Any) -> dict:
    """What `record` would return if this were the first batch; nothing moves."""
    with stateless(model):
        model.reset_metrics()
        return record(model, data, y_pred)


def _scale_update(variable: keras.Variable, value: Any, scale: float) -> None:
    """Move a variable by a part of what it would have moved."""
    if value is not None:
        variable.assign(variable.value + scale * (value - variable.value))


def _metrics(model: keras.Model) -> list[keras.Metric]:
    """The model's metrics, those that `compile` holds taken out of their container."""
    found: list[keras.Metric] = []
    for metric in model.metrics:
        found.extend(metric.metrics if metric is model._compile_metrics else [metric])
    return found


def _is_additive(metric: keras.Metric) -> bool:
    """Whether a metric's state is a sum over samples, so that a part of an update counts as a part of the samples."""
    return type(metric).__module__.startswith("keras.") and all(
        keras.backend.is_float_dtype(v.dtype) for v in metric.variables
    )
