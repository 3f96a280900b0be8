"""Find out by a trial whether a `train_step` that a model defines weights its samples by `sample_weight`.

The step runs several times on one batch while nothing of the model can change, and the gradients that it passes to the
optimizer are compared. They must be sums over the samples, each in proportion to its weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from importance_sampling import backend
from importance_sampling.core.scoring import call, flatten
from importance_sampling.core.weighted_loss import Unsupported, per_sample, stateless, weighted_loss
from importance_sampling.fit.eligibility import tolerance

UNPACK = "Unpack its data by `keras.utils.unpack_x_y_sample_weight`, and pass `sample_weight` to `compute_loss`"


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
        scaled = keras.tree.map_structure(lambda w: w * ops.cast(per_sample(weights, w), w.dtype), sample_weight)
        return x, y, scaled
    if y is None:
        return x, y, weights
    count = len(keras.tree.flatten(y))
    shapes = ranks if len(ranks) == count else [1] * count
    expanded = [ops.reshape(weights, (-1,) + (1,) * (rank - 1)) for rank in shapes]
    return x, y, keras.tree.pack_sequence_as(y, expanded)


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
    """Check that the gradients of a model's `train_step` are weighted by sample. Nothing of the model changes.

    Args:
        model: compiled and built.
        batch: `(x, y, sample_weight)` of tensors.
        ranks: as for `with_weights`.

    Raises:
        Unsupported: they aren't.
    """
    trial = _Trial(model, ranks)
    rows = flatten(batch)[0][0].shape[0]
    ones = np.ones(rows, "float32")
    some = np.linspace(0.2, 0.8, rows, dtype="float32")  # with another mean than 1
    unweighted, uniform = trial.gradients(batch, None), trial.gradients(batch, ones)
    name = f"the `train_step` of {type(model).__name__}"
    if not trial.are_equal(uniform, trial.gradients(batch, ones), uniform):
        raise Unsupported(f"{name} draws random numbers that can't be repeated, so that its weights can't be checked")
    nothing = trial.gradients(batch, 0 * ones)
    if trial.are_equal(nothing, uniform, uniform):
        raise Unsupported(f"{name} ignores sample weights. {UNPACK}")
    both = [a + b for a, b in zip(trial.gradients(batch, some), trial.gradients(batch, 2 - some), strict=True)]
    if not trial.are_equal(unweighted, uniform, uniform) or not trial.are_equal(
        both, [2 * g for g in uniform], uniform
    ):
        raise Unsupported(
            f"the gradients of {name} aren't proportional to the sample weights. Don't divide by their sum, and "
            "don't change the weights"
        )
    if not trial.are_equal(nothing, trial.gradients(_rows_of(batch, np.zeros(rows, int)), 0 * ones), uniform):
        raise Unsupported(f"{name} adds a term of the data that has no sample weights. Weight every term of its loss")
    even = np.arange(rows) % 2 == 0
    others = _rows_of(batch, np.where(even, np.arange(rows), 0))
    half = even.astype("float32")
    if not trial.are_equal(trial.gradients(batch, half), trial.gradients(others, half), uniform) and not _mixes_rows(
        model, batch[0], others[0], even
    ):
        raise Unsupported(
            f"in {name} the gradient of a sample depends on the other samples of its batch, as with mixup or "
            "contrastive losses"
        )


class _Trial:
    """Runs the `train_step` of a model, and compares gradients.

    Args:
        model, ranks: as for `check_train_step`.
    """

    def __init__(self, model: keras.Model, ranks: Sequence[int]):
        self._model = model
        self._ranks = ranks
        self._tolerance = tolerance(model.compute_dtype)

    def gradients(self, batch: tuple, weights: np.ndarray | None) -> list:
        """Return the gradients for a batch with weights; None: with those that `model.fit` would pass.

        Raises:
            Unsupported: the step fails, or doesn't use one optimizer once.
        """
        if weights is None:
            data = batch if batch[2] is not None else batch[:2]
        else:
            data = with_weights(batch, ops.convert_to_tensor(weights), self._ranks)
        name = f"the `train_step` of {type(self._model).__name__}"
        try:
            with backend.repeatable_random():
                calls = backend.train_step_gradients(self._model, data)
        except Exception as error:  # any error of the user's code
            message = str(error).strip().split("\n")[0]
            raise Unsupported(
                f"{name} can't be called with sample weights ({type(error).__name__}: {message}). {UNPACK}"
            ) from error
        if len(calls) != 1:
            raise Unsupported(f"{name} calls optimizers {len(calls)} times, and only one call can be weighted")
        return [backend.dense(gradient) for gradient in calls[0] if gradient is not None]

    def are_equal(self, one: list, other: list, scale: list) -> bool:
        """Return True if gradients differ by rounding only, in comparison with the largest entry of others."""
        if len(one) != len(other):
            return False
        largest = max((_largest(gradient) for gradient in scale), default=0.0)
        return all(_largest_difference(a, b) <= self._tolerance * largest for a, b in zip(one, other, strict=True))


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


def _rows_of(batch: tuple, rows: np.ndarray) -> tuple:
    """Return the rows of a batch at these positions."""
    leaves, pack = flatten(batch)
    return pack(backend.gather(leaf, rows) for leaf in leaves)


def _mixes_rows(model: keras.Model, x: Any, others: Any, even: np.ndarray) -> bool:
    """Return True if the model itself lets rows depend on others in training mode, as batch normalisation does."""
    outputs = []
    for inputs in (x, others):
        with backend.repeatable_random(), stateless(model):
            outputs.append(flatten(call(model, inputs, training=True))[0])
    pairs = [[ops.convert_to_numpy(ops.cast(t, "float32"))[even] for t in pair] for pair in zip(*outputs, strict=True)]
    allowed = tolerance(model.compute_dtype)
    return any(not np.allclose(a, b, rtol=0, atol=allowed * np.abs(a).max(), equal_nan=True) for a, b in pairs)
