"""Metrics by sample, inside a model: `MetricLayer`.

No source: the formulas are those of the metric handed over. It keeps no running total, and metrics that are no mean
over samples, such as AUC or precision, have no value per sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from importance_sampling.layers.per_sample import PerSampleLayer, aligned, mean_per_sample

ACCURACY = ("accuracy", "acc")


@keras.saving.register_keras_serializable(package="importance_sampling")
class MetricLayer(PerSampleLayer):
    """The metric of every sample, as a layer's output: called on `[y_true, y_pred]`, it returns `(batch, 1)`.

    metric_i = mean over the entries e of sample i of metric(y_true_ie, y_pred_ie)

    Entries that the mask of `y_pred` leaves out don't count; a sample without any has the metric 0. Computed in
    float32 (float64 under a float64 policy), and returned so.

    Args:
        metric: str, dict, function of `(y_true, y_pred)` that returns a value per sample or per entry, or a Keras
            metric object that is the mean of such a function. "accuracy" is, as for `compile`, the binary one for
            predictions of one unit, the sparse one for targets without an axis of classes, else the categorical one.
            A function of your own must be registered with Keras to be loaded again.
        **kwargs: of `keras.layers.Layer`: name, dtype, trainable.

    Call arguments:
        inputs: list of `y_true`, any dtype, `(batch, ...)`, and `y_pred`, `(batch, ...)`; one axis counts as
            `(batch, 1)`.

    Returns:
        float32 `(batch, 1)`.

    Raises:
        ValueError: `metric` is no metric, or has no value per sample; or the inputs aren't two tensors.

    Example:
        >>> y_true, y_pred = np.array([0, 2]), np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]])
        >>> MetricLayer("accuracy")([y_true, y_pred])  # [[1.0], [0.0]]

    Source: the metric's own.
    """

    INPUTS = ("y_true", "y_pred")

    def __init__(self, metric: str | dict | Callable | keras.metrics.Metric, **kwargs: Any):
        super().__init__(**kwargs)
        # An attribute that is a metric object would be tracked, and reset, as the model's own: its function is kept.
        self._function, self._arguments = _resolve(metric)
        self._identifier = _identifier(metric)

    def values(self, y_true: Any, y_pred: Any, mask: Any = None) -> Any:
        """The metric of every sample, `(batch,)`."""
        y_true, y_pred = aligned(*(self._at_least_float32(t) for t in (y_true, y_pred)))
        function = self._function or _accuracy(y_true, y_pred)
        values = ops.convert_to_tensor(function(y_true, y_pred, **self._arguments))
        own_mask = getattr(values, "_keras_mask", None)
        values = ops.cast(values, self.result_dtype)
        if own_mask is not None:
            values._keras_mask = own_mask
        return mean_per_sample(values, mask, y_pred, "`metric`")

    def _at_least_float32(self, tensor: Any) -> Any:
        """Floats in the computation's dtype; labels stay integers."""
        floats = "float" in keras.backend.standardize_dtype(tensor.dtype)
        return ops.cast(tensor, self.result_dtype) if floats else ops.convert_to_tensor(tensor)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        named = isinstance(self._identifier, (str, dict))
        metric = self._identifier if named else keras.metrics.serialize(self._identifier)
        return {**super().get_config(), "metric": metric}


def _accuracy(y_true: Any, y_pred: Any) -> Callable:
    """Which accuracy the shapes call for."""
    if y_pred.shape[-1] == 1:
        return keras.metrics.binary_accuracy
    if len(y_true.shape) < len(y_pred.shape) or y_true.shape[-1] == 1:
        return keras.metrics.sparse_categorical_accuracy
    return keras.metrics.categorical_accuracy


def _resolve(metric: Any) -> tuple[Callable | None, dict]:
    """A function of targets and predictions and its further arguments; no function where shapes are to decide.

    Raises:
        ValueError: there is none.
    """
    if isinstance(metric, str) and metric.lower() in ACCURACY:
        return None, {}
    if isinstance(metric, str) and _is_function(getattr(keras.metrics, metric, None)):
        return getattr(keras.metrics, metric), {}
    try:
        found = keras.metrics.get(metric)
    except (ValueError, TypeError) as error:
        raise ValueError(_requirement(metric)) from error
    if not isinstance(found, keras.metrics.Metric):
        if callable(found):
            return found, {}
    elif isinstance(found, keras.metrics.MeanMetricWrapper):
        return found._fn, dict(found._fn_kwargs)
    raise ValueError(_requirement(metric))


def _identifier(metric: Any) -> Any:
    """What stands for the metric in a configuration: Keras's own functions go by name, objects by their own."""
    if isinstance(metric, keras.metrics.Metric):
        return keras.metrics.serialize(metric)
    name = getattr(metric, "__name__", None)
    return name if name is not None and getattr(keras.metrics, name, None) is metric else metric


def _is_function(candidate: Any) -> bool:
    return callable(candidate) and not isinstance(candidate, type)


def _requirement(metric: Any) -> str:
    return (
        '`metric` must be "accuracy", the name of a Keras metric, a function `metric(y_true, y_pred)` or a metric '
        "object that is the mean of such a function; others have no value per sample. "
        f"Received: metric={metric!r}"
    )
