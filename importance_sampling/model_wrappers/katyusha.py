"""A model wrapper that trains with the momentum of Katyusha, along variance-reduced gradients.

Source: [AZ17] Allen-Zhu, Katyusha: The First Direct Acceleration of Stochastic Gradient Methods, 2017.
"""

from __future__ import annotations

import warnings
from typing import Any

import keras
from keras import ops

from importance_sampling.backend import keras_internals
from importance_sampling.core.gradients import BackwardResult, sample_losses
from importance_sampling.core.weighted_loss import Multiplier
from importance_sampling.model_wrappers.variance_reduced import SVRGWrapper, copies
from importance_sampling.utils.validation import is_real


class KatyushaWrapper(SVRGWrapper):
    """Train a compiled model with Katyusha: variance-reduced gradients with a momentum towards the snapshot.

    x = t1 z + t2 w' + (1 - t1 - t2) y; v = grad_i(x) - grad_i(w') + m; z <- z - lr v / t1; y <- x - lr v.

    The weights of the model are y. z starts at the weights of the first snapshot and is not reset by further snapshots,
    which are taken of y. lr is the learning rate of the optimizer; its other settings are ignored.

    Designed for convex losses. Cost as for `SVRGWrapper`. Memory: three copies of the weights.

    Args:
        model: a compiled `keras.Model` whose loss is a mean over the batch, with a `keras.optimizers.SGD` without
            momentum. Scoring doesn't change it.
        t1: float in (0, 1], default 0.5, the share of z.
        t2: float in [0, 1 - t1], default 0.5, the share of the snapshot.

    Attributes:
        snapshot, mean, z: lists of variables of the wrapper, w', m and z, in the shapes of the trainable weights.

    Raises:
        ValueError: t1 or t2 is out of range, the model isn't compiled, or its samples can't be weighted.

    Warns:
        UserWarning: the optimizer isn't `SGD` without momentum.

    Example:
        >>> model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
        >>> wrapper = KatyushaWrapper(model, t1=0.4, t2=0.5)
        >>> wrapper.update_grad((x[i : i + 128], y[i : i + 128]) for i in range(0, len(x), 128))
        >>> losses, metrics, scores = wrapper.train_batch(x[:32], y[:32])

    Source: [AZ17], Algorithm 1, where w' is the last y before a snapshot instead of a weighted mean.
    """

    def __init__(self, model: keras.Model, t1: float = 0.5, t2: float = 0.5):
        check_shares(t1, t2)
        super().__init__(model)
        self.t1 = float(t1)
        self.t2 = float(t2)
        self.z: list[keras.Variable] = []
        optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        if not isinstance(optimizer, keras.optimizers.SGD) or optimizer.momentum:
            warnings.warn(
                "Katyusha computes its own momentum and uses only the learning rate of the optimizer. Compile with "
                f"`keras.optimizers.SGD` without momentum. Received: optimizer={optimizer.name!r}",
                stacklevel=2,
            )

    def _named_variables(self) -> list[tuple[str, keras.Variable]]:
        return [*super()._named_variables(), *((f"z/{i}", v) for i, v in enumerate(self.z))]

    def _allocate(self) -> None:
        super()._allocate()
        if not self.z:
            self.z = copies(self.model, "z")

    def _advance(self, batch: tuple, multiplier: Multiplier) -> tuple[BackwardResult, Any]:
        """Take a step of Katyusha in the place of the optimizer's."""
        optimizer = self.model.optimizer
        weights = list(zip(self.model.trainable_weights, self.z, self.snapshot, strict=True))
        for y, z, snapshot in weights:
            y.assign(self.t1 * z + self.t2 * snapshot + (1.0 - self.t1 - self.t2) * y)  # y holds x until the update
        gradients, result = self._corrected_gradients(batch, multiplier, lambda loss: loss)
        losses = sample_losses(self.model, batch, result.y_pred)
        for (y, z, _), gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                update = ops.cast(optimizer.learning_rate, y.dtype) * ops.cast(gradient, y.dtype)
                z.assign(_constrained(y, z - update / self.t1))
                y.assign(_constrained(y, y - update))
        keras_internals.optimizer_steps(optimizer).assign_add(1)
        return result, losses


def check_shares(t1: float, t2: float) -> None:
    """Check that t1 is in (0, 1], t2 in [0, 1], and their sum at most 1.

    Raises:
        ValueError: they aren't.
    """
    if not (is_real(t1) and is_real(t2) and 0 < t1 <= 1 and 0 <= t2 <= 1 and t1 + t2 <= 1 + 1e-6):
        raise ValueError(
            f"`t1` must be in (0, 1], `t2` in [0, 1], and their sum at most 1. Received: t1={t1!r}, t2={t2!r}"
        )


def _constrained(variable: keras.Variable, value: Any) -> Any:
    """Return a new value of a variable after its constraint."""
    return value if variable.constraint is None else variable.constraint(value)
