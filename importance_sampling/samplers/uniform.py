"""Uniform batches, cut from shuffled passes over the training set: plain training, and where others' pools come from.

No source. Nothing is scored or weighed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.base import BaseSampler, Drawn, Smoothing


class ShufflingSampler(BaseSampler):
    """A sampler whose candidates are uniform: the next ones of an endless row of shuffled passes.

    A pass depends on the seed and its own number alone, so that two counters are all there is to save. Within a pass
    no sample comes twice.

    Args:
        as `BaseSampler`.
    """

    _saved = ("_seed", "_pass", "_cursor")

    def __init__(self, dataset: Any, reweighting: ReweightingPolicy, **options: Any):
        super().__init__(dataset, reweighting, **options)
        self._seed = self.seed
        self._pass = 0  # which is under way
        self._cursor = 0  # how many of it are gone
        self._order: tuple[tuple, np.ndarray] | None = None  # the pass under way, and which that is

    def _next(self, n: int) -> np.ndarray:
        """The next n indices, int64."""
        taken = []
        while n > 0:
            part = self._pass_order()[self._cursor : self._cursor + n]
            taken.append(part)
            n -= len(part)
            self._cursor += len(part)
            if self._cursor == self.size:
                self._pass, self._cursor = self._pass + 1, 0
        return np.concatenate(taken)

    def _pass_order(self) -> np.ndarray:
        key = (self._seed, self._pass)
        if self._order is None or self._order[0] != key:
            self._order = key, np.random.default_rng((*key, 1)).permutation(self.size)
        return self._order[1]


class UniformSampler(ShufflingSampler):
    """Shuffled passes over the training set, every weight 1, whatever the policy.

    Unbiased: plain training. It costs nothing; it loses where few samples still have something to teach.

    Args:
        dataset, reweighting, seed: as `BaseSampler`; the rest of its options have no effect.

    Example:
        >>> UniformSampler(dset, UNBIASED, seed=0).draw(4).weights
        array([1., 1., 1., 1.], dtype=float32)
    """

    def _draw(self, batch_size: int, smooth: Smoothing) -> Drawn:
        return self._even(self._next(batch_size))
