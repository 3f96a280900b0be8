"""Trainers that look before they pick: a pool of candidates is scored, and the batch drawn from it by score.

Source: [KF18] Katharopoulos & Fleuret, Not All Samples Are Created Equal, ICML 2018 (arXiv 1803.00942); [KF17] the
same, Biased Importance Sampling, 2017 (arXiv 1706.00043). Nothing is computed here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import keras

from importance_sampling.conditions import GrowthCondition, gate
from importance_sampling.datasets.base import is_real
from importance_sampling.open_steps import OpenSteps, PoolSteps
from importance_sampling.probabilities import check_alpha
from importance_sampling.reweighting import UNBIASED, BiasedReweightingPolicy
from importance_sampling.samplers import resampling as resampling_schemes
from importance_sampling.samplers.model import check_positive
from importance_sampling.samplers.pool import PoolSampler
from importance_sampling.samplers.smoothing import smoother
from importance_sampling.sources import Prepared
from importance_sampling.trainer import Trainer


class PoolTrainer(Trainer):
    """What trainers whose steps score pools have in common."""

    def _pool_steps(self, keras_function: Callable, sampler: PoolSampler) -> PoolSteps:
        return PoolSteps(
            self.model, keras_function, sampler, self._state, self.score, self.layer, self.forward_batch_size
        )


class ImportanceTraining(PoolTrainer):
    """Train a compiled Keras model by importance sampling: `ImportanceTraining(model).fit(...)` for `model.fit(...)`.

    Every importance step scores a pool of `presample * batch_size` uniform candidates, draws the batch from it with
    P_i = (1 - alpha) s_i / sum(s) + alpha / B, and weighs each sample by 1 / (B P_i), so that the expected gradient is
    that of uniform batches. Unbiased; a step costs about 1 + presample/3 plain ones, and is only taken while the gate
    finds that it is worth it. Until then every step is Keras's own.

    It loses where the gradient's noise is not what limits training: early on, with very noisy labels, or under a
    learning rate that has decayed; the default gate sees only the first of these.

    Args:
        model: a compiled `keras.Model`; it stays the user's own.
        presample: float >= 1, default 3; candidates per picked sample. At 1.5 or less the default gate never opens.
        tau_th: None (default) opens while the effective batch grows by more than a step costs; a float t opens while
            tau > t, the published rule ((presample + 3) / 3 in the paper); t <= 1 from the first step,
            `float("inf")` never: then training equals `model.fit` bit for bit.
        forward_batch_size: int or None (default); how many candidates are scored at once, to bound memory.
        score: "gnorm" (default), "loss", "full_gnorm", or a callable `score(model, x, y)` -> `(batch,)`, >= 0.
        layer: a layer, its name or index: take the gradient of "gnorm" there, not at the model's outputs.
        alpha: float in (0, 1], default 0.1; the uniform share. No weight exceeds 1/alpha.
        resampling: "systematic" (default) or "multinomial", the paper's.
        seed: int or None (default); of the library's own random stream. None follows `keras.utils.set_random_seed`.

    Raises:
        ValueError: an argument is out of its range, or `layer` isn't in the model.

    Example:
        >>> model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        >>> trainer = ImportanceTraining(model)
        >>> history = trainer.fit(x_train, y_train, batch_size=128, epochs=3, validation_data=(x_test, y_test))
        >>> print(trainer.summary())

    Source: [KF18], Algorithm 1. The published method is `presample=3.0, tau_th=2.0, resampling="multinomial"`.
    """

    def __init__(
        self,
        model: keras.Model,
        presample: float = 3.0,
        tau_th: float | None = None,
        forward_batch_size: int | None = None,
        score: str | Callable = "gnorm",
        layer: keras.Layer | str | int | None = None,
        *,
        alpha: float = 0.1,
        resampling: str = "systematic",
        seed: int | None = None,
    ):
        if not is_real(presample) or not 1 <= presample < float("inf"):
            raise ValueError(f"`presample` must be a finite number of at least 1. Received: presample={presample!r}")
        check_alpha(alpha)
        condition = GrowthCondition(presample) if tau_th is None else gate(tau_th)
        super().__init__(model, condition, forward_batch_size=forward_batch_size, score=score, layer=layer, seed=seed)
        self.presample = float(presample)
        self.alpha = float(alpha)
        self.resampling = resampling_schemes.get(resampling)
        if tau_th is None and self.presample <= 1.5:
            warnings.warn(
                f"With presample={presample} the default gate never opens: the effective batch can't grow by more than "
                "a step costs. Use a `presample` above 1.5, or a number for `tau_th`.",
                stacklevel=2,
            )

    def _rows_needed(self, batch_size: int) -> int:
        return round(self.presample * batch_size)

    def _open_steps(self, keras_function: Callable, prepared: Prepared) -> OpenSteps:
        sampler = PoolSampler(
            self._rows_needed(prepared.batch_size), prepared.batch_size, self.alpha, self.resampling, UNBIASED
        )
        return self._pool_steps(keras_function, sampler)


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
        self.smooth = smoother(smooth, adaptive_smoothing)

    def _rows_needed(self, batch_size: int) -> int:
        return max(self.presample, batch_size)

    def _open_steps(self, keras_function: Callable, prepared: Prepared) -> OpenSteps:
        size = prepared.batch_size
        if self.presample < size:
            warnings.warn(
                f"A pool is at least a batch: {size} candidates are scored a step. Use a `presample` above the batch "
                f"size. Received: presample={self.presample}, with batch_size={size}",
                stacklevel=4,
            )
        sampler = PoolSampler(self._rows_needed(size), size, self.alpha, self.resampling, self.reweighting, self.smooth)
        return self._pool_steps(keras_function, sampler)
