"""Importance sampling with smaller batches of the same variance, or with a lower variance in the same time.

Sizes are rounded to eighths of the batch size, so that a step is compiled for few sizes only. The time of a backward
pass is an argument.

Source: the samplers of the same names in earlier versions of the method's library; [KF18] (arXiv 1803.00942), section
3.3, for the variance reduction.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.conditions import VarianceReductionCondition
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
from importance_sampling.utils.validation import is_real


class GatedSampler(ScoringSampler):
    """A scoring sampler with its own gate. It draws uniform batches until the average of tau exceeds a threshold.

    The gate is updated with the scores that training steps measure while it is closed, and with the scores of pools
    while it is open.

    Args:
        dataset, reweighting, model and options: as for `ScoringSampler`.
        threshold: float, of tau.
    """

    needs_scores = True
    _saved = (*ScoringSampler._saved, "_is_uniform")
    _saved_keys = {**ScoringSampler._saved_keys, "_is_uniform": "_is_fair"}
    _parts = ("condition",)

    def __init__(self, dataset: Any, reweighting: ReweightingPolicy, model: Any, threshold: float, **options: Any):
        super().__init__(dataset, reweighting, model, **options)
        self.condition = VarianceReductionCondition(threshold)
        self._is_uniform = True  # True if the last batch was drawn uniformly

    @property
    def vr(self) -> float:
        """The variance reduction: the moving average of tau, at least 1."""
        return float(np.fmax(self.condition.average, 1.0))

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Update the gate with measured scores, if the batch was drawn uniformly."""
        if self._is_uniform:
            self.condition.update(scores)

    def _draw(self, batch_size: int, smooth: Smoothing) -> Drawn:
        self._is_uniform = not self.condition.satisfied
        if self._is_uniform:
            return self._uniform_batch(self._next_indices(batch_size))
        return super()._draw(batch_size, smooth)

    def _score_candidates(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        indices, scores = super()._score_candidates(n)
        self.condition.update(scores)
        return indices, scores


class ConstantVarianceSampler(GatedSampler):
    """Keep the variance and reduce the batch size: score a pool of b and draw int(b (1/vr + extra_samples)) samples.

    Batches are uniform, of size b, until vr, the moving average of tau, exceeds
    1 / (backward_time / (1 + backward_time) - extra_samples). Unbiased with an unbiased policy. Cost: a forward pass
    over b samples and a training step on the drawn samples, whose number is rounded to the nearest eighth of b. Not
    suited to scores for which tau overestimates the variance reduction: a batch drawn from a pool of b samples never
    has a lower variance than the whole pool.

    Args:
        dataset: has `train_data`.
        reweighting: a `ReweightingPolicy`.
        model: has `score(x, y, batch_size=128)` -> float `(n,)`, >= 0.
        backward_time: float > 0, default 2, the time of a backward pass in forward passes.
        extra_samples: float >= 0, default 0.2, the number of samples in addition to b / vr, as a share of b.
        options: as for `BaseSampler`.

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
        return self._score_candidates(batch_size)

    def _num_picked(self, batch_size: int, scores: np.ndarray) -> int:
        return quantised(constant_variance_size(self.vr, batch_size, self.extra_samples), batch_size)


class ConstantTimeSampler(GatedSampler):
    """Keep the time of a step and reduce the variance: score B samples and train on a of them.

    Batches are uniform, of size b, until vr, the moving average of tau, exceeds `tau_th`. Afterwards B and a are those
    of `sizes.constant_time_sizes`, with B + (1 + backward_time) a = (1 + backward_time) b; a is rounded to the nearest
    eighth of b, and B uses the time left. Unbiased with an unbiased policy. Cost: that of a uniform step, if
    `backward_time` is right.

    Args:
        dataset: has `train_data`.
        reweighting: a `ReweightingPolicy`.
        model: has `score(x, y, batch_size=128)` -> float `(n,)`, >= 0.
        backward_time: float > 0, default 2, the time of a backward pass in forward passes.
        tau_th: float, default 2.
        ratio: float in [0, 1], default 0.5: 0 scores b samples, 1 the largest pool that the time allows.
        min_a: float in (0, 1], default 0.2, a lower limit of a / b, at ratio 1.
        options: as for `BaseSampler`.

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
        _, picked = constant_time_sizes(self.vr, batch_size, self.backward_time, self.ratio, self.min_a)
        pool_size, _ = quantised_time_sizes(picked, batch_size, self.backward_time)
        return self._score_candidates(pool_size)

    def _num_picked(self, batch_size: int, scores: np.ndarray) -> int:
        # The time left after scoring. The small constant corrects a rounding error below an integer.
        return int(batch_size - scores.size / (1.0 + self.backward_time) + 1e-9)
