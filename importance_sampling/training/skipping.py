"""`SkippingTraining`: epochs with fewer steps, from which well-learned samples are left out at random.

Source: [Q24] Qin et al., InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning, ICLR 2024
(arXiv 2303.04947).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from importance_sampling.backend import keras_internals
from importance_sampling.events import Listeners
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.messages import DeferredWarnings
from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import BaseSampler, SkippingSampler
from importance_sampling.samplers.skipping import checked_skip_probability
from importance_sampling.strategies.indexed_step import MEASURED_SCORES
from importance_sampling.strategies.skipping import SkippingStrategy
from importance_sampling.training.indexed import IndexedTrainer
from importance_sampling.utils.validation import check_flag, check_fraction, is_one_of

SCHEDULE_WARNING = (
    "The optimizer's `LearningRateSchedule` counts steps, and skipping takes fewer steps per epoch: the schedule "
    "doesn't reach its end. Set the learning rate by epochs instead, with `keras.callbacks.LearningRateScheduler`"
)


class SkippingTraining(IndexedTrainer):
    """Train on fewer samples per epoch: well-learned samples are left out at random, the others are weighted for them.

    Before an epoch, each sample whose last loss is below the mean of the last losses is left out with probability
    q = `skip_probability`, and otherwise weighted by 1 / (1 - q). All other samples are included with a weight of 1, so
    that the weighted gradients of an epoch sum, on average, to those of all samples. With `smooth=True`, a sample is
    included with probability p = loss / mean loss, limited to [1 - q, 1], and weighted by 1 / p. No sample occurs
    twice, no samples are scored separately, and an epoch has fewer steps. The first epoch contains all samples, because
    no losses are known yet; so do the last epochs of a `fit`, the fraction `full_epochs`.

    Unbiased. The gain is time: a step costs as much as a uniform step, and there are fewer of them. On six small tasks
    with Adam, it saved a third of the steps, but `model.fit` with as few steps and a higher learning rate reached the
    same training loss or a lower one. There is no gain in the first epoch, nor in a `fit` of one epoch. A
    `LearningRateSchedule` in the optimizer counts steps and doesn't reach its end: use epoch-based schedules, such as
    `keras.callbacks.LearningRateScheduler`.

    Args:
        model: a compiled `keras.Model`; `fit` trains this object.
        skip_probability: float in [0, 1), or None (default): 0.5, and 2/3 with `smooth=True`. No weight exceeds
            1 / (1 - `skip_probability`): 2, and 3 with `smooth=True`.
        smooth: bool, default False; inclusion probabilities that depend on the loss without a threshold.
        full_epochs: float in [0, 1), default 0.125; the fraction of a `fit`'s epochs, at its end and rounded up, that
            contain all samples with weights of 1. Set it to 0 for `fit(epochs=1)` in a loop.
        score: "loss" (default) or "gnorm"; the score that is compared with its mean.
        seed: int or None, default None; seed of the trainer's own random stream. None follows
            `keras.utils.set_random_seed`.

    Raises:
        ValueError: an argument is out of its range; in `fit`, the data have no row indices, or `score="loss"` is used
            with a loss that is negative.

    Example:
        >>> trainer = SkippingTraining(model)
        >>> history = trainer.fit(x_train, y_train, batch_size=128, epochs=16)
        >>> kept = history.history["kept"]  # the share of the samples in each epoch

    Source: [Q24]. The smooth inclusion probabilities and the epochs of whole batches are specific to this library.
    """

    def __init__(
        self,
        model: keras.Model,
        skip_probability: float | None = None,
        smooth: bool = False,
        *,
        full_epochs: float = 0.125,
        score: str = "loss",
        seed: int | None = None,
    ):
        check_fraction(full_epochs=full_epochs)
        check_flag(smooth=smooth)
        if not is_one_of(score, MEASURED_SCORES):
            raise ValueError(
                f"`score` must be one of {MEASURED_SCORES}, which training steps measure. Received: score={score!r}"
            )
        super().__init__(model, score=score, layer=None, tau_th=None, seed=seed)
        self.skip_probability = checked_skip_probability(skip_probability, smooth)
        self.smooth = bool(smooth)
        self.full_epochs = float(full_epochs)

    def _make_sampler(self, rows: Any) -> BaseSampler:
        return SkippingSampler(rows, UNBIASED, self.skip_probability, self.smooth, seed=self._state.seed)

    def _make_strategy(self, plan: FitPlan, batch_size: int) -> SkippingStrategy:
        return SkippingStrategy(
            self.full_epochs,
            self.model,
            self._make_sampler,
            batch_size,
            self._state,
            self._scoring,
        )

    def _plan(self, arguments: dict, listeners: Listeners, deferred: DeferredWarnings) -> FitPlan:
        """Return the plan of a `fit`; the trainer ends its epochs itself, also those of `steps_per_epoch` steps."""
        plan = super()._plan(arguments, listeners, deferred)
        if plan.reason is not None or not plan.batches_per_pass:
            return plan
        if keras_internals.has_step_schedule(self.model.optimizer):
            deferred.add(SCHEDULE_WARNING)
        steps = min(plan.arguments["steps_per_epoch"] or plan.batches_per_pass, plan.batches_per_pass)
        batch_size = plan.arguments["batch_size"] or plan.batch_size
        changed = dict(plan.arguments, steps_per_epoch=None, batch_size=batch_size)
        return dataclasses.replace(plan, arguments=changed, full_epoch_steps=steps)
