"""A wrapper that trains on batches with importance weights, and tells what it saw of every sample.

Source: [KF17] (arXiv 1706.00043), Algorithm 1, whose scores are those that the step itself measures. Which samples make
up a batch is the caller's choice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from importance_sampling.model_wrappers.base import ModelWrapper, measured_scores, trained
from importance_sampling.model_wrappers.figures import of_batch
from importance_sampling.model_wrappers.gradient import Measured, backward, follow, weighted
from importance_sampling.scores import flat
from importance_sampling.weighted_loss import Multiplier


class OracleWrapper(ModelWrapper):
    """Trains a compiled model batch by batch with the weights of a reweighting policy.

    The step follows mean(w_i grad loss_i), w = weight_layer(weights, scores), with the scores of the training-mode
    forward pass that the step makes anyway. Scores of another kind ("full_gnorm", a callable) are taken ahead of the
    step, in inference mode, at their own price.

    Args:
        model: a compiled `keras.Model`; it stays the user's own.
        reweighting: a policy with `weight_size` and `weight_layer()`, a Keras layer from weights
            `(batch, weight_size)` and scores `(batch,)` to weights `(batch,)`.
        score: "loss" (default), "gnorm", "full_gnorm", or a callable `score(model, x, y)` -> `(batch,)`.
        layer: a layer, its name or index: take the gradient of "gnorm" there, not at the model's outputs.

    Raises:
        ValueError: the model isn't compiled, or its samples can't be weighed; `score` or `layer` mean nothing.

    Example:
        >>> wrapper = OracleWrapper(model, BiasedReweightingPolicy(k=1.0), score="gnorm")
        >>> scores = wrapper.score(x, y, batch_size=256)
        >>> losses, metrics, measured = wrapper.train_batch(x[:32], y[:32], np.ones(32))

    Source: [KF17], Algorithm 1.
    """

    def __init__(self, model: keras.Model, reweighting: Any, score: str | Callable = "loss", layer: Any = None):
        super().__init__(model, score, layer)
        self.reweighting = reweighting
        self._weight_layer = reweighting.weight_layer()

    def train_batch(self, x: Any, y: Any, w: Any) -> tuple[np.ndarray, list[float], np.ndarray]:
        """Take a weighted gradient step.

        Args:
            x, y: the batch.
            w: float `(batch, weight_size)`, what the policy's `sample_weights` returned; `(batch,)` where size is 1.

        Returns:
            losses: float32 `(batch,)`, of every sample, in training mode, unweighted.
            metrics: list of floats, the compiled metrics of this batch alone, in the order of `evaluate`.
            scores: float32 `(batch,)`, as the step measured them.

        Raises:
            ValueError: `w` has another shape.
        """
        batch = self._ready(x, y)
        rows, size = flat(batch[0])[0][0].shape[0], self.reweighting.weight_size
        w = np.asarray(w, "float32")
        if w.shape != (rows, size) and not (size == 1 and w.shape == (rows,)):
            raise ValueError(
                f"`w` must hold {size} weights for each of the {rows} samples. Received: w of shape {w.shape}"
            )
        return trained(*self._compiled(self._train)(batch, w.reshape(rows, size)))

    def _train(self, batch: tuple, w: Any) -> tuple:
        score, seen = self.scorer.score, []
        predicted = None if score in ("loss", "gnorm") else self.scorer(batch).scores

        def weigh(measure: Callable[[], Measured]) -> Multiplier:
            measured = measure()
            scores = measured_scores(score, measured, predicted)
            seen.extend([measured.losses, scores])
            return weighted(ops.cast(self._weight_layer([w, scores]), "float32"))

        points = self.points if score == "gnorm" else None
        taken = backward(self.model, points, batch, weigh, self.model.optimizer.scale_loss)
        follow(self.model, taken.gradients)
        return seen[0], of_batch(self.model, batch, taken.y_pred), seen[1]
