"""The norm of the loss gradient at the logits (pre-activations) of every sample: `GradientNormLayer`.

This is the score of [KF18]. Up to constants it is an upper bound of the norm of the gradient at the weights.

Source: [KF18] Katharopoulos & Fleuret, Not All Samples Are Created Equal (arXiv 1803.00942), equation 20, without the
constants L and rho, which are equal for all samples.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from importance_sampling import backend
from importance_sampling.layers.losses import Loss, loss_per_sample, resolve
from importance_sampling.layers.per_sample import PerSampleLayer


@keras.saving.register_keras_serializable(package="importance_sampling")
class GradientNormLayer(PerSampleLayer):
    """Compute the gradient norm of every sample: called on `[targets, pre_activations]`, returns `(batch, 1)`.

    g_i = || d loss_i / d z_i ||_2, with the logits z_i of sample i, and loss_i the mean over its unmasked entries

    The result is computed and returned in float32 (float64 with a float64 policy). float16 logits are cast before the
    loss is computed.

    Args:
        loss: str, dict, `keras.losses.Loss` or function of `(y_true, y_pred)` that returns a value per sample or per
            entry. The value of a sample must not depend on other samples. A name ("categorical_crossentropy",
            "sparse_categorical_crossentropy", "binary_crossentropy", ...) or a function with an argument `from_logits`
            is used with `from_logits=True`. Register your own functions with Keras to load saved models.
        **kwargs: of `keras.layers.Layer`: name, dtype, trainable.

    Call arguments:
        inputs: list of `targets`, any dtype, `(batch, ...)`, and `pre_activations`, float `(batch, ...)`.

    Returns:
        float32 `(batch, 1)`, >= 0.

    Raises:
        ValueError: `loss` isn't a loss, or is an object with `from_logits=False`; the inputs aren't two tensors; or the
            loss has no gradient at the logits (raised in the call).

    Example:
        >>> targets, logits = np.array([[1.0, 0.0]]), np.log(np.array([[1.0, 3.0]]))
        >>> norms = GradientNormLayer("categorical_crossentropy")([targets, logits])  # |(1/4, 3/4) - (1, 0)|
        >>> keras.ops.convert_to_numpy(norms)
        array([[1.0606602]], dtype=float32)

    Source: [KF18], equation 20.
    """

    INPUTS = ("targets", "pre_activations")

    def __init__(self, loss: Loss, **kwargs: Any):
        super().__init__(**kwargs)
        self.loss = resolve(loss)
        if isinstance(loss, str) and getattr(self.loss, "from_logits", None) is False:
            self.loss = type(self.loss)(from_logits=True)
        if getattr(self.loss, "from_logits", None) is False:
            raise ValueError(
                "`loss` must take logits: construct it with from_logits=True, or pass its name. "
                f"Received: loss={type(self.loss).__name__}(from_logits=False)"
            )

    def values(self, targets: Any, pre_activations: Any, mask: Any = None) -> Any:
        """Return the gradient norm of every sample, `(batch,)`."""
        loss = _from_logits(self.loss)
        z = ops.cast(pre_activations, self.result_dtype)

        def forward(extra: Sequence[Any], tap: Callable) -> tuple:
            # Losses of different samples are independent, so row i of the gradient of the sum is d loss_i / d z_i.
            return ops.sum(loss_per_sample(loss, targets, extra[0], mask, self.result_dtype)), None

        gradient = backend.differentiate(forward, (), [z])[0].extra[0]
        if gradient is None:
            raise ValueError(
                "`loss` must be differentiable at the logits: remove operations such as rounding or comparison. "
                f"Received: loss={self.loss!r}"
            )
        return _norm(gradient)

    def get_config(self) -> dict:
        """Return the constructor arguments."""
        return {**super().get_config(), "loss": keras.losses.serialize(self.loss)}


def _from_logits(loss: Callable) -> Callable:
    """Set `from_logits=True` if the loss is a function with this argument."""
    if inspect.isfunction(loss) and "from_logits" in inspect.signature(loss).parameters:
        return functools.partial(loss, from_logits=True)
    return loss


def _norm(gradient: Any) -> Any:
    """Return norms over all axes but the first. The derivative at 0 is 0 instead of NaN."""
    square = ops.sum(ops.square(gradient), axis=tuple(range(1, len(gradient.shape))))
    positive = square > 0
    return ops.where(positive, ops.sqrt(ops.where(positive, square, 1.0)), 0.0)
