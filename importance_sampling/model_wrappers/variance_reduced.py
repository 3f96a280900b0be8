"""Steps along variance-reduced gradients: a snapshot of the weights and its mean gradient take the noise out.

Source: [JZ13] Johnson & Zhang, Accelerating Stochastic Gradient Descent using Predictive Variance Reduction; [LJ17] Lei
& Jordan, Less than a Single Pass: Stochastically Controlled Stochastic Gradient; [AZ17] Allen-Zhu, Katyusha: The First
Direct Acceleration of Stochastic Gradient Methods. When to take snapshots, and over which samples, is decided
elsewhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from importance_sampling import backend
from importance_sampling.model_wrappers.base import ModelWrapper, trained
from importance_sampling.model_wrappers.figures import of_batch, record
from importance_sampling.model_wrappers.gradient import Measured, Pass, backward, follow, weighted
from importance_sampling.scores import flat
from importance_sampling.utils.numerics import at_least_float32_dtype
from importance_sampling.utils.validation import is_real
from importance_sampling.weighted_loss import Multiplier, Unsupported


class SVRGWrapper(ModelWrapper):
    """Trains a compiled model along grad_i(w) - grad_i(w') + m, w' a snapshot of the weights, m its mean gradient.

    Unbiased: the mean over i is the full gradient at w, if m is that at w'. The closer w to w', the smaller the
    variance; over the whole set at the snapshot it is none. The model's own optimizer follows it. Both gradients see
    the same dropout masks, and batch statistics move once a step. With m over a part of the samples it is SCSG, with
    the noise of that part.

    A step costs two plain ones, a snapshot a plain step without its update for every batch that it is taken over, and
    memory twice that of the weights. It loses where the model is far from convex or moves far between snapshots, as
    deep networks with dropout or batch normalisation do: then the snapshot's gradient is no longer like that at w.

    Args:
        model: a compiled `keras.Model` whose loss is a mean over the batch; it stays the user's own.

    Attributes:
        snapshot, mean: lists of variables, w' and m, shaped as the trainable weights; the wrapper's, not the model's.

    Raises:
        ValueError: the model isn't compiled, or its samples can't be weighed.

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
        """Take a snapshot of the weights as they are, with the mean gradient over samples, in training mode.

        Dropout draws masks for it from the model's own generators; nothing else of the model moves.

        Args:
            batches: iterable of `(x, y)` or `(x, y, sample_weight)`.

        Raises:
            ValueError: there is no batch, or the loss is not a mean over the batch.
        """
        rows = 0
        for batch in batches:
            batch = self._ready(*keras.utils.unpack_x_y_sample_weight(batch))
            if rows == 0:
                self._begin()
            size = flat(batch[0])[0][0].shape[0]
            rows += size
            self._compiled(self._accumulate, reduce_retracing=True)(batch, np.float32(size / rows))
        if rows == 0:
            raise ValueError("`batches` must hold at least one batch. Received: none")
        self._rows.assign(rows)

    def train_batch(self, x: Any, y: Any, w: Any = None) -> tuple[np.ndarray, list[float], np.ndarray]:
        """Take a variance-reduced gradient step.

        Args:
            x, y: the batch.
            w: float `(batch,)`, weights of the samples in both gradients, not in m; None: 1.

        Returns:
            losses: float32 `(batch,)`, of every sample, in training mode, unweighted.
            metrics: list of floats, the compiled metrics of this batch alone, in the order of `evaluate`.
            scores: float32 `(batch,)`, the losses again.

        Raises:
            ValueError: there is no snapshot yet, or `w` has another shape.
        """
        batch = self._ready(x, y)
        rows = flat(batch[0])[0][0].shape[0]
        w = np.ones(rows, "float32") if w is None else np.asarray(w, "float32")
        if w.size != rows:
            raise ValueError(f"`w` must hold a weight for each of the {rows} samples. Received: w of shape {w.shape}")
        if not self.snapshot_rows:
            raise ValueError("`train_batch` needs a snapshot: call `update_grad` first. Received: none yet")
        losses, logs = self._compiled(self._train)(batch, w.reshape(rows))
        return trained(losses, logs, losses)

    @property
    def snapshot_rows(self) -> int:
        """Over how many samples the snapshot's mean gradient is; 0: there is no snapshot."""
        return int(backend.host(self._rows))

    def step(self, batch: tuple) -> tuple[dict, Any]:
        """Take a step on `(x, y, sample_weight)` of tensors and count it as Keras's own step does; to be compiled.

        Returns:
            The logs, and every sample's loss, float32 `(batch,)`, in training mode.
        """
        measured: list[Measured] = []
        taken = self._advance(batch, _even, measured)
        return record(self.model, batch, taken.y_pred), measured[0].losses

    def state(self) -> dict[str, np.ndarray]:
        """The wrapper's variables as arrays, by name."""
        return {name: backend.host(variable) for name, variable in self._named()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take what `state` returned; the model must have been built."""
        self._allocate()
        for name, variable in self._named():
            variable.assign(state[name])

    def _named(self) -> list[tuple[str, keras.Variable]]:
        lists = dict(snapshot=self.snapshot, mean=self.mean)
        return [("rows", self._rows), *((f"{name}/{i}", v) for name, vs in lists.items() for i, v in enumerate(vs))]

    def _allocate(self) -> None:
        """Make the wrapper's variables, once the model has its own."""
        if not self.snapshot:
            self.snapshot = copies(self.model, "snapshot")
            # In half precision a mean over many batches would stop moving.
            self.mean = copies(self.model, "mean", at_least_float32_dtype)

    def _begin(self) -> None:
        """Begin a snapshot; until it is complete there is none."""
        self._allocate()
        self._rows.assign(0)
        for variable, snapshot, mean in zip(self.model.trainable_weights, self.snapshot, self.mean, strict=True):
            snapshot.assign(variable)
            mean.assign(ops.zeros_like(mean))

    def _accumulate(self, batch: tuple, share: Any) -> None:
        """Move the mean by a share towards a batch's gradient at the snapshot."""
        taken, scope = self._at_snapshot(batch, _even, lambda loss: loss)
        if not all(output.is_mean for output in taken.loss.outputs):
            raise Unsupported(
                "a loss is a sum over the batch, so that its mean gradient depends on how large batches are. "
                'Use reduction="sum_over_batch_size"'
            )
        for mean, gradient in zip(self.mean, taken.gradients, strict=True):
            if gradient is not None:
                mean.assign_add((ops.cast(backend.dense(gradient), mean.dtype) - mean) * ops.cast(share, mean.dtype))
        # Every batch has dropout masks of its own: the generators move, and nothing else of the model does.
        weights = {id(v) for v in self.model.weights}
        for variable in self.model.variables:
            value = scope.get_current_value(variable)
            if id(variable) not in weights and value is not None:
                variable.assign(value)

    def _train(self, batch: tuple, w: Any) -> tuple:
        measured: list[Measured] = []
        taken = self._advance(batch, weighted(w), measured)
        return measured[0].losses, of_batch(self.model, batch, taken.y_pred)

    def _advance(self, batch: tuple, multiplier: Multiplier, measured: list) -> Pass:
        """Take the step; what the pass at the current weights measures is put into `measured`."""
        gradients, taken = self._gradients(batch, multiplier, self.model.optimizer.scale_loss, measured)
        follow(self.model, gradients)
        return taken

    def _gradients(self, batch: tuple, multiplier: Multiplier, scale: Callable, measured: list) -> tuple:
        """grad(w) - grad(w') + m, and the pass at w, the current weights."""

        def weigh(measure: Callable[[], Measured]) -> Multiplier:
            measured.append(measure())
            return multiplier

        # The snapshot goes first, and moves nothing: then the current weights meet the same dropout masks.
        before, _ = self._at_snapshot(batch, multiplier, scale)
        taken = backward(self.model, None, batch, weigh, scale)
        gradients = [
            None if now is None else _corrected(backend.dense(now), backend.dense(then), scale(mean.value))
            for now, then, mean in zip(taken.gradients, before.gradients, self.mean, strict=True)
        ]
        return gradients, taken

    def _at_snapshot(self, batch: tuple, multiplier: Multiplier, scale: Callable) -> tuple[Pass, keras.StatelessScope]:
        """A pass with the snapshot for weights, and the scope that knows what of the model would have moved."""
        weights = [ops.convert_to_tensor(variable) for variable in self.snapshot]
        scope = keras.StatelessScope(state_mapping=list(zip(self.model.trainable_weights, weights, strict=True)))
        with scope:
            return backward(self.model, None, batch, lambda _: multiplier, scale, weights), scope


class KatyushaWrapper(SVRGWrapper):
    """Trains a compiled model with the momentum of Katyusha: the snapshot also holds back where the gradient is taken.

    x = t1 z + t2 w' + (1 - t1 - t2) y; v = grad_i(x) - grad_i(w') + m; z <- z - lr v / t1; y <- x - lr v. The model's
    weights are y; z starts where they are at the first snapshot, and goes on over all further ones, which are taken of
    y. lr is the optimizer's; nothing else of it is used.

    Costs, memory (a third copy of the weights), and where it loses: as `SVRGWrapper`. It is made for convex losses.

    Args:
        model: a compiled `keras.Model` whose loss is a mean over the batch, best with plain `SGD`.
        t1: float in (0, 1], default 0.5; the share of z.
        t2: float in [0, 1 - t1], default 0.5; the share of the snapshot.

    Attributes:
        snapshot, mean, z: lists of variables, shaped as the trainable weights; the wrapper's, not the model's.

    Raises:
        ValueError: t1 or t2 is out of its range, and as `SVRGWrapper`.

    Example:
        >>> wrapper = KatyushaWrapper(model, t1=0.4, t2=0.5)
        >>> wrapper.update_grad((x[i : i + 128], y[i : i + 128]) for i in range(0, len(x), 128))
        >>> losses, metrics, scores = wrapper.train_batch(x[:32], y[:32])

    Source: [AZ17], Algorithm 1, with w' the last y of a stretch in place of their weighted mean.
    """

    def __init__(self, model: keras.Model, t1: float = 0.5, t2: float = 0.5):
        check_shares(t1, t2)
        super().__init__(model)
        self.t1 = float(t1)
        self.t2 = float(t2)
        self.z: list[keras.Variable] = []
        optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        if type(optimizer) is not keras.optimizers.SGD or optimizer.momentum:
            warnings.warn(
                f"Katyusha has a momentum of its own: of the optimizer {optimizer.name!r} it uses the learning rate "
                "alone. Compile with a plain `keras.optimizers.SGD`.",
                stacklevel=2,
            )

    def _named(self) -> list[tuple[str, keras.Variable]]:
        return [*super()._named(), *((f"z/{i}", v) for i, v in enumerate(self.z))]

    def _allocate(self) -> None:
        super()._allocate()
        if not self.z:
            self.z = copies(self.model, "z")

    def _advance(self, batch: tuple, multiplier: Multiplier, measured: list) -> Pass:
        optimizer = self.model.optimizer
        weights = list(zip(self.model.trainable_weights, self.z, self.snapshot, strict=True))
        for y, z, snapshot in weights:
            y.assign(self.t1 * z + self.t2 * snapshot + (1.0 - self.t1 - self.t2) * y)  # it is x for now
        gradients, taken = self._gradients(batch, multiplier, lambda loss: loss, measured)
        for (y, z, _), gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                move = ops.cast(optimizer.learning_rate, y.dtype) * ops.cast(gradient, y.dtype)
                z.assign(_constrained(y, z - move / self.t1))
                y.assign(_constrained(y, y - move))
        optimizer.iterations.assign_add(1)
        return taken


def check_shares(t1: float, t2: float) -> None:
    """Raise unless x can be made of shares t1 of z, t2 of w' and the rest of y.

    Raises:
        ValueError: it can't.
    """
    if not (is_real(t1) and is_real(t2) and 0 < t1 <= 1 and 0 <= t2 <= 1 and t1 + t2 <= 1 + 1e-6):
        raise ValueError(
            f"`t1` must be in (0, 1], `t2` in [0, 1], and their sum at most 1. Received: t1={t1!r}, t2={t2!r}"
        )


def copies(model: keras.Model, name: str, dtype: Callable[[str], str] = str) -> list[keras.Variable]:
    """Return variables with the shapes and values of the model's trainable weights; `dtype` maps the dtype of each."""
    return [
        keras.Variable(ops.convert_to_tensor(v), trainable=False, dtype=dtype(v.dtype), name=f"{name}_{i}")
        for i, v in enumerate(model.trainable_weights)
    ]


def _corrected(now: Any, then: Any, mean: Any) -> Any:
    """Return now - then + mean, in the dtype of the gradients `now` and `then`; the mean may have a wider one."""
    return ops.cast(ops.cast(now - then, mean.dtype) + mean, now.dtype)


def _constrained(variable: keras.Variable, value: Any) -> Any:
    return value if variable.constraint is None else variable.constraint(value)


def _even(*_: Any) -> float:
    """The multiplier of samples that all count the same."""
    return 1.0
