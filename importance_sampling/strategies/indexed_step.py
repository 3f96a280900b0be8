"""The compiled step on rows that a sampler drew by index: train on them, and measure their scores."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.conditions.signals import row_signals
from importance_sampling.core.gradients import weighted_step
from importance_sampling.core.metric_updates import update_from_weighted_batch
from importance_sampling.core.scoring import Scorer
from importance_sampling.core.weighted_loss import valid_entries
from importance_sampling.fit.state import TrainerState
from importance_sampling.utils.errors import Unsupported
from importance_sampling.utils.numerics import DEFAULT_ALPHA, FLOAT

ENTRIES_DECAY = 0.99  # per step, of the running sums of mask entries
MEASURED_SCORES = ("gnorm", "loss")  # scores that the backward pass of the step gives at no extra cost


class IndexedStep:
    """An importance step on rows that a sampler drew by index.

    Args:
        model: a compiled and built model.
        scorer: computes the scores that the backward pass doesn't give; has the logits at which it measures norms.
        state: the variables of the trainer: signals, weight statistics and random generator.
        alpha: float in (0, 1], default 0.1, the uniform share of the sampler.

    Attributes:
        entries: float32 `(2, outputs)` variable. For each output with a mask, the running sum over past steps of the
            mean number of valid entries per sample, and of the number of steps. The sums decay by 0.99 per step.
    """

    def __init__(
        self,
        model: keras.Model,
        scorer: Scorer,
        state: TrainerState,
        alpha: float = DEFAULT_ALPHA,
    ):
        self.model = model
        self.scorer = scorer
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

    def __call__(self, data: tuple, weights: Any, unbiased: Any, is_biased: bool = True) -> tuple[dict, Any]:
        """Train on a batch.

        Args:
            data: `(x, y, sample_weight)` of the drawn rows; `y` and `sample_weight` may be None.
            weights: float32 `(batch,)`, > 0, the importance weights of the gradient.
            unbiased: float32 `(batch,)`, > 0, the unbiased weights, for the loss, the metrics and the signals.
            is_biased: bool, False if both are the same, so that the loss needs to be computed only once.

        Returns:
            The logs of Keras's own step, and the measured scores, float32 `(batch,)`.

        Raises:
            Unsupported: the loss doesn't depend on the outputs of the model.
        """
        # Only past steps are used, so that the value doesn't depend on the current draw. It is 0/0 = NaN in the first.
        expected_entries = ops.unstack(self.entries.value[0] / self.entries.value[1], self.entries.shape[1])
        uniform = keras.random.uniform((1,), dtype=FLOAT, seed=self._state.generator)
        logs, (measured, entries) = backend.on_replicas(
            self.model,
            lambda rows: self._train(*rows, is_biased, expected_entries, uniform),
            (data, weights, unbiased),
        )
        self._update_entries(entries, unbiased)
        self._state.update_averages(row_signals(measured, unbiased, self._alpha), 1)
        self._state.record_weights(weights, ops.all(ops.logical_and(ops.isfinite(measured), measured >= 0)))
        return logs, measured

    def _train(
        self, data: tuple, weights: Any, unbiased: Any, is_biased: bool, expected_entries: list, uniform: Any
    ) -> tuple:
        """Train on the rows of a replica; return the logs, and the measured scores and valid entries of each row."""
        is_measured = self.scorer.score in MEASURED_SCORES
        measured = None if is_measured else self.scorer(data).scores  # before the step, as all measured scores are
        score = self.scorer.score if is_measured else "loss"
        result = weighted_step(
            self.model, self.scorer.logits, data, weights, unbiased, expected_entries, score, is_biased
        )
        if is_measured:
            measured = result.measured
        if measured is None:
            raise Unsupported("the loss doesn't depend on the model's outputs")
        logs = update_from_weighted_batch(self.model, data, result, unbiased, uniform)
        return logs, (measured, valid_entries(result.loss.outputs[: self.entries.shape[1]], weights))

    def _update_entries(self, entries: list, unbiased: Any) -> None:
        """Add the valid entries of a batch, one tensor per output, to the running sums."""
        means = ops.stack([ops.mean(unbiased * output) for output in entries])
        batch = ops.stack([means, ops.ones((len(entries),), dtype=FLOAT)])
        self.entries.assign(ENTRIES_DECAY * self.entries.value + batch)
