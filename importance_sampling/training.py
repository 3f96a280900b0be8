"""The facade: one class per training scheme, each saying what it composes.

    fit -> source -> gate -> scores -> sampler -> weights -> step

`fit` itself, the same for all, is in `trainer.py`. Source: [KF18] Katharopoulos & Fleuret, Not All Samples Are Created
Equal, ICML 2018 (arXiv 1803.00942). Nothing is computed here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import keras
import numpy as np

from importance_sampling.conditions import GrowthCondition, VarianceReductionCondition
from importance_sampling.open_steps import OpenSteps, PoolSteps
from importance_sampling.reweighting import BiasedReweightingPolicy
from importance_sampling.samplers import resampling as resampling_schemes
from importance_sampling.samplers.pool import PoolSampler
from importance_sampling.sources import Prepared
from importance_sampling.trainer import Trainer, is_number


class ImportanceTraining(Trainer):
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
        if not is_number(presample) or not 1 <= presample < float("inf"):
            raise ValueError(f"`presample` must be a finite number of at least 1. Received: presample={presample!r}")
        if not is_number(alpha) or not 0 < alpha <= 1:
            raise ValueError(f"`alpha` must be a number in (0, 1]. Received: alpha={alpha!r}")
        if tau_th is not None and (not is_number(tau_th) or np.isnan(tau_th)):
            raise ValueError(f"`tau_th` must be a number, or None for the default gate. Received: tau_th={tau_th!r}")
        condition = GrowthCondition(presample) if tau_th is None else VarianceReductionCondition(tau_th)
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
            self._rows_needed(prepared.batch_size),
            prepared.batch_size,
            self.alpha,
            self.resampling,
            BiasedReweightingPolicy(),
        )
        return PoolSteps(
            self.model, keras_function, sampler, self._state, self.score, self.layer, self.forward_batch_size
        )
