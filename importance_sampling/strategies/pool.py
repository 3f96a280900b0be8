"""Importance steps from pools: score a pool of candidates, draw the batch from it, train on the batch.

Source: [KF18] Katharopoulos & Fleuret, Not All Samples Are Created Equal, 2018 (arXiv 1803.00942), Algorithm 1, as one
compiled function with static shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from importance_sampling import backend
from importance_sampling.conditions import GateContext, Signals, measured_variance_gain, tau, variance_gain
from importance_sampling.conditions.base import UNIFORM_STEP
from importance_sampling.core import eligibility
from importance_sampling.core.gradients import weighted_step
from importance_sampling.core.metric_updates import update_from_pool
from importance_sampling.core.scoring import Scorer, Scoring
from importance_sampling.core.weighted_loss import valid_entries
from importance_sampling.data.batches import PeekableBatches, count_rows
from importance_sampling.fit.state import TrainerState
from importance_sampling.samplers.pool import Picked, PoolSampler
from importance_sampling.strategies.base import StepResult, Strategy
from importance_sampling.utils.errors import Unsupported
from importance_sampling.utils.numerics import FLOAT, clean_scores
from importance_sampling.utils.structures import map_leaves

# A step on a pool costs about two uniform steps, and is worth at most as many as a pool has batches: noise has to be
# most of what keeps the loss high. At this tau, the scores are as unequal as if one sample in ten had all of them. On
# streams of nine tasks, pools were slower than uniform steps while tau was smaller.
REQUIRED_TAU = math.sqrt(10.0)


class PoolStrategy(Strategy):
    """Takes importance steps on batches drawn from pools of one size.

    Args:
        model, state, scoring: as for `Strategy`.
        sampler: draws the batch.
        batch_size: int, of a uniform step; None (default): the sampler's.
        warning: what the user should know at the first step; None (default): nothing.
    """

    supports_replicas = True

    def __init__(
        self,
        model: keras.Model,
        sampler: PoolSampler,
        state: TrainerState,
        scoring: Scoring,
        batch_size: int | None = None,
        warning: str | None = None,
    ):
        super().__init__(model, sampler, batch_size or sampler.batch_size, state, scoring)
        self._compiled: dict[bool, Callable] = {}
        self._pools: Any = None
        self._sizes_checked = False
        self._warning = warning

    def check_replicas(self) -> None:
        """Check that the replicas of the model, if there are several, can share a pool and a batch equally."""
        super().check_replicas()
        if self.sampler.pool_size % backend.replicas(self.model):
            raise Unsupported(
                f"its replicas can't share a pool of {self.sampler.pool_size} candidates equally. Choose a whole "
                "`presample`"
            )

    def check(self, batch: tuple) -> None:
        """Check once, on a batch, that samples can be weighted and that the model accepts the sizes in use.

        A model that accepts one batch size only has its pools scored in batches of that size.
        """
        if not self._sizes_checked:
            pool, trained = self.sampler.pool_size, self.sampler.batch_size
            usual = count_rows(batch[0])
            if not eligibility.accepts(self.model, batch, min(self.scoring.slice_size or pool, pool)):
                if pool % usual:
                    raise Unsupported(
                        f"it accepts {usual} rows only, and a pool of {pool} candidates can't be scored in batches of "
                        "that size. Leave the batch size open in the layers of the model, or choose a whole `presample`"
                    )
                self.scorer.slice_size = usual
            if not eligibility.accepts(self.model, batch, trained):
                raise Unsupported(
                    f"it accepts {usual} rows only, and steps of {trained} rows can't be taken. Leave the batch size "
                    "open in the layers of the model"
                )
            self._sizes_checked = True
        super().check(batch)

    def step(self, n: int, batches: PeekableBatches, steps_left: float, with_draws: bool) -> StepResult | None:
        """Take up to n importance steps; None if the rest of the epoch doesn't fill a pool."""
        if self._pools is None:
            self.prepare()
            pool_size, start = self.sampler.pool_size, self.state.counters.pools
            self._pools = self._candidates().pools(pool_size, self.state.seed, start)
        n = self._pools.fill(n, batches)
        if not n:
            return None
        logs, drawn = self._steps(with_draws)(n, self._pools.iterator)
        self._pools.take(batches)
        self.state.counters.pools += n
        cost = self.cost_of(scored=n * self.sampler.pool_size, trained=n * self.sampler.batch_size)
        return StepResult(logs, n, cost, *drawn)

    def continue_from(self, other: PoolStrategy) -> None:
        """Continue to read where a strategy of another pool size stopped."""
        if other._pools is not None:
            self.prepare()
            self._pools, other._pools = other._pools.resize(self.sampler.pool_size), None

    def gate_context(self) -> GateContext:
        """Return the context for the gate's decision."""
        cost = self.cost_of(scored=self.sampler.pool_size, trained=self.sampler.batch_size) / UNIFORM_STEP
        return GateContext(cost, required_tau=REQUIRED_TAU)

    def first_step_warning(self) -> str | None:
        """Return what the user should know at the first step."""
        return self._warning

    def signals(self, scores: Any) -> Signals:
        """Compute the gate's signals for pools from the scores of uniformly drawn samples."""
        return pool_signals(scores, self.sampler)

    def close(self) -> None:
        """Stop reading ahead: a reader that runs while Python shuts down would block it."""
        if self._pools is not None:
            self._pools.close()
            self._pools = None

    def _candidates(self) -> Any:
        """Return the source of the candidates."""
        return self.plan.source

    def _unpacker(self) -> Callable:
        """Return the function from the columns of a pool to the arguments of `PoolStep` after the indices."""
        pack = self.plan.source.pack
        return lambda columns: (pack(columns),)

    def _steps(self, with_draws: bool) -> Callable:
        """Return the compiled function `(n, pools) -> (logs, draws)`."""
        if with_draws not in self._compiled:
            step = PoolStep(self.model, self.scorer, self.sampler, self.state, with_draws)
            unpack = self._unpacker()
            one = self.compile(lambda indices, *columns: step(indices, *unpack(columns)))
            self._compiled[with_draws] = backend.repeat_steps(lambda _, pools: one(*next(pools)), self.model)
        return self._compiled[with_draws]


class PoolStep:
    """An importance step on a pool of candidates.

    Args:
        model: a compiled and built model.
        scorer: scores the pool.
        sampler: draws the batch from the pool.
        state: the variables of the trainer: signals, weight statistics and random generator.
        with_draws: bool, return the drawn samples and the scores.
    """

    def __init__(
        self,
        model: keras.Model,
        scorer: Scorer,
        sampler: PoolSampler,
        state: TrainerState,
        with_draws: bool,
    ):
        self.model = model
        self.scorer = scorer
        self.sampler = sampler
        self.state = state
        self.with_draws = with_draws

    def __call__(self, indices: Any, data: tuple, baseline: Any = None) -> tuple[dict, tuple]:
        """Score a pool, and train on a batch drawn from it.

        Args:
            indices: int `(pool_size,)`, the row indices of the candidates in the training set.
            data: `(x, y, sample_weight)` of the candidates; `y` and `sample_weight` may be None.
            baseline: None (default), or float `(pool_size,)`: the scores are then those of `above_baseline`.

        Returns:
            The logs of Keras's own step, and `(indices, weights, scores, pool_scores)`: the first three of the drawn
            samples, `(batch_size,)`, the last of the pool, `(pool_size,)`. The tuple is empty without `with_draws`.
        """
        logs, (scores, entries) = backend.on_replicas(self.model, self._score, data)
        if baseline is not None:
            scores = above_baseline(scores, baseline)
        picked, batch = self.pick(scores, data)
        expected_entries = [ops.mean(output) for output in entries]
        drawn = batch, picked.weights, picked.unbiased_weights
        _, norms = backend.on_replicas(self.model, lambda rows: self._train(*rows, expected_entries), drawn)
        return logs, self.record(indices, scores, picked, norms)

    def pick(self, scores: Any, data: tuple) -> tuple[Picked, tuple]:
        """Draw a batch from a pool by score; return what was picked, and `(x, y, sample_weight)` of the batch."""
        uniforms = keras.random.uniform((self.sampler.num_uniforms,), dtype=FLOAT, seed=self.state.generator)
        picked = self.sampler.pick(scores, uniforms, self.state.mean_score)
        return picked, map_leaves(lambda t: backend.gather(t, picked.positions), data)

    def record(self, indices: Any, scores: Any, picked: Picked, norms: Any) -> tuple:
        """Add a step to the trainer's state; return what listeners get, nothing without `with_draws`.

        Args:
            indices, scores: of the candidates, `(pool_size,)`.
            picked: the batch that was trained on.
            norms: float `(batch_size,)`, the gradient norms that the step measured; None if it measured none.
        """
        signals = pool_signals(scores, self.sampler)
        if norms is not None:
            presample, resampling = self.sampler.presample, self.sampler.resampling
            measured_gain = measured_variance_gain(picked.weights, norms, presample, resampling)
            discount = ops.where(ops.isfinite(measured_gain), measured_gain / signals.gain, float("nan"))
            signals = signals._replace(discount=discount)
        self.state.update_averages(signals, 1)
        self.state.record_weights(picked.weights, clean_scores(scores)[1])
        draws = (backend.gather(indices, picked.positions), picked.weights, picked.scores, scores)
        return draws if self.with_draws else ()

    def _score(self, data: tuple) -> tuple:
        """Score the candidates of a replica, and update the metrics; return the logs, the scores and valid entries."""
        scored = self.scorer(data)
        count_as = self.sampler.batch_size // backend.replicas(self.model)
        logs, loss = update_from_pool(self.model, data, scored.y_pred, count_as)
        return logs, (scored.scores, valid_entries(loss.outputs, scored.scores))

    def _train(self, batch: tuple, weights: Any, unbiased: Any, expected_entries: list) -> tuple:
        """Train on the rows of a replica; return no logs and the gradient norms of the samples, or None."""
        step = weighted_step(self.model, self.scorer.logits, batch, weights, unbiased, expected_entries)
        return {}, step.measured


def above_baseline(scores: Any, baseline: Any) -> Any:
    """Return positive scores in the order of the difference d = score - baseline: 1 + d, or 1 / (1 - d) below 0.

    The result is 0 where the difference isn't finite, and where both are 0: for a sample with a sample weight of 0.

    Args:
        scores, baseline: float `(n,)`.
    """
    difference = scores - baseline
    counts = ops.isfinite(difference) & ((scores != 0) | (baseline != 0))
    size = 1.0 + ops.abs(ops.where(counts, difference, 0.0))
    return ops.where(counts, ops.where(difference >= 0, size, 1.0 / size), 0.0)


def pool_signals(scores: Any, sampler: PoolSampler) -> Signals:
    """Compute the gate's signals for drawing from pools, from the scores of uniformly drawn samples.

    Args:
        scores: float `(n,)`, >= 0, of a pool or another uniform sample of the data.
        sampler: the sampler that draws from the pools.

    Returns:
        `Signals` of float scalars. `discount` is NaN.
    """
    return Signals(
        tau=tau(scores),
        gain=variance_gain(scores, sampler.presample, sampler.alpha, sampler.resampling),
        discount=ops.full((), float("nan")),
        score=ops.mean(scores),
    )
