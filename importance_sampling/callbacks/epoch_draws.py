"""Collect the weights and scores of an epoch's importance steps, for quantiles and histograms."""

from __future__ import annotations

from collections import deque

import numpy as np

MAX_STEPS = 512  # the last steps of an epoch are kept, to limit the memory
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


class EpochDraws:
    """The weights and scores of the importance steps since the last `reset`, at most the last `MAX_STEPS`."""

    def __init__(self) -> None:
        self._batches: deque = deque(maxlen=MAX_STEPS)

    def reset(self) -> None:
        """Remove all batches."""
        self._batches.clear()

    def add(self, weights: np.ndarray, scores: np.ndarray) -> None:
        """Add a batch. Batches without scores are ignored.

        Args:
            weights: float32 `(b,)`.
            scores: float32 `(b,)`, NaN if there are none.
        """
        if np.isfinite(scores).all():
            self._batches.append((weights, scores))

    def __bool__(self) -> bool:
        return bool(self._batches)

    @property
    def weights(self) -> np.ndarray:
        """The weights of all samples, float `(n,)`."""
        return np.concatenate([weights for weights, _ in self._batches])

    @property
    def scores(self) -> np.ndarray:
        """The scores of all samples, float `(n,)`."""
        return np.concatenate([scores for _, scores in self._batches])

    @property
    def effective_size(self) -> float:
        """The mean effective sample size of a batch, (sum w)^2 / sum w^2, in samples."""
        return float(np.mean([np.sum(w) ** 2 / np.sum(np.square(w)) for w, _ in self._batches]))

    def quantiles(self) -> tuple[np.ndarray, np.ndarray]:
        """Compute the quantiles of scores and weights at `LEVELS`.

        Samples with high scores are drawn more often. The quantiles of the scores count each sample by its weight, and
        so estimate those of the whole training set.

        Returns:
            Quantiles of the scores and of the weights, float64 `(levels,)` each; NaN if there are no batches.
        """
        if not self:
            return np.full(len(LEVELS), np.nan), np.full(len(LEVELS), np.nan)
        weights = self.weights
        return weighted_quantiles(self.scores, weights), weighted_quantiles(weights, np.ones_like(weights))


def weighted_quantiles(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute the weighted quantiles of values at `LEVELS`.

    A quantile is the smallest value for which the weights of all values up to it are at least that share of the sum.

    Args:
        values: float `(n,)`.
        weights: float `(n,)`, >= 0, not all 0.

    Returns:
        float64 `(levels,)`.
    """
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order], dtype="float64")
    positions = np.searchsorted(cumulative, np.array(LEVELS) * cumulative[-1])
    return values[order][np.minimum(positions, len(values) - 1)].astype("float64")
