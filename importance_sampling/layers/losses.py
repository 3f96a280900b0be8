"""Losses by sample, inside a model: `LossLayer`, and how an identifier becomes a function of targets and predictions.

No source: the formulas are those of the loss handed over. Nothing is weighed or reduced over the batch, and class or
sample weights are not applied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from importance_sampling.layers.per_sample import PerSampleLayer, aligned, mean_per_sample

Loss = str | dict | Callable | keras.losses.Loss


def resolve(loss: Loss) -> Callable:
    """The Keras loss behind an identifier: a `Loss` object or a function.

    Raises:
        ValueError: there is none, or it is an object that doesn't implement `call`.
    """
    try:
        found = keras.losses.get(loss)
    except (ValueError, TypeError) as error:
        raise ValueError(_requirement(loss)) from error
    if not callable(found):  # None
        raise ValueError(_requirement(loss))
    if isinstance(found, keras.losses.Loss) and type(found).call is keras.losses.Loss.call:
        raise ValueError(f"`loss` must implement `call`, where its values per sample are. Received: loss={loss!r}")
    return found


def loss_per_sample(loss: Callable, y_true: Any, y_pred: Any, mask: Any, dtype: str) -> Any:
    """The loss of every sample, of shape `(batch,)`: the mean over its (valid) entries, whatever the reduction.

    Args:
        loss: what `resolve` returns.
        y_true: tensor `(batch, ...)`, cast to `dtype` as a compiled loss would.
        y_pred: tensor `(batch, ...)`.
        mask: bool, of the predictions, or None.
        dtype: of the computation.
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
    """The loss of every sample, as a layer's output: called on `[y_true, y_pred]`, it returns `(batch, 1)`.

    loss_i = mean over the entries e of sample i of loss(y_true_ie, y_pred_ie)

    Entries that the mask of `y_pred` leaves out don't count; a sample without any has the loss 0. The object's
    reduction plays no part. Computed in float32 (float64 under a float64 policy), and returned so.

    Args:
        loss: str, dict, `keras.losses.Loss` or function of `(y_true, y_pred)` that returns a value per sample or per
            entry. A function of your own must be registered with Keras to be loaded again. What Keras leaves out of
            a loss object's configuration, such as `Huber`'s delta in Keras 3.15, isn't loaded again either.
        **kwargs: of `keras.layers.Layer`: name, dtype, trainable.

    Call arguments:
        inputs: list of `y_true`, any dtype, `(batch, ...)`, and `y_pred`, float `(batch, ...)`; one axis counts as
            `(batch, 1)`.

    Returns:
        float32 `(batch, 1)`.

    Raises:
        ValueError: `loss` is no loss, it returns no value per sample, or the inputs aren't two tensors.

    Example:
        >>> y_true, y_pred = np.array([[0.0, 1.0], [2.0, 2.0]]), np.array([[0.0, 3.0], [1.0, 2.0]])
        >>> LossLayer("mse")([y_true, y_pred])  # [[2.0], [0.5]]

    Source: the loss's own.
    """

    INPUTS = ("y_true", "y_pred")

    def __init__(self, loss: Loss, **kwargs: Any):
        super().__init__(**kwargs)
        self.loss = resolve(loss)

    def values(self, y_true: Any, y_pred: Any, mask: Any = None) -> Any:
        """The loss of every sample, `(batch,)`."""
        return loss_per_sample(self.loss, y_true, y_pred, mask, self.result_dtype)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "loss": keras.losses.serialize(self.loss)}
