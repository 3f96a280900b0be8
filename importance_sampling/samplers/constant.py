"""Importance sampling for smaller steps of the same variance, or for better ones that take the same time.

Source: the samplers of those names of earlier versions of the method's library; [KF18] (arXiv 1803.00942), section 3.3,
for the variance reduction. Sizes are rounded to eighths of the batch, so that a compiled step meets only a few. How
long a backward pass takes is an argument: nothing is timed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.conditions import VarianceReductionCondition
from importance_sampling.datasets.base import is_real
from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.base import Drawn, Smoothing
from importance_sampling.samplers.model import ScoringSampler
from importance_sampling.samplers.sizes import (
    check_time_options,
    constant_time_sizes,
    constant_variance_size,
    constant_variance_threshold,
    quantised,
    quantised_time_sizes,
)


class GatedSampler(ScoringSampler):
    """A scoring sampler with its own gate: uniform batches until the moving average of tau exceeds a threshold.

    While it is closed the gate sees the scores that training steps measured; while open, those of the pools.

    Args:
        dataset, reweighting, model and options: as `ScoringSampler`.
        threshold: float, of tau.
    """

    needs_scores = True
    _saved = (*ScoringSampler._saved, "_is_fair")
    _parts = ("condition",)

    def __init__(self, dataset: Any, reweighting: ReweightingPolicy, model: Any, threshold: float, **options: Any):
        super().__init__(dataset, reweighting, model, **options)
        self.condition = VarianceReductionCondition(threshold)
        self._is_fair = True  # whether the batch that was drawn last is a fair sample

    @property
    def vr(self) -> float:
        """The variance reduction: the moving average of tau, at least 1."""
        return float(np.fmax(self.condition.average, 1.0))

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Show the gate what the training step measured, if the batch was uniform."""
        if self._is_fair:
            self.condition.update(scores)

    def _draw(self, batch_size: int, smooth: Smoothing) -> Drawn:
        self._is_fair = not self.condition.satisfied
        if self._is_fair:
            return self._even(self._next(batch_size))
        return super()._draw(batch_size, smooth)

    def _scored(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        indices, scores = super()._scored(n)
        self.condition.update(scores)
        return indices, scores


class ConstantVarianceSampler(GatedSampler):
    """Keep the variance, cut the work: of a scored pool of b, train on int(b (1/vr + extra_samples)).

    Uniform batches of b until vr, the moving average of tau, exceeds
    1 / (backward_time / (1 + backward_time) - extra_samples). Unbiased with an unbiased policy. A step costs a forward
    pass over b and a training step on the picked, rounded to the nearest eighth of b. It loses where tau overstates
    what is gained: with a pool of one batch the picked ones are never worth more than the batch was.

    Args:
        dataset: has `train_data`.
        reweighting: a `ReweightingPolicy`.
        model: has `score(x, y, batch_size=128)` -> float `(n,)`, >= 0.
        backward_time: float > 0, default 2; of a backward pass, in forward passes.
        extra_samples: float, default 0.2; the share of the batch that is trained on beyond what 1/vr says.
        options: as `BaseSampler`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> sampler = ConstantVarianceSampler(dset, UNBIASED, OracleWrapper(model, UNBIASED, score="gnorm"))
        >>> indices, (x, y), weights = sampler.sample(128)
    """

    def __init__(
        self,
        dataset: Any,
        reweighting: ReweightingPolicy,
        model: Any,
        backward_time: float = 2.0,
        extra_samples: float = 0.2,
        **options: Any,
    ):
        threshold = constant_variance_threshold(backward_time, extra_samples)
        super().__init__(dataset, reweighting, model, threshold, **options)
        self.extra_samples = float(extra_samples)

    def _candidates(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        return self._scored(batch_size)

    def _num_picked(self, batch_size: int, scores: np.ndarray) -> int:
        return quantised(constant_variance_size(self.vr, batch_size, self.extra_samples), batch_size)


class ConstantTimeSampler(GatedSampler):
    """Keep the time of a step, cut the variance: score B, train on a, with B + (1 + backward_time) a that of a batch.

    Uniform batches of b until vr, the moving average of tau, exceeds `tau_th`; then the sizes are those of
    `sizes.constant_time_sizes`, a rounded to the nearest eighth of b and B what is left of the time. Unbiased with an
    unbiased policy. It costs what a plain step costs, by `backward_time`; it loses where that is wrong.

    Args:
        dataset: has `train_data`.
        reweighting: a `ReweightingPolicy`.
        model: has `score(x, y, batch_size=128)` -> float `(n,)`, >= 0.
        backward_time: float > 0, default 2; of a backward pass, in forward passes.
        tau_th: float, default 2.
        ratio: float in [0, 1], default 0.5; of what could be spent on scoring, how much is.
        min_a: float in (0, 1], default 0.2; the smallest share of the batch to be trained on, at ratio 1.
        options: as `BaseSampler`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> sampler = ConstantTimeSampler(dset, UNBIASED, OracleWrapper(model, UNBIASED, score="gnorm"))
        >>> indices, (x, y), weights = sampler.sample(128)
    """

    def __init__(
        self,
        dataset: Any,
        reweighting: ReweightingPolicy,
        model: Any,
        backward_time: float = 2.0,
        tau_th: float = 2.0,
        ratio: float = 0.5,
        min_a: float = 0.2,
        **options: Any,
    ):
        check_time_options(backward_time, ratio, min_a)
        if not is_real(tau_th):
            raise ValueError(f"`tau_th` must be a number. Received: tau_th={tau_th!r}")
        super().__init__(dataset, reweighting, model, tau_th, **options)
        self.backward_time, self.ratio, self.min_a = float(backward_time), float(ratio), float(min_a)

    def _candidates(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        sizes = constant_time_sizes(self.vr, batch_size, self.backward_time, self.ratio, self.min_a)
        pool, _ = quantised_time_sizes(*sizes, batch_size, self.backward_time)
        return self._scored(pool)

    def _num_picked(self, batch_size: int, scores: np.ndarray) -> int:
        # What the time leaves after scoring; rounding lets a pool be short of a whole sample's training.
        return int(batch_size - scores.size / (1.0 + self.backward_time) + 1e-9)
