"""Find out by a trial whether a `train_step` that a model defines weights its samples by `sample_weight`.

The step runs several times on one batch while nothing of the model can change, and the gradients that it passes to the
optimizer are compared. They must be sums over the samples, each in proportion to its weight.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.backend.scopes import replaced_attribute
from importance_sampling.core.eligibility import rows_of, tolerance
from importance_sampling.core.scoring import call
from importance_sampling.core.weighted_loss import per_sample, stateless, weighted_loss
from importance_sampling.data.batches import count_rows, flatten
from importance_sampling.utils.errors import Unsupported
from importance_sampling.utils.numerics import FLOAT

UNPACK = "Unpack its data by `keras.utils.unpack_x_y_sample_weight`, and pass `sample_weight` to `compute_loss`"
SMALL_GRADIENTS = 0.01  # gradients of a weight that are smaller, relative to the largest, are compared with this


def with_weights(batch: tuple, weights: Any, ranks: Sequence[int]) -> tuple:
    """Return a batch whose sample weights are multiplied by importance weights.

    Args:
        batch: `(x, y, sample_weight)`; `y` and `sample_weight` may be None.
        weights: float32 `(batch,)`.
        ranks: the rank of the loss values of each output, which sample weights must have, see `loss_ranks`.

    Returns:
        `(x, y, sample_weight)`.
    """
    x, y, sample_weight = batch
    if sample_weight is not None:
        return x, y, keras.tree.map_structure(lambda own: _weighted(own, weights), sample_weight)
    if y is None:
        return x, y, weights
    count = len(keras.tree.flatten(y))
    shapes = ranks if len(ranks) == count else [1] * count
    expanded = [ops.reshape(weights, (-1,) + (1,) * (rank - 1)) for rank in shapes]
    return x, y, keras.tree.pack_sequence_as(y, expanded)


def _weighted(own: Any, weights: Any) -> Any:
    """Return sample weights of the user's, of any dtype, multiplied by importance weights."""
    is_float = keras.backend.is_float_dtype(keras.backend.standardize_dtype(own.dtype))
    own = own if is_float else ops.cast(own, FLOAT)
    return own * ops.cast(per_sample(weights, own), own.dtype)


def loss_ranks(model: keras.Model, batch: tuple) -> list[int]:
    """Return the rank of the loss values of each output: 1 for a value per sample, 2 for one per time step.

    Args:
        model: a compiled and built model.
        batch: `(x, y, sample_weight)`.

    Raises:
        Unsupported: the loss of an output is a mean over the valid entries of a mask.
    """
    x, y, sample_weight = batch
    with stateless(model):
        y_pred = call(model, x, training=False)
    loss = weighted_loss(model, x, y, y_pred, sample_weight, None, training=False)
    if any(output.entries is not None and output.is_mean for output in loss.outputs):
        raise Unsupported(
            f"the `train_step` of {type(model).__name__} divides the loss by the number of valid entries of a "
            "mask, and a batch that was drawn by score has another number. Use Keras's own `train_step`"
        )
    return [len(output.values.shape) for output in loss.outputs]


def check_train_step(model: keras.Model, batch: tuple, ranks: Sequence[int]) -> None:
    """Check that the gradients of a model's `train_step` are weighted by sample. No Keras variable changes.

    Args:
        model: compiled and built.
        batch: `(x, y, sample_weight)` of tensors; the sample weights aren't used.
        ranks: as for `with_weights`.

    Raises:
        Unsupported: they aren't.
    """
    batch = (*batch[:2], None)
    trial = _Trial(model, ranks)
    rows = count_rows(batch)
    ones, zeros = np.ones(rows, "float32"), np.zeros(rows, "float32")
    part = np.linspace(0.2, 0.8, rows, dtype="float32")
    unweighted, uniform = trial.gradients(batch, None), trial.gradients(batch, ones)
    trial.largest = list(map(_largest, uniform))
    if not any(trial.largest):
        raise Unsupported(f"{trial.name} has no gradient, or none that is finite, on the batch that it was tried on")
    if not trial.are_equal(uniform, trial.gradients(batch, ones)):
        raise Unsupported(f"{trial.name} draws random numbers that can't be repeated, so it can't be checked")
    nothing = trial.gradients(batch, zeros)
    if trial.are_equal(nothing, uniform):
        raise Unsupported(f"{trial.name} ignores sample weights. {UNPACK}")
    parts = zip(trial.gradients(batch, part), trial.gradients(batch, ones - part), nothing, strict=True)
    if not trial.are_equal(unweighted, uniform) or not trial.are_equal([a + b - c for a, b, c in parts], uniform):
        raise Unsupported(
            f"the gradients of {trial.name} aren't proportional to the sample weights. Don't divide by the sum of "
            "the weights or change the gradients. To clip them, use an argument of the optimizer: `global_clipnorm` "
            "for `tf.clip_by_global_norm`, `clipnorm` for a norm per variable, `clipvalue` for values"
        )
    if not trial.are_equal(nothing, trial.gradients(rows_of(batch, np.zeros(rows, int)), zeros)):
        raise Unsupported(
            f"{trial.name} adds a term that depends on the data but isn't multiplied by the sample weights. Multiply "
            "every term of the loss by `sample_weight`"
        )
    kept = np.random.default_rng(0).permutation(rows) < (rows + 1) // 2
    others = rows_of(batch, np.where(kept, np.arange(rows), np.argmax(kept)))
    half = kept.astype("float32")
    with _batch_normalization_in_inference(model):
        is_equal = trial.are_equal(trial.gradients(batch, half), trial.gradients(others, half))
        if not is_equal and not _mixes_rows(model, batch[0], others[0], kept):
            raise Unsupported(
                f"in {trial.name} the gradient of a sample depends on the other samples of its batch, as with mixup or "
                "contrastive losses"
            )


class _Trial:
    """Runs the `train_step` of a model, and compares gradients.

    Args:
        model, ranks: as for `check_train_step`.

    Attributes:
        name: what is tried, for messages.
        largest: list of float, the largest entry of each gradient, with which differences are compared.
    """

    def __init__(self, model: keras.Model, ranks: Sequence[int]):
        self.name = f"the `train_step` of {type(model).__name__}"
        self.largest: list[float] = []
        self._model = model
        self._ranks = ranks
        self._tolerance = tolerance(model.compute_dtype)

    def gradients(self, batch: tuple, weights: np.ndarray | None) -> list:
        """Return the gradients for a batch with weights; None: as `model.fit` calls the step without weights.

        Raises:
            Unsupported: the step fails, doesn't call an optimizer once, or assigns weights itself.
        """
        data = batch[:2] if weights is None else with_weights(batch, ops.convert_to_tensor(weights), self._ranks)
        try:
            with backend.repeatable_random():
                calls, assigns = backend.try_train_step(self._model, data)
        except Exception as error:  # any error of the user's code
            message = str(error).strip().split("\n")[0]
            with_or_without = "on a single batch" if weights is None else "with sample weights"
            raise Unsupported(
                f"{self.name} can't be called {with_or_without} ({type(error).__name__}: {message}). {UNPACK}"
            ) from error
        if len(calls) != 1:
            raise Unsupported(
                f"{self.name} called optimizers {len(calls)} times on a batch, and exactly one call can be weighted"
            )
        if assigns:
            raise Unsupported(f"{self.name} changes trainable weights itself. Pass all gradients to the optimizer")
        return [backend.dense(gradient) for gradient in calls[0] if gradient is not None]

    def are_equal(self, one: list, other: list) -> bool:
        """Return True if gradients differ by rounding only."""
        if not len(one) == len(other) == len(self.largest):
            return False
        floor = SMALL_GRADIENTS * max(self.largest)
        differences = map(_largest_difference, one, other)
        return all(d <= self._tolerance * max(size, floor) for d, size in zip(differences, self.largest, strict=True))


@contextlib.contextmanager
def _batch_normalization_in_inference(model: keras.Model) -> Iterator[None]:
    """Let layers with moving statistics use these in training mode too: rows then don't depend on each other."""
    with contextlib.ExitStack() as stack:
        for layer in keras_internals.layers_of(model):
            if hasattr(layer, "moving_mean"):
                run = functools.partial(_in_inference, layer.call)
                stack.enter_context(replaced_attribute(layer, "call", run))
        yield


def _in_inference(call: Callable, *args: Any, **kwargs: Any) -> Any:
    return call(*args, **{**kwargs, "training": False})


def _largest(tensor: Any) -> float:
    """Return the largest finite absolute value of a tensor."""
    size = np.abs(_float32(tensor))
    return float(size[np.isfinite(size)].max(initial=0.0))


def _largest_difference(one: Any, other: Any) -> float:
    """Return the largest absolute difference of two tensors; equal infinities, of an overflow, don't differ."""
    one, other = _float32(one), _float32(other)
    with np.errstate(invalid="ignore"):
        difference = np.where(one == other, 0.0, np.abs(one - other))
    return float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0))


def _float32(tensor: Any) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def _mixes_rows(model: keras.Model, x: Any, others: Any, kept: np.ndarray) -> bool:
    """Return True if the model itself lets rows depend on others in training mode, by a layer of the user's own."""
    outputs = []
    for inputs in (x, others):
        with backend.repeatable_random(), stateless(model):
            outputs.append(flatten(call(model, inputs, training=True))[0])
    allowed = tolerance(model.compute_dtype)
    pairs = [[_float32(tensor)[kept] for tensor in pair] for pair in zip(*outputs, strict=True)]
    return any(_largest_difference(a, b) > allowed * _largest(a) for a, b in pairs)
