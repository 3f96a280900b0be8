"""Trainers that look before they pick: a pool of candidates is scored, and the batch drawn from it by score.

Source: [KF17] Katharopoulos & Fleuret, Biased Importance Sampling, 2017 (arXiv 1706.00043). Nothing is computed here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import keras

from importance_sampling.conditions import gate
from importance_sampling.open_steps import OpenSteps, PoolSteps
from importance_sampling.reweighting import UNBIASED, BiasedReweightingPolicy
from importance_sampling.samplers import resampling as resampling_schemes
from importance_sampling.samplers.pool import PoolSampler
from importance_sampling.samplers.smoothing import make_smoothing
from importance_sampling.sources import Prepared
from importance_sampling.trainer import Trainer
from importance_sampling.utils.validation import check_alpha, check_positive


class PoolTrainer(Trainer):
    """What trainers whose steps score pools have in common."""

    def _pool_steps(
        self, keras_function: Callable, sampler: PoolSampler, presamples: tuple[float, ...] = ()
    ) -> PoolSteps:
        return PoolSteps(self.model, keras_function, sampler, self._state, self._scoring, presamples)

    def _unbiased_steps(
        self, keras_function: Callable, pool_size: int, picked: int, presamples: tuple[float, ...] = ()
    ) -> PoolSteps:
        """For trainers that have an alpha and a resampling."""
        sampler = PoolSampler(pool_size, picked, self.alpha, self.resampling, UNBIASED)
        return self._pool_steps(keras_function, sampler, presamples)


class BiasedImportanceTraining(PoolTrainer):
    """Weights raised to the power k: training that leans towards hard samples, from pools of a fixed size.

    P_i as for `ImportanceTraining`, by scores that may be smoothed, s_i + smooth or s_i + smooth * EMA(mean(s));
    weights w_i^k, rescaled so that sum(w^k s) = sum(w s) over the batch. Biased for k < 1. A step costs
    1 + presample / (3 batch_size) plain ones, from the first one on: there is no gate unless `tau_th` is given.

    It loses where high scores mean wrong labels, and early in training, when scores are nearly equal and pools are paid
    for all the same.

    Args:
        model: a compiled `keras.Model`; it stays the user's own.
        k: float in (-inf, 1], default 0.5; 1 is unbiased, 0 weighs the batch evenly.
        smooth: float >= 0, default 0; added to every score, in units of the score, or of the scores' moving average.
        adaptive_smoothing: bool, default False; whether `smooth` is in units of the moving average.
        presample: int, default 256; the pool's size in samples, at least a batch.
        forward_batch_size: int or None, default 128; how many candidates are scored at once, to bound memory.
        score, layer, alpha, resampling, seed: as for `ImportanceTraining`.
        tau_th: float or None (default): no gate.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> BiasedImportanceTraining(model, k=0.5, presample=512).fit(x_train, y_train, batch_size=128)

    Source: [KF17], section 3.1.
    """

    def __init__(
        self,
        model: keras.Model,
        k: float = 0.5,
        smooth: float = 0.0,
        adaptive_smoothing: bool = False,
        presample: int = 256,
        forward_batch_size: int | None = 128,
        *,
        score: str | Callable = "gnorm",
        layer: keras.Layer | str | int | None = None,
        alpha: float = 0.1,
        resampling: str = "systematic",
        tau_th: float | None = None,
        seed: int | None = None,
    ):
        check_positive(presample=presample)
        check_alpha(alpha)
        condition = gate(0.0 if tau_th is None else tau_th)
        super().__init__(model, condition, forward_batch_size=forward_batch_size, score=score, layer=layer, seed=seed)
        self.presample = int(presample)
        self.alpha = float(alpha)
        self.resampling = resampling_schemes.get(resampling)
        self.reweighting = BiasedReweightingPolicy(k)
        self.smooth = make_smoothing(smooth, adaptive_smoothing)

    def _rows_needed(self, prepared: Prepared) -> int:
        return max(self.presample, prepared.batch_size)

    def _open_steps(self, keras_function: Callable, prepared: Prepared) -> OpenSteps:
        size = prepared.batch_size
        if self.presample < size:
            warnings.warn(
                f"A pool is at least a batch: {size} candidates are scored a step. Use a `presample` above the batch "
                f"size. Received: presample={self.presample}, with batch_size={size}",
                stacklevel=4,
            )
        pool_size = self._rows_needed(prepared)
        sampler = PoolSampler(pool_size, size, self.alpha, self.resampling, self.reweighting, self.smooth)
        return self._pool_steps(keras_function, sampler)
