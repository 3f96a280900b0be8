"""The step on rows that were picked ahead of it, with their weights: train, measure scores, keep honest numbers.

It is for samplers that know their scores beforehand. Which rows, and with what weights, is decided elsewhere.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.conditions import Signals
from importance_sampling.model_wrappers.figures import count
from importance_sampling.model_wrappers.gradient import weighted_step
from importance_sampling.pre_activations import PreActivations
from importance_sampling.probabilities import clean_scores
from importance_sampling.samplers.base import DEFAULT_ALPHA
from importance_sampling.scores import Scorer
from importance_sampling.state import TrainerState
from importance_sampling.utils.numerics import FLOAT
from importance_sampling.weighted_loss import Unsupported

FADE = 0.99
MEASURED = ("gnorm", "loss")  # the scores that a training pass sees for nothing


class RowStep:
    """One step of training on rows that a sampler picked.

    Args:
        model: the user's compiled and built model.
        scorer: scores the rows, where the training pass itself doesn't see the score.
        points: where the training step measures gradient norms.
        state: the trainer's variables.
        alpha: float in (0, 1], default 0.1; the sampler's uniform share.

    Attributes:
        entries: float32 `(2, outputs)` variable; for every output with a mask, sums over the steps before of how many
            entries of a sample counted on average, and of steps. They fade over `1 / (1 - FADE)` steps.
    """

    def __init__(
        self,
        model: keras.Model,
        scorer: Scorer,
        points: PreActivations,
        state: TrainerState,
        alpha: float = DEFAULT_ALPHA,
    ):
        self.model = model
        self.scorer = scorer
        self.points = points
        outputs = len(keras_internals.output_losses(model))
        self.entries = keras.Variable(np.zeros((2, outputs), "float32"), trainable=False, name="mask_entries")
        self._state = state
        self._alpha = alpha

    def state(self) -> dict[str, np.ndarray]:
        """What is to be saved."""
        return {"entries": backend.host(self.entries)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `state` returned."""
        self.entries.assign(state["entries"])

    def __call__(self, data: tuple, weights: Any, fair: Any) -> tuple[dict, Any]:
        """Take the step.

        Args:
            data: `(x, y, sample_weight)` of the rows.
            weights: float32 `(batch,)`, > 0.
            fair: float32 `(batch,)`, the unbiased weights, for the figures.

        Returns:
            The logs, and the scores that were measured, float32 `(batch,)`.
        """
        seen = self.scorer.score in MEASURED
        measured = None if seen else self.scorer(data).scores  # ahead of the step, like those that it sees itself
        # Of the steps before, so that it doesn't depend on what was drawn for this one; 0/0 in the first.
        expected = ops.unstack(self.entries.value[0] / self.entries.value[1], self.entries.shape[1])
        measure = self.scorer.score if seen else "loss"
        stepped = weighted_step(self.model, self.points, data, weights, expected, measure, fair)
        if seen:
            measured = stepped.measured
        if measured is None:
            raise Unsupported("the loss doesn't depend on the model's outputs")
        uniform = keras.random.uniform((1,), dtype=FLOAT, seed=self._state.generator)
        logs = count(self.model, data, stepped, fair, uniform)
        self._count_entries(stepped.loss.outputs, fair)
        self._state.observe(row_signals(measured, fair, self._alpha), 1)
        self._state.count(weights, ops.all(ops.isfinite(measured)))
        return logs, measured

    def _count_entries(self, outputs: tuple, fair: Any) -> None:
        """Take the entries that counted in a batch into the sums."""
        means = [0.0 if o.entries is None else ops.mean(fair * o.entries) for o in outputs[: self.entries.shape[1]]]
        batch = ops.stack([ops.stack(means), ops.ones((len(means),), dtype=FLOAT)])
        self.entries.assign(FADE * self.entries.value + batch)


def row_signals(scores: Any, weights: Any, alpha: float = DEFAULT_ALPHA) -> Signals:
    """What the scores that a step measured on rows drawn with these weights say.

    Weights turn sums over the batch into sums over the data: tau = sqrt(mean(w s^2)) / mean(w s). By these scores the
    effective batch should grow by mean(w s^2) / mean(w s^2 / q), q = (1 - alpha) s / mean(w s) + alpha; it did grow by
    sum(w s^2) / sum(w^2 s^2), with draws independent of each other. Equal weights tell nothing of the latter.

    Args:
        scores: float `(batch,)`.
        weights: float `(batch,)`, unbiased ones.
        alpha: float, the uniform share.

    Returns:
        `Signals`, NaN where the scores are no use.
    """
    scores = ops.cast(scores, "float32")
    scaled = scores / ops.max(scores)
    mean, square = ops.mean(weights * scaled), weights * ops.square(scaled)
    growth = ops.sum(square) / ops.sum(square / ((1.0 - alpha) * scaled / mean + alpha))
    seen = ops.sum(square) / ops.sum(weights * square)
    return Signals(
        tau=ops.maximum(ops.sqrt(ops.mean(square)) / mean, 1.0),
        growth=growth,
        discount=ops.where(ops.max(weights) > ops.min(weights), seen / growth, float("nan")),
        score=ops.mean(weights * scores),
    )


def fair_signals(scores: Any, alpha: float = DEFAULT_ALPHA) -> Signals:
    """What the scores of a fair sample say of drawing every row of the data by its score, mixed with uniform.

    As `row_signals` at weights of 1.

    Args:
        scores: float `(n,)`.
        alpha: float, the uniform share.

    Returns:
        `Signals`.
    """
    mean = ops.mean(ops.cast(scores, "float32"))
    scores, _ = clean_scores(scores)
    return row_signals(scores, ops.ones_like(scores), alpha)._replace(score=mean)
