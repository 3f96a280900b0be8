"""Trainers that select hard samples without correcting the bias: selective backprop and hard example mining.

Source: [J19] Jiang et al., Accelerating Deep Learning by Focusing on the Biggest Losers, 2019 (arXiv 1910.00762);
MosaicML's Composer, for the schedule; [S16] Shrivastava et al., Training Region-based Object Detectors with Online Hard
Example Mining, CVPR 2016 (arXiv 1604.03540).
"""

from __future__ import annotations

from collections.abc import Callable

import keras

from importance_sampling.conditions import gate
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.trainer import Trainer
from importance_sampling.samplers.selective import HighestSampler, RankSampler
from importance_sampling.strategies.base import Strategy
from importance_sampling.strategies.scheduled_pool import ScheduledPoolStrategy, SelectionSchedule
from importance_sampling.utils.validation import check_presample, is_int, is_real


class SelectiveBackprop(Trainer):
    """Train on a share of each batch, mostly samples with a high loss. Biased: weights are 1, on purpose.

    A step scores a pool of one batch and trains on a share (`share`) of its samples, drawn without replacement with
    probabilities proportional to ((r + 1/2) / B)^(1/share - 1), where r is the rank of the loss among the B losses.
    Samples are selected while the elapsed fraction of the `fit` is in [start, end). Every `interrupt`-th step of an
    epoch is a uniform step on a whole batch. Before `start` and from `end` on, all steps are uniform.

    A step that selects samples costs 1/3 + `share` uniform steps: 0.83 by default. The gain is time per epoch; the
    number of steps is the same. It loses if high losses are due to wrong labels, and if the metric depends on
    calibrated probabilities, because training emphasises hard samples. `SkippingTraining` needs no forward pass to
    select samples, and is unbiased.

    Args:
        model: a compiled `keras.Model`; `fit` trains this object.
        share: float in (0, 1], default 0.5; the share of a batch that is trained on; Composer calls it `keep`.
        start, end: float, 0 <= start <= end <= 1, default 0.5 and 0.9; the part of training in which samples are
            selected.
        interrupt: int >= 0, default 2; every `interrupt`-th step of an epoch is a uniform step; 0: none. With
            `steps_per_execution`, executions are counted instead of steps.
        score: as for `ImportanceTraining`, default "loss"; the value that is ranked.
        layer, forward_batch_size, seed: as for `ImportanceTraining`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> SelectiveBackprop(model, share=0.5, start=0.5, end=0.9).fit(x_train, y_train, batch_size=128, epochs=10)

    Source: `SelectiveBackprop` of MosaicML's Composer, after [J19].
    """

    def __init__(
        self,
        model: keras.Model,
        share: float = 0.5,
        start: float = 0.5,
        end: float = 0.9,
        interrupt: int = 2,
        *,
        score: str | Callable = "loss",
        layer: keras.Layer | str | int | None = None,
        forward_batch_size: int | None = None,
        seed: int | None = None,
    ):
        if not is_real(share) or not 0 < share <= 1:
            raise ValueError(f"`share` must be a number in (0, 1]. Received: share={share!r}")
        if not is_real(start) or not is_real(end) or not 0 <= start <= end <= 1:
            raise ValueError(
                f"`start` and `end` must be numbers with 0 <= start <= end <= 1. Received: start={start!r}, end={end!r}"
            )
        if not is_int(interrupt) or interrupt < 0:
            raise ValueError(f"`interrupt` must be an int of at least 0 (never). Received: interrupt={interrupt!r}")
        super().__init__(model, gate(0.0), forward_batch_size=forward_batch_size, score=score, layer=layer, seed=seed)
        self.share = float(share)
        self.schedule = SelectionSchedule(float(start), float(end), int(interrupt))

    def _make_strategy(self, plan: FitPlan, batch_size: int) -> Strategy:
        selected = max(int(self.share * batch_size), 1)
        sampler = RankSampler(batch_size, selected)
        return ScheduledPoolStrategy(self.schedule, self.model, sampler, self._state, self._scoring, batch_size)


class HardExampleMining(Trainer):
    """Train on the samples with the highest losses of a pool. Biased: weights are 1, on purpose.

    Every step scores a pool of `presample` batches and trains on a batch of the samples with the highest scores. A step
    costs 1 + presample/3 uniform steps, from the first step on.

    It loses if a few labels are wrong, because the mislabelled samples have the highest losses and are in every batch.
    The mean loss can rise while the highest losses fall. Of the trainers that draw from pools, it has the largest bias;
    early in training, the highest losses say little.

    Args:
        model: a compiled `keras.Model`; `fit` trains this object.
        presample: float >= 1, default 3; candidates per selected sample.
        score: as for `ImportanceTraining`, default "loss".
        layer, forward_batch_size, seed: as for `ImportanceTraining`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> HardExampleMining(model, presample=2).fit(x_train, y_train, batch_size=128, epochs=10)

    Source: [S16], section 4, with samples instead of regions.
    """

    def __init__(
        self,
        model: keras.Model,
        presample: float = 3.0,
        *,
        score: str | Callable = "loss",
        layer: keras.Layer | str | int | None = None,
        forward_batch_size: int | None = None,
        seed: int | None = None,
    ):
        check_presample(presample)
        super().__init__(model, gate(0.0), forward_batch_size=forward_batch_size, score=score, layer=layer, seed=seed)
        self.presample = float(presample)

    def _rows_needed(self, plan: FitPlan, batch_size: int) -> int:
        return round(self.presample * batch_size)

    def _make_strategy(self, plan: FitPlan, batch_size: int) -> Strategy:
        return self._pools(HighestSampler(self._rows_needed(plan, batch_size), batch_size))
