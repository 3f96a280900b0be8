"""Uniform batches, and now and then a fresh average gradient for a variance-reduced model.

Source: [LJ17] Lei & Jordan, Less than a Single Pass: Stochastically Controlled Stochastic Gradient, 2017 (arXiv
1609.03261); with all samples, [JZ13] Johnson & Zhang, SVRG, 2013. The gradients are the model's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from importance_sampling.datasets.base import is_int, is_real
from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.base import Drawn, Smoothing
from importance_sampling.samplers.model import check_positive
from importance_sampling.samplers.uniform import ShufflingSampler


class SCSGSampler(ShufflingSampler):
    """Shuffled passes with weights of 1; before every `B_over_b`-th batch the model takes a snapshot over B samples.

    The snapshot is `model.update_grad(batches)`, on batches of the size asked for that are read one after another; B
    grows by the factor `B_rate` each time, up to all samples.

    Unbiased: a uniform batch, whatever the policy. It costs a forward and backward pass over B samples every `B_over_b`
    batches, and the model two gradients a step in place of one. It loses wherever the model is deep: there gradients
    at a snapshot soon have little to do with those at hand.

    Args:
        dataset: has `train_data`.
        reweighting: a `ReweightingPolicy`.
        model: has `update_grad(batches)`, as `SVRGWrapper` has.
        B: int >= 0, default 1024; the first snapshot's samples. 0: all.
        B_over_b: int >= 1, default 32; batches between snapshots.
        B_rate: float >= 1, default 1; by what B grows.
        options: as `BaseSampler`; only the seed has an effect.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> sampler = SCSGSampler(dset, UNBIASED, SVRGWrapper(model), B=0)
        >>> indices, (x, y), weights = sampler.sample(128)
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
        self._batches = 0  # drawn
        self._snapshot_size = float(B or self.size)  # of the next snapshot

    def _draw(self, batch_size: int, smooth: Smoothing) -> Drawn:
        if self._batches % self.B_over_b == 0:
            self.model.update_grad(self._snapshot(min(int(self._snapshot_size), self.size), batch_size))
            self._snapshot_size = min(self._snapshot_size * self.B_rate, float(self.size))
        self._batches += 1
        return self._even(self._next(batch_size))

    def _snapshot(self, size: int, batch_size: int) -> Iterator[tuple]:
        """`(x, y)` of that many distinct samples, in batches."""
        chosen = self._rng.choice(self.size, size, replace=False) if size < self.size else np.arange(size)
        return (self.dataset.train_data[chosen[start : start + batch_size]] for start in range(0, size, batch_size))
