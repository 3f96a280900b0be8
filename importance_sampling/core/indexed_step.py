"""The importance step of samplers that draw row indices: train on the drawn rows and measure their scores.

Source: [KF18] (arXiv 1803.00942), equation 20 for the measured scores and equation 26 for tau. Here the rows are drawn
by scores that were computed before the step.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.conditions import Signals
from importance_sampling.core.gradients import weighted_step
from importance_sampling.core.logits import Logits
from importance_sampling.core.metric_updates import update_from_weighted_batch
from importance_sampling.core.scoring import Scorer
from importance_sampling.core.weighted_loss import Unsupported
from importance_sampling.fit.state import TrainerState
from importance_sampling.samplers.base import DEFAULT_ALPHA
from importance_sampling.utils.numerics import FLOAT
from importance_sampling.utils.probabilities import clean_scores

ENTRIES_DECAY = 0.99  # per step, of the running sums of mask entries
MEASURED_SCORES = ("gnorm", "loss")  # scores that the backward pass of the step gives at no extra cost


class IndexedStep:
    """An importance step on rows that a sampler drew by index.

    Args:
        model: a compiled and built model.
        scorer: computes the scores that the backward pass doesn't give.
        logits: the logits at which the step measures gradient norms.
        state: the variables of the trainer: signals, weight statistics and random generator.
        alpha: float in (0, 1], default 0.1, the uniform share of the sampler.

    Attributes:
        entries: float32 `(2, outputs)` variable. For each mean loss with a mask, the running sum over past steps of the
            mean number of valid entries per sample, and of the number of steps. The sums decay by 0.99 per step.
    """

    def __init__(
        self,
        model: keras.Model,
        scorer: Scorer,
        logits: Logits,
        state: TrainerState,
        alpha: float = DEFAULT_ALPHA,
    ):
        self.model = model
        self.scorer = scorer
        self.logits = logits
        outputs = len(keras_internals.output_losses(model))
        self.entries = keras.Variable(np.zeros((2, outputs), "float32"), trainable=False, name="mask_entries")
        self._state = state
        self._alpha = alpha

    def state(self) -> dict[str, np.ndarray]:
        """Return the arrays to save."""
        return {"entries": backend.to_host(self.entries)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Restore the arrays that `state` returned."""
        self.entries.assign(state["entries"])

    def __call__(self, data: tuple, weights: Any, unbiased: Any) -> tuple[dict, Any]:
        """Train on a batch.

        Args:
            data: `(x, y, sample_weight)` of the drawn rows; `y` and `sample_weight` may be None.
            weights: float32 `(batch,)`, > 0, the importance weights of the gradient.
            unbiased: float32 `(batch,)`, > 0, the unbiased weights, for the loss, the metrics and the signals.

        Returns:
            The logs of Keras's own step, and the measured scores, float32 `(batch,)`.

        Raises:
            Unsupported: the loss doesn't depend on the outputs of the model.
        """
        is_measured = self.scorer.score in MEASURED_SCORES
        measured = None if is_measured else self.scorer(data).scores  # before the step, as all measured scores are
        # Only past steps are used, so that the value doesn't depend on the current draw. It is 0/0 = NaN in the first.
        expected_entries = ops.unstack(self.entries.value[0] / self.entries.value[1], self.entries.shape[1])
        measure = self.scorer.score if is_measured else "loss"
        result = weighted_step(self.scorer.loss_specs, self.logits, data, weights, expected_entries, measure, unbiased)
        if is_measured:
            measured = result.measured
        if measured is None:
            raise Unsupported("the loss doesn't depend on the model's outputs")
        uniform = keras.random.uniform((1,), dtype=FLOAT, seed=self._state.generator)
        logs = update_from_weighted_batch(self.model, data, result, unbiased, uniform)
        self._update_entries(result.loss.outputs, unbiased)
        self._state.update_averages(row_signals(measured, unbiased, self._alpha), 1)
        self._state.record_weights(weights, ops.all(ops.isfinite(measured)))
        return logs, measured

    def _update_entries(self, outputs: tuple, unbiased: Any) -> None:
        """Add the valid entries of a batch to the running sums."""
        means = [0.0 if o.entries is None else ops.mean(unbiased * o.entries) for o in outputs]
        batch = ops.stack([ops.stack(means), ops.ones((len(means),), dtype=FLOAT)])
        self.entries.assign(ENTRIES_DECAY * self.entries.value + batch)


def row_signals(scores: Any, weights: Any, alpha: float = DEFAULT_ALPHA) -> Signals:
    """Compute the gate's signals from scores that a step measured on weighted rows.

    The unbiased weights turn sums over the batch into estimates of sums over the dataset:

        tau = sqrt(mean(w s^2)) / mean(w s)
        gain = sum(w s^2) / sum(w s^2 / q), where q = (1 - alpha) s / mean(w s) + alpha
        measured gain = sum(w s^2) / sum(w^2 s^2)

    The discount is the measured gain, which assumes independent draws, divided by the gain. Equal weights give no
    estimate of the measured gain.

    Args:
        scores: float `(batch,)`, >= 0.
        weights: float `(batch,)`, > 0, the unbiased weights.
        alpha: float in (0, 1], default 0.1, the uniform share.

    Returns:
        `Signals` of float32 scalars. Values are NaN if the scores are all zero or not finite; `discount` is also NaN if
        the weights are equal.
    """
    scores = ops.cast(scores, "float32")
    scaled = scores / ops.max(scores)
    mean, square = ops.mean(weights * scaled), weights * ops.square(scaled)
    gain = ops.sum(square) / ops.sum(square / ((1.0 - alpha) * scaled / mean + alpha))
    measured_gain = ops.sum(square) / ops.sum(weights * square)
    return Signals(
        tau=ops.maximum(ops.sqrt(ops.mean(square)) / mean, 1.0),
        gain=gain,
        discount=ops.where(ops.max(weights) > ops.min(weights), measured_gain / gain, float("nan")),
        score=ops.mean(weights * scores),
    )


def uniform_signals(scores: Any, alpha: float = DEFAULT_ALPHA) -> Signals:
    """Compute the gate's signals for drawing all rows by score, from the scores of uniformly drawn samples.

    The result is that of `row_signals` with weights of 1. Unusable scores count as equal scores.

    Args:
        scores: float `(n,)`, >= 0.
        alpha: float in (0, 1], default 0.1, the uniform share.

    Returns:
        `Signals` of float32 scalars. `discount` is NaN.
    """
    mean = ops.mean(ops.cast(scores, "float32"))
    scores, _ = clean_scores(scores)
    return row_signals(scores, ops.ones_like(scores), alpha)._replace(score=mean)
