"""The score of [KF18] as a layer: how long the loss's gradient at the pre-activations is, sample by sample.

Source: [KF18] Katharopoulos & Fleuret, Not All Samples Are Created Equal (arXiv 1803.00942), equation 20, without the
constants L and rho, which are the same for all samples. It doesn't find the pre-activations of a model, and it isn't
the norm of the gradient at the weights, which this bounds up to those constants.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from importance_sampling import backend
from importance_sampling.layers.losses import Loss, loss_per_sample, resolve
from importance_sampling.layers.per_sample import PerSampleLayer


@keras.saving.register_keras_serializable(package="importance_sampling")
class GradientNormLayer(PerSampleLayer):
    """The gradient norm of every sample: called on `[targets, pre_activations]`, it returns `(batch, 1)`.

    g_i = || d loss_i / d z_i ||_2, z_i the pre-activations of sample i, loss_i the mean over its (valid) entries

    Computed in float32 (float64 under a float64 policy), and returned so; z in float16 is cast ahead of the loss.

    Args:
        loss: str, dict, `keras.losses.Loss` or function of `(y_true, y_pred)` that returns a value per sample or per
            entry, of that sample alone. As pre-activations are logits, a name ("categorical_crossentropy",
            "sparse_categorical_crossentropy", "binary_crossentropy", ...) or a function with an argument
            `from_logits` is used with `from_logits=True`. A function of your own must be registered with Keras to be
            loaded again.
        **kwargs: of `keras.layers.Layer`: name, dtype, trainable.

    Call arguments:
        inputs: list of `targets`, any dtype, `(batch, ...)`, and `pre_activations`, float `(batch, ...)`.

    Returns:
        float32 `(batch, 1)`, >= 0.

    Raises:
        ValueError: `loss` is no loss, or an object that takes probabilities; the inputs aren't two tensors; or, when
            called, the loss has no gradient at the pre-activations.

    Example:
        >>> targets, logits = np.array([[1.0, 0.0]]), np.log(np.array([[1.0, 3.0]]))
        >>> GradientNormLayer("categorical_crossentropy")([targets, logits])  # |(1/4, 3/4) - (1, 0)| = [[1.0607]]

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
                "`loss` must take logits, because pre-activations are logits: construct it with from_logits=True, or "
                f"pass its name. Received: loss={type(self.loss).__name__}(from_logits=False)"
            )

    def values(self, targets: Any, pre_activations: Any, mask: Any = None) -> Any:
        """The norm of every sample, `(batch,)`."""
        loss = _from_logits(self.loss)
        z = ops.cast(pre_activations, self.result_dtype)

        def forward() -> tuple:
            # Samples don't meet, so the gradient of the sum holds each one's own.
            return ops.sum(loss_per_sample(loss, targets, z, mask, self.result_dtype)), [z], None

        (gradient,), _, _ = backend.differentiate(forward, [z])
        if gradient is None:
            raise ValueError(
                "`loss` must be differentiable in the pre-activations: leave out what rounds or compares them. "
                f"Received: loss={self.loss!r}"
            )
        return _norm(gradient)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "loss": keras.losses.serialize(self.loss)}


def _from_logits(loss: Callable) -> Callable:
    """A function that could take logits, made to."""
    if inspect.isfunction(loss) and "from_logits" in inspect.signature(loss).parameters:
        return functools.partial(loss, from_logits=True)
    return loss


def _norm(gradient: Any) -> Any:
    """Norms over all axes but the first; 0 has the derivative 0, not NaN, for whoever trains through this layer."""
    square = ops.sum(ops.square(gradient), axis=tuple(range(1, len(gradient.shape))))
    positive = square > 0
    return ops.where(positive, ops.sqrt(ops.where(positive, square, 1.0)), 0.0)
