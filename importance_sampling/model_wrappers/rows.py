"""The step on rows that were picked ahead of it, with their weights: train, measure scores, keep honest numbers.

It is for samplers that know their scores beforehand. Which rows, and with what weights, is decided elsewhere.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from importance_sampling.conditions import Signals
from importance_sampling.model_wrappers.figures import count
from importance_sampling.model_wrappers.gradient import weighted_step
from importance_sampling.pre_activations import PreActivations
from importance_sampling.samplers.pool import clean_scores
from importance_sampling.scores import Scorer
from importance_sampling.state import TrainerState


class RowStep:
    """One step of training on rows that a sampler picked.

    Args:
        model: the user's compiled and built model.
        scorer: scores the rows, where the training pass itself doesn't see the score.
        points: where the training step measures gradient norms.
        state: the trainer's variables.
    """

    def __init__(self, model: keras.Model, scorer: Scorer, points: PreActivations, state: TrainerState):
        self.model = model
        self.scorer = scorer
        self.points = points
        self.state = state

    def __call__(self, data: tuple, weights: Any, fair: Any) -> tuple[dict, Any]:
        """Take the step.

        Args:
            data: `(x, y, sample_weight)` of the rows.
            weights: float32 `(batch,)`, > 0.
            fair: float32 `(batch,)`, the unbiased weights, for the figures.

        Returns:
            The logs, and the scores that were measured, float32 `(batch,)`.
        """
        named = self.scorer.score in ("gnorm", "loss")
        measured = None if named else self.scorer(data).scores  # ahead of the step, like those that it sees itself
        stepped = weighted_step(self.model, self.points, data, weights, measure=self.scorer.score if named else "gnorm")
        if named:
            measured = stepped.measured
        uniform = keras.random.uniform((1,), seed=self.state.generator)
        logs = count(self.model, data, stepped, fair, uniform)
        self.state.observe(row_signals(measured, fair), 1)
        self.state.count(weights, ops.all(ops.isfinite(measured)))
        return logs, measured


def row_signals(scores: Any, weights: Any) -> Signals:
    """What the scores that a step measured on rows drawn with these weights say.

    Weights turn sums over the batch into sums over the data: tau = sqrt(mean(w s^2)) / mean(w s). With draws
    independent of each other the effective batch grows by sum(w s^2) / sum(w^2 s^2).

    Args:
        scores: float `(batch,)`.
        weights: float `(batch,)`, unbiased ones.

    Returns:
        `Signals`, NaN where the scores are no use.
    """
    scores = ops.cast(scores, "float32")
    scaled = scores / ops.max(scores)
    square = weights * ops.square(scaled)
    return Signals(
        tau=ops.maximum(ops.sqrt(ops.mean(square)) / ops.mean(weights * scaled), 1.0),
        growth=ops.sum(square) / ops.sum(weights * square),
        discount=ops.full((), float("nan")),
        score=ops.mean(weights * scores),
    )


def fair_signals(scores: Any, alpha: float = 0.1) -> Signals:
    """What the scores of a fair sample say of drawing every row of the data by its score, mixed with uniform.

    growth = mean(s^2) / mean(s^2 / q), q = (1 - alpha) s / mean(s) + alpha.

    Args:
        scores: float `(n,)`.
        alpha: float, the uniform share.

    Returns:
        `Signals`.
    """
    means = ops.mean(ops.cast(scores, "float32"))
    scores, _ = clean_scores(scores)
    mean, square = ops.mean(scores), ops.square(scores)
    return Signals(
        tau=ops.sqrt(ops.mean(square)) / mean,
        growth=ops.mean(square) / ops.mean(square / ((1.0 - alpha) * scores / mean + alpha)),
        discount=ops.full((), float("nan")),
        score=means,
    )
