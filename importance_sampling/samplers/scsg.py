"""Uniform batches, with a snapshot of a variance-reduced model every few batches.

Source: [LJ17] Lei & Jordan, Less than a Single Pass: Stochastically Controlled Stochastic Gradient, 2017 (arXiv
1609.03261); with all samples, [JZ13] Johnson & Zhang, SVRG, 2013.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.base import Drawn, Smoothing
from importance_sampling.samplers.uniform import ShufflingSampler
from importance_sampling.utils.validation import check_positive, is_int, is_real


class SCSGSampler(ShufflingSampler):
    """Draw uniform batches with unbiased weights of 1. Before every `B_over_b`-th batch, the model takes a snapshot.

    The sampler calls `model.update_grad(batches)`, where `batches` iterates over B distinct samples in batches of the
    requested size. B is multiplied by `B_rate` after each snapshot, up to all samples.

    Unbiased, with every policy. Cost: a forward and a backward pass over B samples every `B_over_b` batches; and the
    model computes two gradients per step instead of one. Not suited to deep models, whose gradients soon differ from
    those at the snapshot.

    Args:
        dataset: has `train_data`.
        reweighting: a `ReweightingPolicy`.
        model: has `update_grad(batches)`, as `SVRGWrapper` has.
        B: int >= 0, default 1024, the number of samples of the first snapshot; 0: all.
        B_over_b: int >= 1, default 32, the number of batches between snapshots.
        B_rate: float >= 1, default 1, the growth factor of B.
        options: as for `BaseSampler`; only the seed has an effect.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> sampler = SCSGSampler(dset, UNBIASED, SVRGWrapper(model), B=0)
        >>> indices, (x, y), weights = sampler.sample(128)

    Source: [LJ17], Algorithm 1.
    """

    needs_model = True
    _saved = (*ShufflingSampler._saved, "_batches", "_snapshot_size")

    def __init__(
        self,
        dataset: Any,
        reweighting: ReweightingPolicy,
        model: Any,
        B: int = 1024,
        B_over_b: int = 32,
        B_rate: float = 1.0,
        **options: Any,
    ):
        super().__init__(dataset, reweighting, **options)
        if not callable(getattr(model, "update_grad", None)):
            raise ValueError(
                "`model` must have `update_grad(batches)`, as an `SVRGWrapper` has. "
                f"Received: model={model!r} (of type {type(model)})"
            )
        if not is_int(B) or B < 0:
            raise ValueError(f"`B` must be an int of at least 0 (all samples). Received: B={B!r}")
        check_positive(B_over_b=B_over_b)
        if not is_real(B_rate) or not 1 <= B_rate < float("inf"):
            raise ValueError(f"`B_rate` must be a number of at least 1. Received: B_rate={B_rate!r}")
        self.model = model
        self.B_over_b, self.B_rate = int(B_over_b), float(B_rate)
        self._batches = 0  # number of batches drawn
        self._snapshot_size = float(B or self.size)  # number of samples of the next snapshot

    def _draw(self, batch_size: int, smooth: Smoothing) -> Drawn:
        if self._batches % self.B_over_b == 0:
            self.model.update_grad(self._snapshot_batches(min(int(self._snapshot_size), self.size), batch_size))
            self._snapshot_size = min(self._snapshot_size * self.B_rate, float(self.size))
        self._batches += 1
        return self._uniform_batch(self._next_indices(batch_size))

    def _snapshot_batches(self, size: int, batch_size: int) -> Iterator[tuple]:
        """Iterate over `size` distinct samples, as batches `(x, y)`."""
        indices = self._rng.choice(self.size, size, replace=False) if size < self.size else np.arange(size)
        return (self.dataset.train_data[indices[start : start + batch_size]] for start in range(0, size, batch_size))
