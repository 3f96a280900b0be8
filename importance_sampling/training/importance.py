"""`ImportanceTraining`: importance sampling behind a gate, by resampled epochs or from pools.

Source: [KF18] Katharopoulos & Fleuret, Not All Samples Are Created Equal, ICML 2018 (arXiv 1803.00942), for pools. The
resampled epochs and the default gate are this library's own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import keras

from importance_sampling.conditions import GainCondition, gate
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.trainer import Trainer
from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import PoolSampler, ReshuffleSampler
from importance_sampling.samplers import resampling as resampling_schemes
from importance_sampling.strategies.base import Strategy
from importance_sampling.strategies.dataset_rows import DatasetRows
from importance_sampling.utils.validation import check_alpha, check_presample, is_one_of
from importance_sampling.utils.warn import warn_gone

SAMPLERS = ("auto", "pool", "reshuffle")
DEFAULT_PRESAMPLE = 3.0


class ImportanceTraining(Trainer):
    """Train a compiled Keras model with importance sampling; `fit` replaces `model.fit`.

    Samples are drawn with P_i = (1 - alpha) s_i / sum(s) + alpha / B from B candidates, and weighted by 1 / (B P_i), so
    the expected gradient equals that of uniform batches. Unbiased. There are two ways to draw:

    - `"reshuffle"`, for data in memory: each epoch is resampled by the scores that training is expected to measure
      (`samplers.ReshuffleSampler`). The steps of the last epoch have measured the scores, and a step costs as much as a
      uniform step; where the gate calls for it, every sample is scored at the start of an epoch, and a step costs 4/3.
    - `"pool"`, for data that arrive in batches or are read from disk: every step scores a pool of
      `presample * batch_size` uniform candidates. A step costs 1 + presample/3 uniform steps.

    A gate decides when these importance steps are taken: while they are worth more than they cost
    (`conditions.GainCondition`). All other steps are uniform steps, which are Keras's own. The gate uses validation
    data if `fit` has any.

    The gain is faster optimisation: a lower training loss in the same time, and earlier overfitting. There is no gain
    if each sample is seen only once or if the samples are about equally hard. It loses if a few labels are wrong,
    because these samples look like hard samples.

    Args:
        model: a compiled `keras.Model`; `fit` trains this object.
        presample: float >= 1, default 3; candidates per drawn sample, for pools. At 1.5 or less the default gate never
            opens. "auto" is deprecated; it is 3.
        tau_th: float or None; None (default): the gate is open while a step is worth more than it costs. A
            float: open while tau > tau_th, the published rule ((presample + 3) / 3 in the paper); a value of at most 1:
            always open; `float("inf")`: never open, and training equals `model.fit` bit for bit.
        forward_batch_size: int >= 1 or None, default None; the number of candidates that are scored at once, to limit
            memory. None: a whole pool.
        score: "gnorm" (default), "loss", "full_gnorm", or a callable `score(model, x, y)` that returns float
            `(batch,)`, >= 0.
        layer: `keras.Layer`, str, int or None, default None; the layer at whose pre-activations "gnorm" takes the
            gradient, or its name or index. None: the model's outputs.
        alpha: float in (0, 1], default 0.1; uniform share of the probabilities. No weight exceeds 1/alpha.
        resampling: "systematic" (default), or "multinomial" as in the paper; for pools.
        sampler: "auto" (default), "pool" or "reshuffle". "auto" uses "reshuffle" for data in memory, unless one of
            `presample`, `tau_th`, `forward_batch_size` and `resampling`, the options of pools, differs from its
            default.
        cost: deprecated; it has no effect.
        seed: int or None, default None; seed of the trainer's own random stream. None follows
            `keras.utils.set_random_seed`.

    Raises:
        ValueError: an argument is out of its range, or `layer` isn't in the model; in `fit`, data without row indices
            and `sampler="reshuffle"`.

    Example:
        >>> model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        >>> trainer = ImportanceTraining(model)
        >>> history = trainer.fit(x_train, y_train, batch_size=128, epochs=3, validation_data=(x_test, y_test))
        >>> print(trainer.summary())

    Source: [KF18], Algorithm 1, for pools. The published method is `tau_th=2.0, resampling="multinomial"`.
    """

    accepts_train_step = True
    _rows_argument = ' with sampler="reshuffle"'

    def __init__(
        self,
        model: keras.Model,
        presample: float | str = DEFAULT_PRESAMPLE,
        tau_th: float | None = None,
        forward_batch_size: int | None = None,
        score: str | Callable = "gnorm",
        layer: keras.Layer | str | int | None = None,
        *,
        alpha: float = 0.1,
        resampling: str = "systematic",
        sampler: str = "auto",
        cost: str | None = None,
        seed: int | None = None,
    ):
        if is_one_of(presample, ("auto",)):
            warn_gone('presample="auto"', f"The default is used: presample={DEFAULT_PRESAMPLE}")
            presample = DEFAULT_PRESAMPLE
        if cost is not None:
            warn_gone("cost", "It has no effect: the cost of a step is computed by arithmetic")
        check_presample(presample)
        check_alpha(alpha)
        if not is_one_of(sampler, SAMPLERS):
            raise ValueError(f"`sampler` must be one of {SAMPLERS}. Received: sampler={sampler!r}")
        condition = GainCondition() if tau_th is None else gate(tau_th)
        super().__init__(model, condition, forward_batch_size=forward_batch_size, score=score, layer=layer, seed=seed)
        self.presample = float(presample)
        self.alpha = float(alpha)
        self.resampling = resampling_schemes.get(resampling)
        defaults = (DEFAULT_PRESAMPLE, None, None, "systematic")
        has_pool_options = (presample, tau_th, forward_batch_size, resampling) != defaults
        self.sampler = "pool" if sampler == "auto" and has_pool_options else sampler
        self.needs_rows = sampler == "reshuffle"
        if sampler == "reshuffle" and (presample, resampling) != (DEFAULT_PRESAMPLE, "systematic"):
            warnings.warn(
                '`presample` and `resampling` are options of pools and have no effect with sampler="reshuffle". Remove '
                f"them. Received: presample={presample}, resampling={resampling!r}",
                stacklevel=2,
            )
        if self.sampler == "pool" and tau_th is None and presample <= 1.5:
            warnings.warn(
                f"With presample={presample} the default gate never opens, because the variance gain can't exceed the "
                "cost of a step. Use a `presample` above 1.5, or a number for `tau_th`.",
                stacklevel=2,
            )

    def _is_indexed(self, plan: FitPlan) -> bool:
        if self.sampler != "auto":
            return self.needs_rows
        return plan.source is not None and plan.source.is_in_memory

    def _rows_needed(self, plan: FitPlan, batch_size: int) -> int:
        return batch_size if self._is_indexed(plan) else round(self.presample * batch_size)

    def _make_strategy(self, plan: FitPlan, batch_size: int) -> Strategy:
        if self._is_indexed(plan):
            return self._indexed(batch_size, self._make_sampler, self.alpha, scored=1.0)
        pool_size = self._rows_needed(plan, batch_size)
        return self._pools(PoolSampler(pool_size, batch_size, self.alpha, self.resampling, UNBIASED))

    def _make_sampler(self, rows: DatasetRows) -> ReshuffleSampler:
        return ReshuffleSampler(rows, UNBIASED, rows, 1, alpha=self.alpha, seed=self._state.seed)
