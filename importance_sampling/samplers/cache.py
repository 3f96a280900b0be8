"""Draw a share of every batch by score from recently trained samples, and the rest uniformly.

Source: the sampler of the same name in earlier versions of the method's library.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.base import BaseSampler
from importance_sampling.samplers.checks import usable_measurements
from importance_sampling.samplers.table import fixed_random_order
from importance_sampling.utils.validation import check_fraction, check_non_negative, check_positive


class CacheSampler(BaseSampler):
    """Draw a share of the batch by score from a cache of recently trained samples, the rest uniformly from all samples.

    A sample stays in the cache for `staleness` batches after a training step on it, with s = smooth + score. With
    a = cache_prob / (1 - cache_prob) and S the sum over the cache, a sample in the cache has the unnormalised
    probability 1 + a N s / S, and any other sample 1. A share `cache_prob` of the draws is due to the cache.

    The probabilities contain a uniform share of 1 - cache_prob, so an unbiased weight is at most 1 / (1 - cache_prob).
    Unbiased with an unbiased policy. Cost: 24 bytes per sample; no forward passes. Not suited to datasets of which the
    cache holds few of the samples with high scores: the cache is then drawn from repeatedly, and a batch with repeated
    samples is less effective.

    Args:
        dataset: has `train_data`.
        reweighting: a `ReweightingPolicy`.
        staleness: int >= 1, default 3, in batches.
        cache_prob: float in [0, 1), default 0.5.
        smooth: float >= 0, default 0.2, in units of the score.
        options: as for `BaseSampler`; alpha has no effect.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> sampler = CacheSampler(dset, UNBIASED)
        >>> indices, (x, y), weights = sampler.sample(128)
        >>> sampler.update(indices, scores)  # the scores that the training step measured
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
        check_positive(staleness=staleness)
        check_fraction(cache_prob=cache_prob)
        check_non_negative(smooth=smooth)
        self.staleness, self.cache_prob, self.smooth = int(staleness), float(cache_prob), float(smooth)
        self._order = fixed_random_order(self.size)
        self._cached = np.zeros(self.size)  # smoothed score, by row index
        self._expires = np.zeros(self.size, "int64")  # last batch number in which the sample is in the cache, by row
        self._steps = 0  # batches drawn

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Add the batch to the cache."""
        indices, scores = usable_measurements(indices, scores)
        self._cached[indices] = self.smooth + scores
        self._expires[indices] = self._steps + self.staleness

    def _candidates(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        self._steps += 1
        cached = np.flatnonzero(self._expires >= self._steps)
        scores = np.ones(self.size)
        total = self._cached[cached].sum()
        if total > 0:
            odds = self.cache_prob / (1.0 - self.cache_prob)
            scores[cached] += odds * self.size * (self._cached[cached] / total)
        return self._order, scores[self._order]

    def _probabilities(self, scores: np.ndarray) -> np.ndarray:
        return scores / scores.sum()
