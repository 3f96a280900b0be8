"""Train a model with variance-reduced gradients, from a snapshot of the weights and the mean gradient at the snapshot.

Source: [JZ13] Johnson & Zhang, Accelerating Stochastic Gradient Descent using Predictive Variance Reduction; [LJ17] Lei
& Jordan, Less than a Single Pass: Stochastically Controlled Stochastic Gradient; [AZ17] Allen-Zhu, Katyusha: The First
Direct Acceleration of Stochastic Gradient Methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from importance_sampling import backend
from importance_sampling.backend.scopes import NestedScope
from importance_sampling.core.gradients import (
    BackwardResult,
    compute_gradients,
    importance_multiplier,
    sample_losses,
)
from importance_sampling.core.metric_updates import batch_metrics, update_from_batch
from importance_sampling.core.weighted_loss import Multiplier
from importance_sampling.data.batches import count_rows
from importance_sampling.model_wrappers.base import ModelWrapper, to_host_results
from importance_sampling.utils.errors import Unsupported
from importance_sampling.utils.numerics import at_least_float32_dtype


class SVRGWrapper(ModelWrapper):
    """Train a compiled model with the gradients grad_i(w) - grad_i(w') + m.

    w' is a snapshot of the weights and m the mean gradient at w'. The optimizer of the model applies the gradients.

    Unbiased if m is the mean gradient over the whole dataset. The variance falls with the distance between w and w'.
    Both gradients of a step use the same dropout masks, and batch statistics are updated once per step. With m over a
    part of the samples the method is SCSG, whose gradients have the sampling error of m.

    Cost: two uniform steps per step; a snapshot takes a forward and a backward pass over each of its batches. Memory:
    two copies of the weights. Not suited to models that are far from convex or whose weights change much between
    snapshots, such as deep networks with dropout or batch normalisation: there the gradients at w' and w differ.

    Args:
        model: a compiled `keras.Model` whose loss is a mean over the batch. Scoring doesn't change it.

    Attributes:
        snapshot, mean: lists of variables of the wrapper, w' and m, in the shapes of the trainable weights.

    Raises:
        ValueError: the model isn't compiled, or its samples can't be weighted.

    Example:
        >>> wrapper = SVRGWrapper(model)
        >>> wrapper.update_grad((x[i : i + 128], y[i : i + 128]) for i in range(0, len(x), 128))
        >>> losses, metrics, scores = wrapper.train_batch(x[:32], y[:32], np.ones(32))

    Source: [JZ13], equation 8; [LJ17], Algorithm 1.
    """

    def __init__(self, model: keras.Model):
        super().__init__(model)
        self.snapshot: list[keras.Variable] = []
        self.mean: list[keras.Variable] = []
        self._rows = keras.Variable(0, dtype="int32", trainable=False, name="snapshot_rows")

    def update_grad(self, batches: Iterable) -> None:
        """Take a snapshot of the current weights, and compute the mean gradient over samples in training mode.

        Of the model's variables only the states of random generators change, for example of dropout.

        Args:
            batches: iterable of `(x, y)` or `(x, y, sample_weight)`, arrays or structures of arrays.

        Raises:
            ValueError: there is no batch, or the loss is not a mean over the batch.
        """
        rows = 0
        for batch in batches:
            batch = self._prepare(*keras.utils.unpack_x_y_sample_weight(batch))
            if rows == 0:
                self._begin_snapshot()
            size = count_rows(batch[0])
            rows += size
            self._compiled(self._accumulate, reduce_retracing=True)(batch, np.float32(size / rows))
        if rows == 0:
            raise ValueError("`batches` must yield at least one batch. Received: none")
        self._rows.assign(rows)

    def train_batch(self, x: Any, y: Any, w: Any = None) -> tuple[np.ndarray, list[float], np.ndarray]:
        """Train on a batch with a variance-reduced gradient.

        Args:
            x, y: arrays or structures of arrays, the batch.
            w: float `(batch,)`, the weights of the samples in the gradients at w and w', not in m. Default None, 1.

        Returns:
            losses: float32 `(batch,)`, the loss of each sample in training mode, unweighted.
            metrics: list of floats, the compiled metrics of this batch, in the order of `evaluate`.
            scores: float32 `(batch,)`, equal to `losses`.

        Raises:
            ValueError: there is no snapshot yet, or `w` has another size.
        """
        batch = self._prepare(x, y)
        rows = count_rows(batch[0])
        w = np.ones(rows, "float32") if w is None else np.asarray(w, "float32")
        if w.size != rows:
            raise ValueError(f"`w` must have one weight for each of the {rows} samples. Received: w of shape {w.shape}")
        if not self.snapshot_rows:
            raise ValueError("`train_batch` needs a snapshot. Call `update_grad` first. Received: no snapshot")
        losses, logs = self._compiled(self._train)(batch, w.reshape(rows))
        return to_host_results(losses, logs, losses)

    @property
    def snapshot_rows(self) -> int:
        """The number of samples of the mean gradient, an int; 0 if there is no snapshot."""
        return int(backend.to_host(self._rows))

    def step(self, batch: tuple) -> tuple[dict, Any]:
        """Train on a batch, and update the loss and the metrics of the model as Keras's own step does.

        The function is meant to be compiled.

        Args:
            batch: `(x, y, sample_weight)` of tensors; `sample_weight` may be None.

        Returns:
            The logs of Keras's own step, and the loss of each sample in training mode, float32 `(batch,)`.
        """
        result, losses = self._advance(batch, _unit_multiplier)
        return update_from_batch(self.model, batch, result.y_pred), losses

    def state(self) -> dict[str, np.ndarray]:
        """Return the variables of the wrapper as arrays, by name."""
        return {name: backend.to_host(variable) for name, variable in self._named_variables()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Restore the arrays that `state` returned; the model must be built."""
        self._allocate()
        for name, variable in self._named_variables():
            variable.assign(state[name])

    def _named_variables(self) -> list[tuple[str, keras.Variable]]:
        """Return the variables to save, with the names they are saved under."""
        lists = dict(snapshot=self.snapshot, mean=self.mean)
        return [("rows", self._rows), *((f"{name}/{i}", v) for name, vs in lists.items() for i, v in enumerate(vs))]

    def _allocate(self) -> None:
        """Create the variables of the wrapper if they don't exist; the model must be built."""
        if not self.snapshot:
            self.snapshot = copies(self.model, "snapshot")
            # In half precision the updates of a mean over many batches would be rounded to zero.
            self.mean = copies(self.model, "mean", at_least_float32_dtype)

    def _begin_snapshot(self) -> None:
        """Copy the weights and reset the mean; `snapshot_rows` is 0 until the snapshot is complete."""
        self._allocate()
        self._rows.assign(0)
        for variable, snapshot, mean in zip(self.model.trainable_weights, self.snapshot, self.mean, strict=True):
            snapshot.assign(ops.copy(variable))  # which the next step may overwrite in place
            mean.assign(ops.zeros_like(mean.value))

    def _accumulate(self, batch: tuple, share: Any) -> None:
        """Update the mean with the gradient of a batch at the snapshot.

        Args:
            batch: `(x, y, sample_weight)` of tensors.
            share: float scalar, the share of this batch in all samples so far.

        Raises:
            Unsupported: the loss is not a mean over the batch.
        """
        result, scope = self._gradients_at_snapshot(batch, _unit_multiplier, lambda loss: loss)
        if not all(output.is_mean for output in result.loss.outputs):
            raise Unsupported(
                "a loss is a sum over the batch, so its mean gradient depends on the batch size. "
                'Use reduction="sum_over_batch_size"'
            )
        for mean, gradient in zip(self.mean, result.gradients, strict=True):
            if gradient is not None:
                mean.assign_add((ops.cast(backend.dense(gradient), mean.dtype) - mean) * ops.cast(share, mean.dtype))
        # Update the random generators, so that each batch has different dropout masks; discard all other changes.
        weights = {id(v) for v in self.model.weights}
        for variable in self.model.variables:
            value = scope.updated(variable)
            if id(variable) not in weights and value is not None:
                variable.assign(value)

    def _train(self, batch: tuple, w: Any) -> tuple:
        """Train on a batch with weights `(batch,)`; return the losses of its samples and the logs."""
        result, losses = self._advance(batch, importance_multiplier(w))
        return losses, batch_metrics(self.model, batch, result.y_pred)

    def _advance(self, batch: tuple, multiplier: Multiplier) -> tuple[BackwardResult, Any]:
        """Take a step; return the result of the backward pass before it, and the losses of its samples."""
        gradients, result = self._corrected_gradients(batch, multiplier, self.model.optimizer.scale_loss)
        losses = sample_losses(self.model, batch, result.y_pred)
        backend.apply_gradients(self.model, gradients)
        return result, losses

    def _corrected_gradients(
        self, batch: tuple, multiplier: Multiplier, scale: Callable
    ) -> tuple[list, BackwardResult]:
        """Return grad(w) - grad(w') + m, and the result of the backward pass at the current weights w."""
        # The snapshot comes first and changes no generator, so that the second pass uses the same dropout masks.
        with backend.repeatable_random():
            at_snapshot, _ = self._gradients_at_snapshot(batch, multiplier, scale)
        result = compute_gradients(self.model, None, batch, multiplier, scale)
        gradients = [
            None if now is None else _corrected(backend.dense(now), backend.dense(then), scale(mean.value))
            for now, then, mean in zip(result.gradients, at_snapshot.gradients, self.mean, strict=True)
        ]
        return gradients, result

    def _gradients_at_snapshot(
        self, batch: tuple, multiplier: Multiplier, scale: Callable
    ) -> tuple[BackwardResult, NestedScope]:
        """Compute gradients with the snapshot as weights; the scope holds the changes of the model's variables."""
        weights = [ops.convert_to_tensor(variable) for variable in self.snapshot]
        scope = NestedScope(list(zip(self.model.trainable_weights, weights, strict=True)))
        with scope:
            return compute_gradients(self.model, None, batch, multiplier, scale), scope


def copies(model: keras.Model, name: str, dtype: Callable[[str], str] = str) -> list[keras.Variable]:
    """Return non-trainable variables with the values of the trainable weights of a model.

    Args:
        model: a built model.
        name: the prefix of the names of the variables.
        dtype: function from the dtype of a weight to that of its copy. Default: the same dtype.
    """
    return [
        keras.Variable(ops.copy(v), trainable=False, dtype=dtype(v.dtype), name=f"{name}_{i}")
        for i, v in enumerate(model.trainable_weights)
    ]


def _corrected(now: Any, then: Any, mean: Any) -> Any:
    """Return now - then + mean in the dtype of `now`; the mean is added in its own dtype, which may be wider."""
    return ops.cast(ops.cast(now - then, mean.dtype) + mean, now.dtype)


def _unit_multiplier(*_: Any) -> float:
    """Return the multiplier of unweighted samples."""
    return 1.0
