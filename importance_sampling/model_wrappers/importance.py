"""The fused steps on the user's own model: score candidates, pick, train on the picked with their weights.

Source: [KF18] (arXiv 1803.00942), Algorithm 1, as one compiled function with static shapes. What Keras does in a step
(`keras.src.backend.tensorflow.trainer.TensorFlowTrainer.train_step`) is done in its order. When to take these steps,
and on which candidates, is decided elsewhere.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from importance_sampling import backend
from importance_sampling.conditions import Signals, growth, measured_growth, tau
from importance_sampling.model_wrappers.figures import evaluate
from importance_sampling.model_wrappers.gradient import weighted_step
from importance_sampling.pre_activations import PreActivations
from importance_sampling.samplers.pool import PoolSampler, clean_scores
from importance_sampling.scores import Scorer
from importance_sampling.state import TrainerState
from importance_sampling.utils.numerics import FLOAT


class ImportanceStep:
    """One step of training by importance sampling.

    Args:
        model: the user's compiled and built model.
        scorer: scores the pool.
        points: where the training step measures gradient norms.
        sampler: picks the batch.
        state: the trainer's variables.
        listening: whether to return what was drawn.
        presamples: tuple of float, as for `pool_signals`; the sampler's own among them.
    """

    def __init__(
        self,
        model: keras.Model,
        scorer: Scorer,
        points: PreActivations,
        sampler: PoolSampler,
        state: TrainerState,
        listening: bool,
        presamples: tuple[float, ...] = (),
    ):
        self.model = model
        self.scorer = scorer
        self.points = points
        self.sampler = sampler
        self.state = state
        self.listening = listening
        self.presamples = presamples

    def __call__(self, indices: Any, data: tuple) -> tuple[dict, tuple]:
        """Take the step.

        Args:
            indices: int `(pool_size,)`, where the candidates stand in the training set.
            data: `(x, y, sample_weight)` of the candidates.

        Returns:
            The logs, and `(indices, weights, scores)` of the picked with the scores of the pool, or () when nobody
            listens.
        """
        scored = self.scorer(data)
        scores = scored.scores
        logs, loss = evaluate(self.model, data, scored.y_pred, self.sampler.batch_size)
        uniforms = keras.random.uniform((self.sampler.num_uniforms,), dtype=FLOAT, seed=self.state.generator)
        picked = self.sampler.pick(scores, uniforms, self.state.mean_score)
        batch = keras.tree.map_structure(lambda t: None if t is None else backend.gather(t, picked.positions), data)
        expected = [
            ops.mean(output.entries) if output.entries is not None and output.is_mean else None
            for output in loss.outputs
        ]
        norms = weighted_step(self.model, self.points, batch, picked.weights, expected).measured

        signals = pool_signals(scores, self.sampler, self.presamples)
        if norms is not None:
            presample = self.sampler.presample
            seen = measured_growth(picked.weights, norms, presample, self.sampler.resampling)
            expected = signals.growth[self.presamples.index(presample)] if self.presamples else signals.growth
            signals = signals._replace(discount=ops.where(ops.isfinite(seen), seen / expected, float("nan")))
        self.state.observe(signals, 1)
        self.state.count(picked.weights, clean_scores(scores)[1])
        drawn = (backend.gather(indices, picked.positions), picked.weights, picked.scores, scores)
        return logs, drawn if self.listening else ()


def pool_signals(scores: Any, sampler: PoolSampler, presamples: tuple[float, ...] = ()) -> Signals:
    """What the scores of a pool, or of any fair sample, say of drawing from pools.

    Args:
        scores: float `(n,)`.
        sampler: whose pools they are.
        presamples: tuple of float, sizes of pools in batches, for each of which the growth is wanted; empty (default):
            for the sampler's own.
    """
    growths = [growth(scores, size, sampler.alpha, sampler.resampling) for size in presamples or (sampler.presample,)]
    return Signals(
        tau=tau(scores),
        growth=ops.stack(growths) if presamples else growths[0],
        discount=ops.full((), float("nan")),
        score=ops.mean(scores),
    )
