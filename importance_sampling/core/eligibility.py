"""Decide whether the samples of a model can be weighted one by one, and with how many rows the model can be called.

Where Keras trains a model and its samples can't be weighted, training continues with uniform steps after one warning
that gives the reason and the remedy. `unsupported_reason` needs no data, `check_loss` and `check_rows` need one batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.backend.scopes import NestedScope
from importance_sampling.core.scoring import call
from importance_sampling.core.weighted_loss import stateless, weighted_loss
from importance_sampling.data.batches import count_rows, flatten
from importance_sampling.utils.errors import Unsupported

# Largest change, relative to the largest entry, of a row that doesn't depend on the other rows: rounding.
TOLERANCE = {"float64": 1e-4, "float32": 1e-3}
TOLERANCE_LOW_PRECISION = 3e-2


def tolerance(dtype: str) -> float:
    """Return the largest relative change of a number that counts as rounding, in computations of this dtype."""
    return TOLERANCE.get(dtype, TOLERANCE_LOW_PRECISION)


def has_train_step(model: keras.Model) -> bool:
    """Return True if a model defines its own training step, or a part of it."""
    return keras_internals.overrides_methods(model, keras_internals.STEP_METHODS)


def unsupported_reason(model: keras.Model, accepts_train_step: bool = True) -> str | None:
    """Return why the samples of a model can't be weighted, with the remedy, as a clause; None if they can.

    Args:
        accepts_train_step: bool, False if importance steps can't be taken by a `train_step` that the model defines.
    """
    if backend.spans_processes(model):
        return (
            "its `tf.distribute` strategy has replicas in several processes, where Keras's own `fit` fails too. Train "
            "in one process, or in several on JAX with `keras.distribution`"
        )
    if not accepts_train_step and has_train_step(model):
        return (
            f"{type(model).__name__} defines a training step, in which this trainer can't measure scores. Use "
            "`ImportanceTraining` (or `recompute=1`, if the trainer has it), or move the special part of the step to "
            "`call` and `compute_loss`"
        )
    if keras_internals.overrides_methods(model, keras_internals.COMPILING_METHODS):
        return (
            f"{type(model).__name__} overrides `make_train_function`, and weights can't be passed to its training "
            "step. Override `train_step` or `compute_loss` instead"
        )
    if model.optimizer is None or (model.built and not model.trainable_variables):
        return "it has no trainable weights, or no optimizer"
    if keras_internals.compiled_loss(model) is None:
        return "no loss was passed to `compile`. Pass one; `add_loss` alone can't be weighted by sample"
    for layer in keras_internals.layers_of(model):
        if getattr(layer, "stateful", False) and isinstance(layer, keras.layers.RNN):
            return f"the layer `{layer.name}` is a stateful RNN, whose rows must stay in order. Use stateful=False"
        if layer.activity_regularizer is not None:
            return (
                f"the layer `{layer.name}` has an activity regulariser, a plain mean over the batch, which can't be "
                "weighted by sample. Use a weight regulariser"
            )
    return None


def uniform_training_message(reason: str) -> str:
    """Return the one warning for a model or data that can't be importance-sampled."""
    return f"Importance sampling stays off and the model trains as `model.fit` trains it: {reason}."


def is_built(model: keras.Model) -> bool:
    """Return True if the model's variables, its loss and its metrics have been built."""
    kind, loss, metrics = type(model), keras_internals.compiled_loss(model), keras_internals.compiled_metrics(model)
    return (
        model.built
        and model.optimizer.built
        and (loss is None or loss.built or kind.compute_loss is not keras.Model.compute_loss)
        and (metrics is None or metrics.built or kind.compute_metrics is not keras.Model.compute_metrics)
    )


def build(model: keras.Model, batch: tuple) -> None:
    """Build everything that Keras would build at its first step."""
    if not is_built(model):
        keras_internals.build_on_batch(model, batch)


def check_loss(model: keras.Model, batch: tuple) -> None:
    """Check on a batch that every data-dependent term of a built model's loss is weighted by sample.

    Args:
        model: compiled and built.
        batch: `(x, y, sample_weight)`.

    Raises:
        Unsupported: a term isn't, or building the model revealed a reason.
    """
    reason = unsupported_reason(model)
    if reason is not None:
        raise Unsupported(reason)
    x, y, sample_weight = batch
    regularised = [(v, v.value) for v in model.trainable_variables if v.regularizer is not None]
    with backend.repeatable_random(), NestedScope(regularised, collect_losses=True) as scope:
        backend.shapes_of(lambda: call(model, x, training=True), model)
    if scope.losses:
        raise Unsupported(
            "the model adds a loss with `add_loss`, one number for the batch, which can't be weighted by sample. "
            "Make it part of the compiled loss"
        )
    if type(model).compute_loss is keras.Model.compute_loss:
        return

    def unweighted(with_penalties: bool, extra: Any, tap: Any) -> tuple:
        with stateless(model):
            y_pred = call(model, x, training=False)
            penalties = sum(ops.sum(loss) for loss in model.losses)  # weight regularisers
        zeros = ops.zeros((count_rows(x),))
        total = weighted_loss(model, x, y, y_pred, sample_weight, lambda *_: zeros, training=False).total
        return total if with_penalties else total - ops.cast(penalties, total.dtype), None

    # A `compute_loss` may or may not include the regularisers.
    if all(_has_gradient(functools.partial(unweighted, flag), model.trainable_variables) for flag in (False, True)):
        raise Unsupported(
            "`compute_loss` of the model adds a term to the compiled loss that depends on the data but isn't "
            "multiplied by the sample weights. Make it part of the compiled loss"
        )


def _has_gradient(forward: Callable, variables: list) -> bool:
    """Return True if the loss of a function, see `backend.differentiate`, depends on a variable."""
    gradients = backend.differentiate(forward, variables, ())[0].variables
    return any(gradient is not None and bool(ops.any(backend.dense(gradient) != 0)) for gradient in gradients)


def check_rows(score: Callable[[tuple], dict], batch: tuple) -> None:
    """Check that outputs, losses and scores of a row don't depend on the other rows of its batch.

    Every second row is replaced by the first one; the rows in between must stay as they were. Layers and losses that
    draw random numbers that can't be repeated are not judged.

    Args:
        score: from a batch to a dict of lists of tensors with a row per sample; in inference mode.
        batch: `(x, y, sample_weight)` of tensors.

    Raises:
        Unsupported: a row depends on other rows.
    """
    size = int(count_rows(batch))
    if size < 2:
        return
    rows = np.arange(size)
    replaced = rows_of(batch, np.where(rows % 2, 0, rows))
    before = score(batch)
    what = _first_difference(before, score(replaced))
    if what is not None and _first_difference(before, score(batch)) is None:
        raise Unsupported(
            f"{what} of a row depend on the other rows of its batch, as with in-batch negatives or contrastive "
            "losses, and a batch of other rows would be another task. Train such a model without a trainer"
        )


def rows_of(batch: tuple, rows: np.ndarray) -> tuple:
    """Return the rows of a batch at positions, int `(n,)`."""
    leaves, pack = flatten(batch)
    return pack(backend.gather(leaf, rows) for leaf in leaves)


def accepts(model: keras.Model, batch: tuple, rows: int) -> bool:
    """Return True if a built model can be called on a number of rows and returns as many.

    A batch size may be written into a layer, as in many variational autoencoders, or into the model's inputs.

    Args:
        model: compiled and built.
        batch: `(x, ...)` of tensors, of a size that the model accepts; its rows are repeated.
        rows: int, how many.
    """
    size = count_rows(batch[0])
    if size == rows:
        return True
    (x,) = rows_of((batch[0],), np.arange(rows) % size)
    try:
        with stateless(model):
            outputs = flatten(backend.shapes_of(lambda: call(model, x, training=False), model))[0]
    except Exception:  # any error of the model's layers and operations; a batch of the user's has just succeeded
        return False
    return all(len(output.shape) > 0 and output.shape[0] == rows for output in outputs)


def _first_difference(before: dict, after: dict) -> str | None:
    """Return the name of the first quantity whose even rows differ, None if there is none."""
    for name, tensors in before.items():
        for one, other in zip(tensors, after[name], strict=True):
            if _differ(one, other):
                return name
    return None


def _differ(one: Any, other: Any) -> bool:
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(one.dtype)):
        return False
    allowed = tolerance(keras.backend.standardize_dtype(one.dtype))
    one, other = (ops.convert_to_numpy(t).astype("float64")[::2] for t in (one, other))
    if one.shape != other.shape:  # padded to the longest row, for instance: compare the common part
        common = tuple(slice(min(sizes)) for sizes in zip(one.shape, other.shape, strict=True))
        one, other = one[common], other[common]
    finite = np.isfinite(one) & np.isfinite(other)
    if not finite.any():
        return False
    one, other = one[finite], other[finite]
    return bool(np.abs(one - other).max() > allowed * max(np.abs(one).max(), np.abs(other).max()))
