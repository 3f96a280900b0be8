"""Samples that importance steps don't train on: their loss shows whether training still generalises.

They are validation data, or training samples that are left out. Their loss is compared with that of as many training
samples. Source: this library; the principle is that of a validation set.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import keras
import numpy as np

from importance_sampling import backend
from importance_sampling.data.arrays import ArraySource, read_column
from importance_sampling.data.batches import flatten
from importance_sampling.data.lazy_arrays import is_lazy
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.held_out_losses import TRAINING_SAMPLES, VALIDATION_DATA
from importance_sampling.strategies.dataset_rows import DatasetRows

SAMPLES_PER_HELD_OUT = 50  # one in 50 samples
MOST_HELD_OUT = 512  # enough to measure a mean loss
FEWEST_HELD_OUT = 100  # fewer are too few to tell
MOST_NUMBERS = 2**25  # that are copied from each of the two data sets


class HeldOut(NamedTuple):
    """Samples that are left out, and as many others to compare their loss with.

    Attributes:
        samples, others: row indices, int64 `(n,)`, ascending; empty if no samples are left out.
    """

    samples: np.ndarray
    others: np.ndarray


NONE_HELD_OUT = HeldOut(np.zeros(0, "int64"), np.zeros(0, "int64"))


@functools.lru_cache(maxsize=8)
def hold_out(size: int, seed: int) -> HeldOut:
    """Choose the samples to hold out at random: 2 % of them, at most 512; none if there are fewer than 5,000.

    Args:
        size: int >= 1, the number of training samples.
        seed: int >= 0.

    Example:
        >>> len(hold_out(10000, seed=0).samples), len(hold_out(1000, seed=0).samples)
        (200, 0)
    """
    count = min(size // SAMPLES_PER_HELD_OUT, MOST_HELD_OUT)
    if count < FEWEST_HELD_OUT:
        return NONE_HELD_OUT
    chosen = np.random.default_rng((seed, size)).choice(size, 2 * count, replace=False)
    return HeldOut(np.sort(chosen[:count]), np.sort(chosen[count:]))


class ComparedSamples(NamedTuple):
    """Samples that importance steps don't train on, and as many training samples.

    Attributes:
        rows: the rows of both.
        held_out, others: row indices, int64 `(n,)`; empty if there are no such samples.
        kind: "training samples" or "validation data", what the first are.
    """

    rows: DatasetRows
    held_out: np.ndarray
    others: np.ndarray
    kind: str

    @classmethod
    def of_training(cls, rows: DatasetRows, held_out: HeldOut) -> ComparedSamples:
        """Return the training samples that are left out.

        Args:
            rows: the training data.
            held_out: indices of the samples that are left out, and of others.
        """
        return cls(rows, held_out.samples, held_out.others, TRAINING_SAMPLES)

    @classmethod
    def of_validation(cls, rows: DatasetRows, plan: FitPlan, seed: int) -> ComparedSamples:
        """Return validation samples, as many as training samples would be left out without them, but at least 100.

        Args:
            rows: they are set to copies of the samples.
            plan: of the `fit`.
            seed: int >= 0, determines the choice.
        """
        validation_data, size = plan.arguments["validation_data"], plan.source.num_rows
        if plan.class_weight is not None and isinstance(validation_data, (tuple, list)):
            validation_data = validation_data[:2]  # its sample weights aren't of the same kind
        wanted = min(max(size // SAMPLES_PER_HELD_OUT, FEWEST_HELD_OUT), MOST_HELD_OUT)
        rows.source = compared_rows(validation_data, plan.source, wanted, seed)
        count = 0 if rows.source is None else rows.source.num_rows // 2
        count = count if count >= FEWEST_HELD_OUT else 0
        return cls(rows, np.arange(count), np.arange(count, 2 * count), VALIDATION_DATA)


def compared_rows(validation_data: Any, training: ArraySource, rows: int, seed: int) -> ArraySource | None:
    """Copy rows of the validation data and, after them, as many rows of the training data, both chosen at random.

    Sample weights are left out, unless both have them.

    Args:
        validation_data: as Keras's `fit` takes it.
        training: the training data.
        rows: int >= 1, the number of rows of each; fewer if there are fewer validation data, or if rows are large.
        seed: int >= 0, determines the choice.

    Returns:
        The rows, an even number; None if the validation data aren't arrays in memory, with rows like those of the
        training data.
    """
    if not isinstance(validation_data, (tuple, list)) or not 2 <= len(validation_data) <= 3:
        return None
    *data, weights = keras.utils.unpack_x_y_sample_weight(tuple(validation_data))
    with_weights = weights is not None and training.pack(training.columns)[2] is not None
    data = (*data, weights if with_weights else None)
    leaves, _ = flatten(data)
    if not leaves or not all(backend.has_rows(leaf) and not is_lazy(leaf) for leaf in leaves):
        return None
    numbers = max(math.prod(size or 1 for size in leaf.shape[1:]) for leaf in leaves)
    rows = min(rows, leaves[0].shape[0], training.num_rows, max(MOST_NUMBERS // max(numbers, 1), 1))
    random = np.random.default_rng((seed, training.num_rows))
    parts = []
    for source in (_Leaves(data), training):
        chosen = np.sort(random.choice(source.num_rows, rows, replace=False))
        x, y, sample_weight = source.read(chosen)
        parts.append((x, y, sample_weight if with_weights else None))
    try:
        keras.tree.assert_same_structure(*parts)
    except (TypeError, ValueError):
        return None
    (first, _), (second, pack) = map(flatten, parts)
    first = [_as_rows_of(*pair) for pair in zip(first, second, strict=True)]
    return None if any(leaf is None for leaf in first) else ArraySource(pack(backend.concatenate([first, second])))


class _Leaves:
    """Arrays in memory, of which only the rows that are read are converted."""

    def __init__(self, data: tuple):
        self._leaves, self._pack = flatten(data)
        self.num_rows = int(self._leaves[0].shape[0])

    def read(self, indices: np.ndarray) -> tuple:
        """Return rows as `(x, y, sample_weight)` of tensors."""
        return self._pack([_read(leaf, indices) for leaf in self._leaves])


def _read(leaf: Any, indices: np.ndarray) -> Any:
    if isinstance(leaf, np.ndarray):
        leaf, indices = leaf[indices], np.arange(len(indices))
    return backend.to_tensor(read_column(backend.as_column(leaf), indices))


def _as_rows_of(tensor: Any, other: Any) -> Any:
    """Return a tensor with the dtype of another one; None if their rows have different shapes or can't be joined."""
    specs = [backend.row_spec(one) for one in (tensor, other)]
    if specs[0] == specs[1]:
        return tensor
    dtypes = [keras.backend.standardize_dtype(one.dtype) for one in (tensor, other)]
    if tuple(tensor.shape[1:]) != tuple(other.shape[1:]) or "string" in dtypes or type(tensor) is not type(other):
        return None
    cast = keras.ops.cast(tensor, dtypes[1])
    return cast if backend.row_spec(cast) == specs[1] else None
