"""The importance step on a pool of candidates: score the pool, draw a batch by score, and train on it with weights.

Source: [KF18] Katharopoulos & Fleuret, Not All Samples Are Created Equal, 2018 (arXiv 1803.00942), Algorithm 1, as one
compiled function with static shapes.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from importance_sampling import backend
from importance_sampling.conditions import Signals, measured_variance_gain, tau, variance_gain
from importance_sampling.core.gradients import weighted_step
from importance_sampling.core.logits import Logits
from importance_sampling.core.metric_updates import update_from_pool
from importance_sampling.core.scoring import Scorer
from importance_sampling.fit.state import TrainerState
from importance_sampling.samplers.pool import PoolSampler, clean_scores
from importance_sampling.utils.numerics import FLOAT


class PoolStep:
    """An importance step on a pool of candidates.

    Args:
        model: a compiled and built model.
        scorer: scores the pool.
        logits: the logits at which the step measures gradient norms.
        sampler: draws the batch from the pool.
        state: the variables of the trainer: signals, weight statistics and random generator.
        with_draws: bool, return the drawn samples and the scores.
        presamples: tuple of float, pool sizes in batches, as for `pool_signals`. If not empty (default), it contains
            the pool size of the sampler.
    """

    def __init__(
        self,
        model: keras.Model,
        scorer: Scorer,
        logits: Logits,
        sampler: PoolSampler,
        state: TrainerState,
        with_draws: bool,
        presamples: tuple[float, ...] = (),
    ):
        self.model = model
        self.scorer = scorer
        self.logits = logits
        self.sampler = sampler
        self.state = state
        self.with_draws = with_draws
        self.presamples = presamples

    def __call__(self, indices: Any, data: tuple) -> tuple[dict, tuple]:
        """Score a pool, and train on a batch drawn from it.

        Args:
            indices: int `(pool_size,)`, the row indices of the candidates in the training set.
            data: `(x, y, sample_weight)` of the candidates; `y` and `sample_weight` may be None.

        Returns:
            The logs of Keras's own step, and `(indices, weights, scores, pool_scores)`: the first three of the drawn
            samples, `(batch_size,)`, the last of the pool, `(pool_size,)`. The tuple is empty without `with_draws`.
        """
        scored = self.scorer(data)
        scores = scored.scores
        specs = self.scorer.loss_specs
        logs, loss = update_from_pool(self.model, data, scored.y_pred, self.sampler.batch_size, specs)
        uniforms = keras.random.uniform((self.sampler.num_uniforms,), dtype=FLOAT, seed=self.state.generator)
        picked = self.sampler.pick(scores, uniforms, self.state.mean_score)
        batch = keras.tree.map_structure(lambda t: None if t is None else backend.gather(t, picked.positions), data)
        expected_entries = [None if output.entries is None else ops.mean(output.entries) for output in loss.outputs]
        norms = weighted_step(specs, self.logits, batch, picked.weights, expected_entries).measured

        signals = pool_signals(scores, self.sampler, self.presamples)
        if norms is not None:
            presample = self.sampler.presample
            measured_gain = measured_variance_gain(picked.weights, norms, presample, self.sampler.resampling)
            gain = signals.gain[self.presamples.index(presample)] if self.presamples else signals.gain
            discount = ops.where(ops.isfinite(measured_gain), measured_gain / gain, float("nan"))
            signals = signals._replace(discount=discount)
        self.state.update_averages(signals, 1)
        self.state.record_weights(picked.weights, clean_scores(scores)[1])
        draws = (backend.gather(indices, picked.positions), picked.weights, picked.scores, scores)
        return logs, draws if self.with_draws else ()


def pool_signals(scores: Any, sampler: PoolSampler, presamples: tuple[float, ...] = ()) -> Signals:
    """Compute the gate's signals for drawing from pools, from the scores of uniformly drawn samples.

    Args:
        scores: float `(n,)`, >= 0, of a pool or another uniform sample of the data.
        sampler: the sampler that draws from the pools.
        presamples: tuple of float, pool sizes in batches; the variance gain is computed for each. If empty (default),
            it is computed for the pool size of the sampler.

    Returns:
        `Signals`. `gain` is a float scalar, or float `(len(presamples),)`; `discount` is NaN.
    """
    gains = [
        variance_gain(scores, size, sampler.alpha, sampler.resampling) for size in presamples or (sampler.presample,)
    ]
    return Signals(
        tau=tau(scores),
        gain=ops.stack(gains) if presamples else gains[0],
        discount=ops.full((), float("nan")),
        score=ops.mean(scores),
    )
