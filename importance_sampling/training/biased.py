"""`BiasedImportanceTraining`: pools of a fixed size, with weights that favour hard samples.

Source: [KF17] Katharopoulos & Fleuret, Biased Importance Sampling, 2017 (arXiv 1706.00043).
"""

from __future__ import annotations

from collections.abc import Callable

import keras

from importance_sampling.conditions import gate
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.trainer import Trainer
from importance_sampling.reweighting import BiasedReweightingPolicy
from importance_sampling.samplers import resampling as resampling_schemes
from importance_sampling.samplers.pool import PoolSampler
from importance_sampling.samplers.smoothing import make_smoothing
from importance_sampling.strategies.base import Strategy
from importance_sampling.utils.validation import check_alpha, check_positive


class BiasedImportanceTraining(Trainer):
    """Draw from pools of a fixed size, with weights raised to the power k. Biased for k < 1: hard samples count more.

    P_i is as for `ImportanceTraining`, but the scores may be smoothed: s_i + smooth, or s_i + smooth * EMA(mean(s)).
    The weights are w_i^k, rescaled so that sum(w^k s) = sum(w s) over the batch. A step costs 1 + presample / (3
    batch_size) uniform steps. There is no gate unless `tau_th` is set, so this cost applies from the first step on.

    It loses if high scores are due to wrong labels, and early in training, when the scores are nearly equal.

    Args:
        model: a compiled `keras.Model`; `fit` trains this object.
        k: float in (-inf, 1], default 0.5; 1 is unbiased, 0 gives equal weights.
        smooth: float >= 0, default 0; added to every score, in units of the score, or of the moving average of scores.
        adaptive_smoothing: bool, default False; True: `smooth` is in units of the moving average.
        presample: int >= 1, default 256; the size of a pool in samples, at least the batch size.
        forward_batch_size: int >= 1 or None, default 128; the number of candidates that are scored at once, to limit
            memory. None: a whole pool.
        score, layer, alpha, resampling, seed: as for `ImportanceTraining`.
        tau_th: float or None, default None; the gate's threshold on tau. None: no gate.

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

    def _rows_needed(self, plan: FitPlan, batch_size: int) -> int:
        return max(self.presample, batch_size)

    def _make_strategy(self, plan: FitPlan, batch_size: int) -> Strategy:
        warning = (
            f"A pool must not be smaller than a batch, so {batch_size} candidates are scored per step. Use a "
            f"`presample` above the batch size. Received: presample={self.presample}, with batch_size={batch_size}"
        )
        pool_size = self._rows_needed(plan, batch_size)
        sampler = PoolSampler(pool_size, batch_size, self.alpha, self.resampling, self.reweighting, self.smooth)
        return self._pools(sampler, warning=warning if self.presample < batch_size else None)
