"""The loss of every sample: `LossLayer` and the function `loss_per_sample`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from importance_sampling.layers.per_sample import PerSampleLayer, aligned, mean_per_sample

Loss = str | dict | Callable | keras.losses.Loss


def resolve(loss: Loss) -> Callable:
    """Return the Keras loss of an identifier: a `Loss` object or a function.

    Raises:
        ValueError: the identifier is unknown, or the `Loss` object doesn't implement `call`.
    """
    try:
        resolved = keras.losses.get(loss)
    except (ValueError, TypeError) as error:
        raise ValueError(_requirement(loss)) from error
    if not callable(resolved):  # None
        raise ValueError(_requirement(loss))
    if isinstance(resolved, keras.losses.Loss) and type(resolved).call is keras.losses.Loss.call:
        raise ValueError(f"`loss` must implement `call`, which returns the values per sample. Received: loss={loss!r}")
    return resolved


def loss_per_sample(loss: Callable, y_true: Any, y_pred: Any, mask: Any, dtype: str) -> Any:
    """Return the loss of every sample: the mean over its unmasked entries. The loss's reduction is ignored.

    Args:
        loss: `keras.losses.Loss` or function, as returned by `resolve`.
        y_true: tensor `(batch, ...)`; cast to `dtype`, as a compiled loss does.
        y_pred: tensor `(batch, ...)`; cast to `dtype`.
        mask: bool mask of the predictions, or None.
        dtype: str, the dtype of the computation.

    Returns:
        Tensor `(batch,)`.
    """
    y_true, y_pred = aligned(ops.cast(y_true, dtype), ops.cast(y_pred, dtype))
    values = (loss.call if isinstance(loss, keras.losses.Loss) else loss)(y_true, y_pred)
    return mean_per_sample(values, mask, y_pred, "`loss`")


def _requirement(loss: Any) -> str:
    return (
        "`loss` must be the name of a Keras loss, a `keras.losses.Loss` object or a function `loss(y_true, y_pred)`. "
        f"Received: loss={loss!r}"
    )


@keras.saving.register_keras_serializable(package="importance_sampling")
class LossLayer(PerSampleLayer):
    """Compute the loss of every sample: called on `[y_true, y_pred]`, the layer returns `(batch, 1)`.

    loss_i = mean over the entries e of sample i of loss(y_true_ie, y_pred_ie)

    Entries that are masked in `y_pred` are excluded; the loss of a sample without unmasked entries is 0. The reduction
    of a loss object is ignored. The result is computed and returned in float32 (float64 with a float64 policy).

    Args:
        loss: str, dict, `keras.losses.Loss` or function of `(y_true, y_pred)` that returns a value per sample or per
            entry. Register your own functions with Keras to load saved models. Arguments that Keras omits from the
            config of a loss object, such as `delta` of `Huber` in Keras 3.15, aren't restored.
        **kwargs: of `keras.layers.Layer`: name, dtype, trainable.

    Call arguments:
        inputs: list of `y_true`, any dtype, `(batch, ...)`, and `y_pred`, float `(batch, ...)`. `(batch,)` is treated
            as `(batch, 1)`.

    Returns:
        float32 `(batch, 1)`.

    Raises:
        ValueError: `loss` isn't a loss or doesn't return a value per sample, or the inputs aren't two tensors.

    Example:
        >>> y_true, y_pred = np.array([[0.0, 1.0], [2.0, 2.0]]), np.array([[0.0, 3.0], [1.0, 2.0]])
        >>> keras.ops.convert_to_numpy(LossLayer("mse")([y_true, y_pred])).tolist()
        [[2.0], [0.5]]

    Source: that of the loss.
    """

    INPUTS = ("y_true", "y_pred")

    def __init__(self, loss: Loss, **kwargs: Any):
        super().__init__(**kwargs)
        self.loss = resolve(loss)

    def values(self, y_true: Any, y_pred: Any, mask: Any = None) -> Any:
        """Return the loss of every sample, `(batch,)`."""
        return loss_per_sample(self.loss, y_true, y_pred, mask, self.result_dtype)

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        return {**super().get_config(), "loss": keras.losses.serialize(self.loss)}
