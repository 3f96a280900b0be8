"""Uniform batches from shuffled epochs of the training set, and the base class of samplers with uniform candidates."""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.base import BaseSampler, Drawn, Smoothing


class ShufflingSampler(BaseSampler):
    """A sampler that takes its candidates from consecutive shuffled epochs of the training set.

    The order of an epoch depends on the seed and the number of the epoch only, so the saved state is three integers.
    Every sample occurs exactly once in an epoch.

    Args:
        dataset, reweighting and options: as for `BaseSampler`.
    """

    _saved = ("_seed", "_epoch", "_cursor")
    _saved_keys = {"_epoch": "_pass"}

    def __init__(self, dataset: Any, reweighting: ReweightingPolicy, **options: Any):
        super().__init__(dataset, reweighting, **options)
        self._seed = self.seed
        self._epoch = 0  # number of the current epoch
        self._cursor = 0  # position in the current epoch
        self._cached_order: tuple[tuple, np.ndarray] | None = None  # (seed, epoch), and the order of that epoch

    def _next_indices(self, n: int) -> np.ndarray:
        """Return the next n row indices, int64 `(n,)`."""
        parts = []
        while n > 0:
            part = self._epoch_order()[self._cursor : self._cursor + n]
            parts.append(part)
            n -= len(part)
            self._cursor += len(part)
            if self._cursor == self.size:
                self._epoch, self._cursor = self._epoch + 1, 0
        return np.concatenate(parts)

    def _epoch_order(self) -> np.ndarray:
        """Return the row indices of the current epoch in their order, int64 `(size,)`."""
        key = (self._seed, self._epoch)
        if self._cached_order is None or self._cached_order[0] != key:
            self._cached_order = key, np.random.default_rng((*key, 1)).permutation(self.size)
        return self._cached_order[1]


class UniformSampler(ShufflingSampler):
    """Draw uniform batches from shuffled epochs, with unbiased weights of 1.

    Unbiased: this is the sampling of Keras's `fit`. Cost: none. Not suited to data of which few samples still have a
    large gradient.

    Args:
        dataset, reweighting, seed: as for `BaseSampler`. Its other options have no effect.

    Example:
        >>> UniformSampler(dset, UNBIASED, seed=0).draw(4).weights
        array([1., 1., 1., 1.], dtype=float32)
    """

    def _draw(self, batch_size: int, smooth: Smoothing) -> Drawn:
        return self._uniform_batch(self._next_indices(batch_size))
