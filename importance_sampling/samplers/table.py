"""A table of every sample's last seen score, and how a model fills it anew.

No source. Rows of the table stand in a random order of its own, so that systematic draws, which take every so many-th
of equal scores, don't fall in step with an order of the data. Nothing is drawn here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.base import BaseSampler, measurements
from importance_sampling.samplers.model import check_model, check_recompute, score_rows

READ_AT_ONCE = 4096
SCORED_AT_ONCE = 512


def scattered(size: int) -> np.ndarray:
    """A fixed random order of that many rows, int64 `(size,)`: always the same, so that it need not be saved."""
    return np.random.default_rng(0).permutation(size)


class ScoreTable:
    """Last seen scores.

    Attributes:
        order: int64 `(size,)`, which sample each row of the table is of.
        scores: float64 `(size,)`, by row; 0 for the unseen.
        seen: bool `(size,)`, by row.

    Args:
        size: int, number of samples.
    """

    def __init__(self, size: int):
        self.order = scattered(size)
        self.scores = np.zeros(size)
        self.seen = np.zeros(size, bool)
        self._row = np.argsort(self.order)

    def put(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Remember scores; those that are no use are passed over. Of a sample that comes twice the last one counts."""
        indices, scores = measurements(indices, scores)
        rows = self._row[indices]
        self.scores[rows] = scores
        self.seen[rows] = True

    def state(self) -> dict[str, np.ndarray]:
        """What was put, as copies."""
        return {"scores": self.scores.copy(), "seen": self.seen.copy()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `state` returned."""
        self.scores, self.seen = np.array(state["scores"]), np.array(state["seen"])

    def filled(self) -> np.ndarray:
        """Scores by row, the mean of the seen for the unseen; 0 throughout when none was seen."""
        count = np.count_nonzero(self.seen)
        if count in (0, self.seen.size):
            return self.scores
        return np.where(self.seen, self.scores, self.scores.sum() / count)


class RescoringSampler(BaseSampler):
    """A sampler that has a model score all samples anew now and then.

    Args:
        dataset, reweighting and options: as `BaseSampler`.
        model: has `score(x, y, batch_size=128)` -> float `(n,)`; None if it is never asked.
        recompute: int >= 0, every how many epochs all are scored anew; 0: never.
    """

    needs_scores = True

    def __init__(self, dataset: Any, reweighting: ReweightingPolicy, model: Any, recompute: int, **options: Any):
        super().__init__(dataset, reweighting, **options)
        check_recompute(recompute)
        self.needs_model = recompute > 0
        if self.needs_model:
            check_model(model)
        self.model = model
        self.recompute = int(recompute)

    def _rescore(self, put: Callable) -> None:
        rescore(put, self.dataset, self.model, self.size)


def rescore(put: Callable, dataset: Any, model: Any, size: int) -> None:
    """Score all `size` samples anew and `put(indices, scores)` them, reading the dataset in slices."""
    for start in range(0, size, READ_AT_ONCE):
        indices = np.arange(start, min(start + READ_AT_ONCE, size))
        put(indices, score_rows(model, dataset, indices, SCORED_AT_ONCE))
