"""The base class of layers that return one value per sample, and functions for shapes and masks."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from importance_sampling.backend import keras_internals
from importance_sampling.utils.numerics import at_least_float32_dtype


class PerSampleLayer(keras.layers.Layer):
    """A layer without weights that takes a list of tensors and returns `(batch, 1)`.

    Inputs aren't cast to the policy's compute dtype. The result is float32, or float64 with a float64 policy, because
    losses and norms overflow and underflow in float16.

    A subclass sets `INPUTS`, the names of the inputs, and implements `values`.
    """

    INPUTS: tuple[str, ...] = ()

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True

    @property
    def result_dtype(self) -> str:
        """The dtype of the computation and of the result: the policy's compute dtype, at least float32."""
        return at_least_float32_dtype(self.compute_dtype)

    def build(self, input_shape: Any) -> None:
        """Check the input shapes. There are no weights."""
        self.check_shapes(input_shape)

    def check_shapes(self, shapes: Any) -> None:
        """Check that `shapes` contains one shape with a batch axis for each of `INPUTS`.

        Raises:
            ValueError: the number of shapes is wrong, or a shape has no batch axis.
        """
        nested = isinstance(shapes, (list, tuple)) and all(isinstance(shape, (list, tuple)) for shape in shapes)
        if not nested or len(shapes) != len(self.INPUTS) or any(len(shape) == 0 for shape in shapes):
            raise ValueError(
                f"{type(self).__name__} must be called on a list of {len(self.INPUTS)} tensors with a batch axis: "
                f"`[{', '.join(self.INPUTS)}]`. Received: shapes={shapes}"
            )

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Return one value per sample, `(batch, 1)`. `mask` is the list of input masks; only the last one is used."""
        values = self.values(*inputs, mask=mask[-1] if mask else None)
        return ops.reshape(ops.cast(values, self.result_dtype), (-1, 1))

    def values(self, *inputs: Any, mask: Any) -> Any:
        """Return one value per sample, `(batch,)`."""
        raise NotImplementedError

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """Return None: the output has no mask, because masked entries are excluded from the values."""
        return None

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Return `(batch, 1)`."""
        self.check_shapes(input_shape)
        return (input_shape[-1][0], 1)

    def compute_output_spec(self, inputs: Any, mask: Any = None) -> keras.KerasTensor:
        """Return a `KerasTensor` of shape `(batch, 1)` and dtype `result_dtype`."""
        return keras.KerasTensor(self.compute_output_shape([t.shape for t in inputs]), dtype=self.result_dtype)


def aligned(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Expand targets and predictions of shape `(batch,)` to `(batch, 1)`, as `model.fit` does.

    Args:
        y_true: tensor `(batch, ...)`.
        y_pred: tensor `(batch, ...)`.

    Returns:
        `(y_true, y_pred)`. Sparse targets, with one axis less than predictions of several classes, are unchanged.
    """
    if len(y_pred.shape) == 1:
        y_pred = ops.expand_dims(y_pred, -1)
    if len(y_true.shape) == len(y_pred.shape) - 1 and y_pred.shape[-1] == 1:
        y_true = ops.expand_dims(y_true, -1)
    return y_true, y_pred


def mean_per_sample(values: Any, mask: Any, y_pred: Any, origin: str) -> Any:
    """Return the mean over all axes but the first. With a mask, the mean is over unmasked entries.

    Args:
        values: float `(batch, ...)`. A Keras mask attached to `values` is applied too.
        mask: bool or None, with the shape of `values` without some trailing axes, or broadcastable to it.
        y_pred: tensor `(batch, ...)`, the predictions; only the batch size is used.
        origin: str, the argument that computes the values, for the error message.

    Returns:
        Float `(batch,)`; 0 for a sample without unmasked entries.

    Raises:
        ValueError: `values` doesn't have one row per sample, or has fewer axes than a mask.
    """
    batch_sizes = {t.shape[0] for t in (values, y_pred) if len(t.shape) > 0} - {None}
    if len(values.shape) == 0 or len(batch_sizes) > 1:
        raise ValueError(
            f"{origin} must return a value per sample or per entry: don't reduce over the batch axis. "
            f"Received: values of shape {tuple(values.shape)} for predictions of shape {tuple(y_pred.shape)}"
        )
    masks = [m for m in (mask, keras_internals.get_mask(values)) if m is not None]
    if not masks:
        return ops.mean(values, axis=tuple(range(1, len(values.shape))))
    valid = ops.ones_like(values)
    for each in masks:
        if len(each.shape) > len(values.shape):
            raise ValueError(
                f"{origin} must return values with the axes of the mask, {tuple(each.shape)}: remove the mask from the "
                f"predictions, or reduce fewer axes. Received: values of shape {tuple(values.shape)}"
            )
        missing = (1,) * (len(values.shape) - len(each.shape))
        valid = valid * ops.cast(ops.reshape(each, (*ops.shape(each), *missing)), values.dtype)
    axes = tuple(range(1, len(values.shape)))
    # `where` and not a product, because masked entries may be infinite.
    total = ops.sum(ops.where(valid > 0, values, ops.zeros_like(values)), axis=axes)
    return total / ops.maximum(ops.sum(valid, axis=axes), 1.0)
