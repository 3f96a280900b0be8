"""The metric of every sample: `MetricLayer`.

The metric must be a mean over samples. Metrics such as AUC or precision aren't, so they have no value per sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from importance_sampling.backend import keras_internals
from importance_sampling.layers.per_sample import PerSampleLayer, aligned, mean_per_sample

ACCURACY = ("accuracy", "acc")


@keras.saving.register_keras_serializable(package="importance_sampling")
class MetricLayer(PerSampleLayer):
    """Compute the metric of every sample: called on `[y_true, y_pred]`, the layer returns `(batch, 1)`.

    metric_i = mean over the entries e of sample i of metric(y_true_ie, y_pred_ie)

    Entries that are masked in `y_pred` are excluded; the metric of a sample without unmasked entries is 0. The result
    is computed and returned in float32 (float64 with a float64 policy).

    Args:
        metric: str, dict, function of `(y_true, y_pred)` that returns a value per sample or per entry, or Keras metric
            object that is the mean of such a function. As in `compile`, "accuracy" means binary accuracy for
            predictions of one unit, sparse categorical accuracy for targets without a class axis, and categorical
            accuracy otherwise. Register your own functions with Keras to load saved models.
        **kwargs: of `keras.layers.Layer`: name, dtype, trainable.

    Call arguments:
        inputs: list of `y_true`, any dtype, `(batch, ...)`, and `y_pred`, `(batch, ...)`. `(batch,)` is treated as
            `(batch, 1)`.

    Returns:
        float32 `(batch, 1)`.

    Raises:
        ValueError: `metric` isn't a metric or has no value per sample, or the inputs aren't two tensors.

    Example:
        >>> y_true, y_pred = np.array([0, 2]), np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]])
        >>> keras.ops.convert_to_numpy(MetricLayer("accuracy")([y_true, y_pred])).tolist()
        [[1.0], [0.0]]

    Source: that of the metric.
    """

    INPUTS = ("y_true", "y_pred")

    def __init__(self, metric: str | dict | Callable | keras.metrics.Metric, **kwargs: Any):
        super().__init__(**kwargs)
        # Keras would track a metric object as a metric of the model and reset it, so only its function is stored.
        self._function, self._arguments = _resolve(metric)
        self._identifier = _identifier(metric)

    def values(self, y_true: Any, y_pred: Any, mask: Any = None) -> Any:
        """Return the metric of every sample, `(batch,)`."""
        y_true, y_pred = aligned(*(self._at_least_float32(t) for t in (y_true, y_pred)))
        function = self._function or _accuracy(y_true, y_pred)
        values = ops.convert_to_tensor(function(y_true, y_pred, **self._arguments))
        values_mask = keras_internals.get_mask(values)
        values = ops.cast(values, self.result_dtype)
        if values_mask is not None:
            keras_internals.set_mask(values, values_mask)
        return mean_per_sample(values, mask, y_pred, "`metric`")

    def _at_least_float32(self, tensor: Any) -> Any:
        """Cast floats to `result_dtype`; integers are unchanged."""
        is_float = "float" in keras.backend.standardize_dtype(tensor.dtype)
        return ops.cast(tensor, self.result_dtype) if is_float else ops.convert_to_tensor(tensor)

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        is_config = isinstance(self._identifier, (str, dict))
        metric = self._identifier if is_config else keras.metrics.serialize(self._identifier)
        return {**super().get_config(), "metric": metric}


def _accuracy(y_true: Any, y_pred: Any) -> Callable:
    """Select the accuracy function by the shapes, as `compile` does."""
    if y_pred.shape[-1] == 1:
        return keras.metrics.binary_accuracy
    if len(y_true.shape) < len(y_pred.shape) or y_true.shape[-1] == 1:
        return keras.metrics.sparse_categorical_accuracy
    return keras.metrics.categorical_accuracy


def _resolve(metric: Any) -> tuple[Callable | None, dict]:
    """Return the function of a metric and its further arguments.

    Returns:
        `(function, arguments)`; the function is None for "accuracy", which depends on the shapes.

    Raises:
        ValueError: the metric is unknown, or isn't the mean of a function.
    """
    if isinstance(metric, str) and metric.lower() in ACCURACY:
        return None, {}
    if isinstance(metric, str) and _is_function(getattr(keras.metrics, metric, None)):
        return getattr(keras.metrics, metric), {}
    try:
        resolved = keras.metrics.get(metric)
    except (ValueError, TypeError) as error:
        raise ValueError(_requirement(metric)) from error
    if not isinstance(resolved, keras.metrics.Metric):
        if callable(resolved):
            return resolved, {}
    elif isinstance(resolved, keras.metrics.MeanMetricWrapper):
        return keras_internals.metric_function(resolved)
    raise ValueError(_requirement(metric))


def _identifier(metric: Any) -> Any:
    """Return the config entry of a metric: the name for Keras functions, the serialized config for objects."""
    if isinstance(metric, keras.metrics.Metric):
        return keras.metrics.serialize(metric)
    name = getattr(metric, "__name__", None)
    return name if name is not None and getattr(keras.metrics, name, None) is metric else metric


def _is_function(candidate: Any) -> bool:
    return callable(candidate) and not isinstance(candidate, type)


def _requirement(metric: Any) -> str:
    return (
        '`metric` must be "accuracy", the name of a Keras metric, a function `metric(y_true, y_pred)` or a metric '
        "object that is the mean of such a function. Other metrics have no value per sample. "
        f"Received: metric={metric!r}"
    )
