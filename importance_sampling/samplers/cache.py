"""Draw a share of every batch, by score, from what was trained on a moment ago, and the rest uniformly.

Source: the sampler of that name of earlier versions of the method's library. No sample is scored to be drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.datasets.base import is_int, is_real
from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.base import BaseSampler, measurements
from importance_sampling.samplers.table import scattered


class CacheSampler(BaseSampler):
    """A cache of recently trained samples is drawn from by score, all others evenly.

    What was trained on stays in the cache for `staleness` batches with s = smooth + score. With a =
    cache_prob / (1 - cache_prob) and S the sum over the cache, a sample in it counts 1 + a N s / S and all others 1, so
    that a share `cache_prob` of the draws goes to the cache.

    The probabilities have their own uniform share, 1 - cache_prob: an unbiased weight is at most 1 / (1 - cache_prob).
    Unbiased with an unbiased policy. It costs 24 bytes a sample. It loses more than it gains where a cache of
    `staleness` batches holds few of the samples that matter: its draws are then repeats, of which a batch learns less.

    Args:
        dataset: has `train_data`.
        reweighting: a `ReweightingPolicy`.
        staleness: int >= 1, default 3; in batches.
        cache_prob: float in [0, 1), default 0.5.
        smooth: float >= 0, default 0.2; in units of the score.
        options: as `BaseSampler`; alpha has no effect.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> sampler = CacheSampler(dset, UNBIASED)
        >>> indices, (x, y), weights = sampler.sample(128)
        >>> sampler.update(indices, scores)  # what training on them measured
    """

    needs_scores = True
    _saved = ("_cached", "_expires", "_steps")

    def __init__(
        self,
        dataset: Any,
        reweighting: ReweightingPolicy,
        staleness: int = 3,
        cache_prob: float = 0.5,
        smooth: float = 0.2,
        **options: Any,
    ):
        super().__init__(dataset, reweighting, **options)
        if not is_int(staleness) or staleness < 1:
            raise ValueError(f"`staleness` must be an int of at least 1. Received: staleness={staleness!r}")
        if not is_real(cache_prob) or not 0 <= cache_prob < 1:
            raise ValueError(f"`cache_prob` must be a number in [0, 1). Received: cache_prob={cache_prob!r}")
        if not is_real(smooth) or not 0 <= smooth < float("inf"):
            raise ValueError(f"`smooth` must be a number of at least 0. Received: smooth={smooth!r}")
        self.staleness, self.cache_prob, self.smooth = int(staleness), float(cache_prob), float(smooth)
        self._order = scattered(self.size)
        self._cached = np.zeros(self.size)  # by index
        self._expires = np.zeros(self.size, "int64")  # the last batch for which it is in the cache, by index
        self._steps = 0  # batches drawn

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Put the batch into the cache."""
        indices, scores = measurements(indices, scores)
        self._cached[indices] = self.smooth + scores
        self._expires[indices] = self._steps + self.staleness

    def _candidates(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        self._steps += 1
        cached = np.flatnonzero(self._expires >= self._steps)
        counts = np.ones(self.size)
        total = self._cached[cached].sum()
        if total > 0:
            odds = self.cache_prob / (1.0 - self.cache_prob)
            counts[cached] += odds * self.size * (self._cached[cached] / total)
        return self._order, counts[self._order]

    def _probabilities(self, scores: np.ndarray) -> np.ndarray:
        return scores / scores.sum()
