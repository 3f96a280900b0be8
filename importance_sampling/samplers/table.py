"""A table with the last score of every sample, and a sampler base class that fills it with a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.base import BaseSampler
from importance_sampling.samplers.checks import usable_measurements
from importance_sampling.utils.validation import check_recompute, check_scoring_model

ROWS_PER_READ = 4096
ROWS_PER_FORWARD = 512


def fixed_random_order(size: int) -> np.ndarray:
    """Return a random order of row indices that depends on `size` only, int64 `(size,)`. It need not be saved.

    Systematic resampling of equal scores takes candidates at equal distances. A random order prevents that these
    distances coincide with a period in the order of the data.
    """
    return np.random.default_rng(0).permutation(size)


class ScoreTable:
    """The last score of every sample.

    Attributes:
        order: int64 `(size,)`, the row index of each table entry.
        entry: int64 `(size,)`, the table entry of each row.
        scores: float64 `(size,)`, the last score of each table entry; 0 if it has none.
        seen: bool `(size,)`, True for table entries that have a score.

    Args:
        size: int, the number of samples.
        order: int64 `(size,)`, the row index of each table entry; None (default): a random order.
    """

    def __init__(self, size: int, order: np.ndarray | None = None):
        self.order = fixed_random_order(size) if order is None else order
        self.scores = np.zeros(size)
        self.seen = np.zeros(size, bool)
        self.entry = np.argsort(self.order)  # row index to table entry

    def record(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Record scores. If an index occurs twice, its last score is recorded.

        Args:
            indices: int `(n,)`, row indices.
            scores: float `(n,)`. Negative and non-finite ones are ignored.
        """
        indices, scores = usable_measurements(indices, scores)
        entries = self.entry[indices]
        self.scores[entries] = scores
        self.seen[entries] = True

    def state(self) -> dict[str, np.ndarray]:
        """Return copies of the recorded scores."""
        return {"scores": self.scores.copy(), "seen": self.seen.copy()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Set the table to a state that `state` returned."""
        self.scores, self.seen = np.array(state["scores"]), np.array(state["seen"])

    def imputed_scores(self) -> np.ndarray:
        """Return the scores of all table entries, with the mean of the known scores for entries that have none.

        Returns:
            float64 `(size,)`; zeros if no score is known.
        """
        count = np.count_nonzero(self.seen)
        if count in (0, self.seen.size):
            return self.scores
        return np.where(self.seen, self.scores, self.scores.sum() / count)


class RescoringSampler(BaseSampler):
    """A sampler that scores all samples with a model every `recompute` epochs.

    Args:
        dataset, reweighting and options: as for `BaseSampler`.
        model: has `score(x, y, batch_size=128)` -> float `(n,)`, >= 0; can be None if `recompute` is 0.
        recompute: int >= 0, the number of epochs between two scoring passes; 0: never.
    """

    needs_scores = True

    def __init__(self, dataset: Any, reweighting: ReweightingPolicy, model: Any, recompute: int, **options: Any):
        super().__init__(dataset, reweighting, **options)
        check_recompute(recompute)
        self.needs_model = recompute > 0
        if self.needs_model:
            check_scoring_model(model)
        self.model = model
        self.recompute = int(recompute)

    def _score_all(self, record: Callable) -> None:
        score_all(record, self.dataset, self.model, self.size)


def score_all(record: Callable, dataset: Any, model: Any, size: int) -> None:
    """Score all samples, `ROWS_PER_READ` at a time, and pass each part to `record(indices, scores)`.

    Args:
        record: called with int64 `(n,)` row indices and float64 `(n,)` scores.
        dataset: has `train_data`.
        model: has `score` or `score_rows`.
        size: int, the number of samples.
    """
    for start in range(0, size, ROWS_PER_READ):
        indices = np.arange(start, min(start + ROWS_PER_READ, size))
        record(indices, score_rows(model, dataset, indices, ROWS_PER_FORWARD))


def score_rows(model: Any, dataset: Any, indices: np.ndarray, batch_size: int) -> np.ndarray:
    """Score rows of the training set with a model.

    Args:
        model: has `score_rows(indices, batch_size)` if it reads the rows itself, else `score(x, y, batch_size)`.
        dataset: has `train_data`. It is read only if the model has no `score_rows`.
        indices: int `(n,)`.
        batch_size: int, the number of rows per forward pass.

    Returns:
        float64 `(n,)`.
    """
    if hasattr(model, "score_rows"):
        scores = model.score_rows(indices, batch_size)
    else:
        x, y = dataset.train_data[indices]
        scores = model.score(x, y, batch_size=batch_size)
    return np.asarray(scores, "float64").reshape(len(indices))
