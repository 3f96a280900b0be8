"""What layers that return one number per sample share: shapes, dtypes, masks, and the mean over what a sample holds.

No source: it is bookkeeping. It doesn't know what is computed, and it never reduces over the batch.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class PerSampleLayer(keras.layers.Layer):
    """A layer without weights that is called on a list of tensors and returns `(batch, 1)`.

    Inputs reach `values` as they are, not cast to float16; the result is float32, or float64 under that policy,
    because losses and norms leave the range of float16 both ways.

    A subclass sets `INPUTS` and implements `values`.
    """

    INPUTS: tuple[str, ...] = ()

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True

    @property
    def result_dtype(self) -> str:
        """The dtype computed in and returned: the policy's, at least float32."""
        return keras.backend.result_type(self.compute_dtype, "float32")

    def build(self, input_shape: Any) -> None:
        """Check the inputs' shapes; there are no weights to make."""
        self.check_shapes(input_shape)

    def check_shapes(self, shapes: Any) -> None:
        """Raise unless `shapes` is one shape, of at least the batch's axis, for each of `INPUTS`.

        Raises:
            ValueError: it isn't.
        """
        nested = isinstance(shapes, (list, tuple)) and all(isinstance(shape, (list, tuple)) for shape in shapes)
        if not nested or len(shapes) != len(self.INPUTS) or any(len(shape) == 0 for shape in shapes):
            raise ValueError(
                f"{type(self).__name__} must be called on a list of {len(self.INPUTS)} tensors with a batch axis: "
                f"`[{', '.join(self.INPUTS)}]`. Received: shapes={shapes}"
            )

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """One number per sample, `(batch, 1)`; `mask` is the list of the inputs' masks, of which the last counts."""
        values = self.values(*inputs, mask=mask[-1] if mask else None)
        return ops.reshape(ops.cast(values, self.result_dtype), (-1, 1))

    def values(self, *inputs: Any, mask: Any) -> Any:
        """One number per sample, of shape `(batch,)`."""
        raise NotImplementedError

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """None: what was masked has been left out."""
        return None

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """`(batch, 1)`."""
        self.check_shapes(input_shape)
        return (input_shape[-1][0], 1)

    def compute_output_spec(self, inputs: Any, mask: Any = None) -> keras.KerasTensor:
        """`(batch, 1)` in `result_dtype`."""
        return keras.KerasTensor(self.compute_output_shape([t.shape for t in inputs]), dtype=self.result_dtype)


def aligned(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Targets and predictions with a feature axis each: `(batch,)` is `(batch, 1)`, as it is for `model.fit`.

    Args:
        y_true: tensor `(batch, ...)`.
        y_pred: tensor `(batch, ...)`.

    Returns:
        The two. Sparse targets, with an axis less than predictions of many classes, stay sparse.
    """
    if len(y_pred.shape) == 1:
        y_pred = ops.expand_dims(y_pred, -1)
    if len(y_true.shape) == len(y_pred.shape) - 1 and y_pred.shape[-1] == 1:
        y_true = ops.expand_dims(y_true, -1)
    return y_true, y_pred


def mean_per_sample(values: Any, mask: Any, like: Any, origin: str) -> Any:
    """The mean over all axes but the first, over valid entries alone where there is a mask.

    Args:
        values: float `(batch, ...)`.
        mask: bool, broadcastable to `values` but for trailing axes, or None. A mask that the loss itself left on
            `values` counts as well.
        like: tensor `(batch, ...)` that says how many samples there are.
        origin: what made the values, for the message.

    Returns:
        Float `(batch,)`; 0 for a sample without valid entries.

    Raises:
        ValueError: there isn't a value per sample.
    """
    rows = {t.shape[0] for t in (values, like) if len(t.shape) > 0} - {None}
    if len(values.shape) == 0 or len(rows) > 1:
        raise ValueError(
            f"{origin} must return a value per sample or per entry: reduce it over all axes but the first. "
            f"Received: values of shape {tuple(values.shape)} for predictions of shape {tuple(like.shape)}"
        )
    masks = [m for m in (mask, getattr(values, "_keras_mask", None)) if m is not None]
    if not masks:
        return ops.mean(values, axis=tuple(range(1, len(values.shape))))
    valid = ops.ones_like(values)
    for one in masks:
        if len(one.shape) > len(values.shape):
            raise ValueError(
                f"{origin} must return values with the axes of the mask, {tuple(one.shape)}: take the mask off the "
                f"predictions, or reduce fewer axes. Received: values of shape {tuple(values.shape)}"
            )
        missing = (1,) * (len(values.shape) - len(one.shape))
        valid = valid * ops.cast(ops.reshape(one, (*ops.shape(one), *missing)), values.dtype)
    rest = tuple(range(1, len(values.shape)))
    # Not a product: an entry that is masked may well be infinite.
    total = ops.sum(ops.where(valid > 0, values, ops.zeros_like(values)), axis=rest)
    return total / ops.maximum(ops.sum(valid, axis=rest), 1.0)
