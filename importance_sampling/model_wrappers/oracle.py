"""Train a model on batches with importance weights, and return the scores measured in the training step.

Source: [KF17] Katharopoulos & Fleuret, Biased Importance Sampling for Deep Neural Network Training, 2017 (arXiv
1706.00043), Algorithm 1, whose scores are measured by the training step itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from importance_sampling import backend
from importance_sampling.core.gradients import compute_gradients, importance_multiplier, measure
from importance_sampling.core.metric_updates import batch_metrics
from importance_sampling.data.batches import count_rows
from importance_sampling.model_wrappers.base import ModelWrapper, measured_scores, to_host_results


class OracleWrapper(ModelWrapper):
    """Train a compiled model batch by batch with the weights of a reweighting policy.

    The gradient is mean(w_i grad loss_i), where w = weight_layer(weights, scores). The scores "loss" and "gnorm" are
    measured in training mode, with the same dropout masks as in the step, by another forward pass. Other scores are
    computed in inference mode before the step.

    Args:
        model: a compiled `keras.Model`. Scoring doesn't change it.
        reweighting: a policy with `weight_size`, int, and `weight_layer()`, which returns a Keras layer from weights
            `(batch, weight_size)` and scores `(batch,)` to weights `(batch,)`.
        score: "loss" (default), "gnorm", "full_gnorm", or a callable `score(model, x, y)` that returns float
            `(batch,)`, >= 0.
        layer: a layer of the model, its name, or its index in `model.layers`: the layer at whose pre-activations
            "gnorm" takes its gradient. Default None, the layers that compute the outputs.

    Raises:
        ValueError: the model isn't compiled, its samples can't be weighted, `score` is unknown, or `layer` is not in
            the model.

    Example:
        >>> wrapper = OracleWrapper(model, BiasedReweightingPolicy(k=1.0), score="gnorm")
        >>> scores = wrapper.score(x, y, batch_size=256)
        >>> losses, metrics, measured = wrapper.train_batch(x[:32], y[:32], np.ones(32))

    Source: [KF17], Algorithm 1.
    """

    def __init__(self, model: keras.Model, reweighting: Any, score: str | Callable = "loss", layer: Any = None):
        if isinstance(reweighting, type) or not callable(getattr(reweighting, "weight_layer", None)):
            raise ValueError(
                "`reweighting` must be a policy with `weight_layer()`, such as `reweighting.UNBIASED`. "
                f"Received: reweighting={reweighting!r} (of type {type(reweighting)})"
            )
        super().__init__(model, score, layer)
        self.reweighting = reweighting
        self._weight_layer = reweighting.weight_layer()

    def train_batch(self, x: Any, y: Any, w: Any) -> tuple[np.ndarray, list[float], np.ndarray]:
        """Train on a batch with weights.

        Args:
            x, y: arrays or structures of arrays, the batch.
            w: float `(batch, weight_size)`, the result of the policy's `sample_weights`; or `(batch,)` if
                `weight_size` is 1.

        Returns:
            losses: float32 `(batch,)`, the loss of each sample in training mode, unweighted.
            metrics: list of floats, the compiled metrics of this batch, in the order of `evaluate`.
            scores: float32 `(batch,)`, as measured in the step, or computed before it.

        Raises:
            ValueError: `w` has another shape, or samples can't be weighted.
        """
        batch = self._prepare(x, y)
        rows, size = count_rows(batch[0]), self.reweighting.weight_size
        w = np.asarray(w, "float32")
        if w.shape != (rows, size) and not (size == 1 and w.shape == (rows,)):
            raise ValueError(
                f"`w` must hold {size} weights for each of the {rows} samples. Received: w of shape {w.shape}"
            )
        return to_host_results(*self._compiled(self._train)(batch, w.reshape(rows, size)))

    def _train(self, batch: tuple, w: Any) -> tuple:
        """Take a step; return the losses, the logs of Keras's own step and the scores."""
        score = self.scorer.score
        predicted = None if score in ("loss", "gnorm") else self.scorer(batch).scores
        measurements = measure(self.model, self.logits if score == "gnorm" else None, batch)
        scores = measured_scores(score, measurements, predicted)
        multiplier = importance_multiplier(ops.cast(self._weight_layer([w, scores]), "float32"))
        result = compute_gradients(self.model, None, batch, multiplier, self.model.optimizer.scale_loss)
        backend.apply_gradients(self.model, result.gradients)
        return measurements.losses, batch_metrics(self.model, batch, result.y_pred), scores
