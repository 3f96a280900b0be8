"""The main door: importance sampling by whatever suits the data, behind a gate.

Source: [KF18] Katharopoulos & Fleuret, Not All Samples Are Created Equal, ICML 2018 (arXiv 1803.00942), for pools; the
weighted reshuffle and the default gate are this library's. Nothing is computed here.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import keras

from importance_sampling.conditions import GrowthCondition, MeasuredCost, gate
from importance_sampling.conditions.cost import COSTS
from importance_sampling.open_steps import ChosenPoolSteps, OpenSteps
from importance_sampling.open_steps.chosen import PRESAMPLES
from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import ReshuffleSampler
from importance_sampling.samplers import resampling as resampling_schemes
from importance_sampling.sources import Prepared
from importance_sampling.state import TrainerState
from importance_sampling.training.pools import PoolTrainer
from importance_sampling.utils.validation import check_alpha, is_real

SAMPLERS = ("auto", "pool", "reshuffle")


class ImportanceTraining(PoolTrainer):
    """Train a compiled Keras model by importance sampling: `ImportanceTraining(model).fit(...)` for `model.fit(...)`.

    Samples are drawn with P_i = (1 - alpha) s_i / sum(s) + alpha / B out of B, and weighed by 1 / (B P_i), so that the
    expected gradient is that of uniform batches. Unbiased. That is done in one of two ways:

    - `"reshuffle"`, for data in memory: as an epoch begins every sample is scored, and the whole epoch is resampled by
      what training is expected to measure of each (`samplers.ReshuffleSampler`). A step costs 4/3 of a plain one.
    - `"pool"`, for whatever comes batch by batch or is read from a disk: every step scores a pool of
      `presample * batch_size` uniform candidates, and costs about 1 + presample/3 plain ones.

    Steps of this kind are only taken while a gate finds that they are worth it: while the effective batch grows by more
    than they cost, and the learning rate hasn't fallen. A reshuffle needs a pass over the data first, and a growth of
    5. Until then every step is Keras's own.

    It is an optimiser's gain: training gets further in the same time, to a lower loss, and to where it overfits. It
    gains nothing where data are seen once, or the learning rate decays over the run. It loses with wrong labels, if
    they are few enough to look like hard samples; where they are many, the gate stays closed.

    Args:
        model: a compiled `keras.Model`; it stays the user's own.
        presample: float >= 1, default 3; candidates per picked sample, of pools. At 1.5 or less the default gate never
            opens for them. "auto": 2, 3, 5 or 8, whichever makes the effective batch grow most for what it costs, as
            training goes on.
        tau_th: None (default) opens while the effective batch grows by more than a step costs; a float t opens while
            tau > t, the published rule ((presample + 3) / 3 in the paper); t <= 1 from the first step,
            `float("inf")` never: then training equals `model.fit` bit for bit.
        forward_batch_size: int or None (default); how many candidates are scored at once, to bound memory.
        score: "gnorm" (default), "loss", "full_gnorm", or a callable `score(model, x, y)` -> `(batch,)`, >= 0.
        layer: a layer, its name or index: take the gradient of "gnorm" there, not at the model's outputs.
        alpha: float in (0, 1], default 0.1; the uniform share. No weight exceeds 1/alpha.
        resampling: "systematic" (default) or "multinomial", the paper's; of pools.
        sampler: "auto" (default), "pool" or "reshuffle". "auto" reshuffles data in memory, unless one of `presample`,
            `tau_th`, `forward_batch_size` and `resampling`, which speak of pools, is set to something else than its
            default, or the model is compiled with several `steps_per_execution`.
        cost: "arithmetic" (default) or "measured"; how the default gate knows what a step costs. Measured it is by the
            time that steps of both kinds take on this machine, and the same seed may give other weights.
        seed: int or None (default); of the library's own random stream. None follows `keras.utils.set_random_seed`.

    Raises:
        ValueError: an argument is out of its range, or `layer` isn't in the model; in `fit`, data without rows by index
            for `sampler="reshuffle"`.

    Example:
        >>> model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        >>> trainer = ImportanceTraining(model)
        >>> history = trainer.fit(x_train, y_train, batch_size=128, epochs=3, validation_data=(x_test, y_test))
        >>> print(trainer.summary())

    Source: [KF18], Algorithm 1, for pools. The published method is `tau_th=2.0, resampling="multinomial"`.
    """

    _asked_for_rows = ' with sampler="reshuffle"'

    def __init__(
        self,
        model: keras.Model,
        presample: float | str = 3.0,
        tau_th: float | None = None,
        forward_batch_size: int | None = None,
        score: str | Callable = "gnorm",
        layer: keras.Layer | str | int | None = None,
        *,
        alpha: float = 0.1,
        resampling: str = "systematic",
        sampler: str = "auto",
        cost: str = "arithmetic",
        seed: int | None = None,
    ):
        if presample != "auto" and (not is_real(presample) or not 1 <= presample < float("inf")):
            raise ValueError(
                f'`presample` must be a finite number of at least 1, or "auto". Received: presample={presample!r}'
            )
        check_alpha(alpha)
        if sampler not in SAMPLERS:
            raise ValueError(f"`sampler` must be one of {SAMPLERS}. Received: sampler={sampler!r}")
        if cost not in COSTS:
            raise ValueError(f"`cost` must be one of {COSTS}. Received: cost={cost!r}")
        condition = GrowthCondition() if tau_th is None else gate(tau_th)
        super().__init__(model, condition, forward_batch_size=forward_batch_size, score=score, layer=layer, seed=seed)
        self.presample = presample if presample == "auto" else float(presample)
        self.alpha = float(alpha)
        self.resampling = resampling_schemes.get(resampling)
        of_pools = (presample, tau_th, forward_batch_size, resampling) != (3.0, None, None, "systematic")
        self.sampler = "pool" if sampler == "auto" and of_pools else sampler
        self.needs_rows = sampler == "reshuffle"
        self.cost = cost
        if sampler == "reshuffle" and (presample, resampling) != (3.0, "systematic"):
            warnings.warn(
                '`presample` and `resampling` are of pools, and have no effect with sampler="reshuffle". Leave them '
                f"out. Received: presample={presample}, resampling={resampling!r}",
                stacklevel=2,
            )
        if cost == "measured" and tau_th is not None and presample != "auto":
            warnings.warn(
                "With `tau_th` the gate knows nothing of costs, and `cost` has no effect. Leave one of them out. "
                f"Received: cost={cost!r}, with tau_th={tau_th}",
                stacklevel=2,
            )
        if self.sampler == "pool" and tau_th is None and presample != "auto" and presample <= 1.5:
            warnings.warn(
                f"With presample={presample} the default gate never opens: the effective batch can't grow by more than "
                "a step costs. Use a `presample` above 1.5, or a number for `tau_th`.",
                stacklevel=2,
            )

    def _by_row(self, prepared: Prepared) -> bool:
        if self.sampler != "auto":
            return self.needs_rows
        # Steps by row return to Python one by one, which several steps an execution are there to avoid.
        return prepared.source is not None and prepared.source.is_resident and self.model.steps_per_execution == 1

    def _rows_needed(self, prepared: Prepared) -> int:
        size = prepared.batch_size
        least = PRESAMPLES[0] if self.presample == "auto" else self.presample
        return size if self._by_row(prepared) else round(least * size)

    def _new_state(self, seed: int | None) -> TrainerState:
        if self.presample != "auto" or self.sampler != "pool":
            return super()._new_state(seed)
        kind = f'{type(self).__name__} with presample="auto"'
        return TrainerState(seed, kind=kind, sizes=len(PRESAMPLES))

    def _open_steps(self, keras_function: Callable, prepared: Prepared) -> OpenSteps:
        if self._by_row(prepared):
            steps: OpenSteps = self._row_steps(
                keras_function,
                prepared,
                lambda rows: ReshuffleSampler(rows, UNBIASED, rows, 1, alpha=self.alpha, seed=self._state.seed),
                self.alpha,
                scored=1.0,
            )
        elif self.presample == "auto":
            make = functools.partial(self._unbiased_steps, keras_function, presamples=PRESAMPLES)
            steps = ChosenPoolSteps(make, prepared.batch_size, self._state)
        else:
            steps = self._unbiased_steps(keras_function, self._rows_needed(prepared), prepared.batch_size)
        if self.cost == "measured":
            steps.cost = MeasuredCost()
        return steps
