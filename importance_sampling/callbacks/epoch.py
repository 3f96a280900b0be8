"""What importance steps drew lately: weights and scores of an epoch, for its quantiles and histograms.

It keeps the last `STEPS` steps, so that memory doesn't grow with the epoch. It writes and draws nothing.
"""

from __future__ import annotations

from collections import deque

import numpy as np

STEPS = 512  # as many steps are kept of an epoch, the last ones
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


class EpochDraws:
    """Weights and scores of the batches that were drawn by score since `begin`."""

    def __init__(self) -> None:
        self._batches: deque = deque(maxlen=STEPS)

    def begin(self) -> None:
        """Forget."""
        self._batches.clear()

    def add(self, weights: np.ndarray, scores: np.ndarray) -> None:
        """Take a batch; one that was drawn without scores is passed over.

        Args:
            weights: float32 `(b,)`.
            scores: float32 `(b,)`, NaN where there was none.
        """
        if np.isfinite(scores).all():
            self._batches.append((weights, scores))

    def __bool__(self) -> bool:
        return bool(self._batches)

    @property
    def weights(self) -> np.ndarray:
        """Of all samples drawn, float `(n,)`."""
        return np.concatenate([weights for weights, _ in self._batches])

    @property
    def scores(self) -> np.ndarray:
        """Of all samples drawn, float `(n,)`."""
        return np.concatenate([scores for _, scores in self._batches])

    @property
    def effective_size(self) -> float:
        """Mean effective sample size of a batch, (sum w)^2 / sum w^2, in samples."""
        return float(np.mean([np.sum(w) ** 2 / np.sum(np.square(w)) for w, _ in self._batches]))

    def quantiles(self) -> tuple[np.ndarray, np.ndarray]:
        """`LEVELS` of the scores, as a fair sample would have them, and of the weights; NaN where nothing was drawn.

        Samples of a high score are drawn too often; counted by their weights they are a fair sample.
        """
        if not self:
            return np.full(len(LEVELS), np.nan), np.full(len(LEVELS), np.nan)
        weights = self.weights
        return weighted_quantiles(self.scores, weights), weighted_quantiles(weights, np.ones_like(weights))


def weighted_quantiles(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """For every level the smallest value up to which at least that share of the weights lies.

    Args:
        values: float `(n,)`.
        weights: float `(n,)`, >= 0, not all 0.
    """
    order = np.argsort(values)
    shares = np.cumsum(weights[order], dtype="float64")
    places = np.searchsorted(shares, np.array(LEVELS) * shares[-1])
    return values[order][np.minimum(places, len(values) - 1)].astype("float64")
