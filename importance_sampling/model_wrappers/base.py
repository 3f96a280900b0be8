"""The base class of model wrappers: score and evaluate batches outside of `fit`.

A wrapper compiles each of its functions once per shape and dtype of the batch. The interface is that of
keras-importance-sampling 0.10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from importance_sampling import backend, events
from importance_sampling.backend import keras_internals
from importance_sampling.core import eligibility, scoring
from importance_sampling.core.gradients import Measurements
from importance_sampling.core.logits import Logits
from importance_sampling.data.batches import flatten
from importance_sampling.fit import user_fit
from importance_sampling.utils.errors import Unsupported
from importance_sampling.utils.structures import map_leaves


class ModelWrapper:
    """Score and evaluate a compiled model batch by batch; subclasses train it.

    Scoring doesn't change the model. Training changes the same variables as Keras's own step, except metric states.

    Args:
        model: a compiled `keras.Model`.
        score: "loss" (default), "gnorm", "full_gnorm", or a callable `score(model, x, y)` that returns float
            `(batch,)`, >= 0.
        layer: a layer of the model, its name, or its index in `model.layers`: the layer at whose pre-activations
            "gnorm" takes its gradient. Default None, the layers that compute the outputs.

    Raises:
        ValueError: the model isn't compiled, its samples can't be weighted, `score` is unknown, or `layer` is not in
            the model.
    """

    def __init__(self, model: keras.Model, score: str | Callable = "loss", layer: Any = None):
        if not user_fit.is_model(model) or not model.compiled:
            raise ValueError(
                f"`model` must be a compiled `keras.Model`. Call `model.compile(...)` first. Received: model={model!r}"
            )
        reason = eligibility.unsupported_reason(model)
        if backend.replicas(model) > 1:
            reason = f"it trains on {backend.replicas(model)} replicas. Create it outside the strategy's scope"
        if reason is not None:
            raise ValueError(f"`model` can't be trained with sample weights: {reason}. Received: model={model.name!r}")
        scoring.check(score)
        self._holder = keras.callbacks.Callback()
        self._holder.set_model(model)
        self.logits = Logits(model, layer)
        self.scorer = scoring.Scorer(model, score, self.logits)
        self._functions: dict[str, Callable] = {}
        self._compiled_tracker = keras_internals.loss_tracker(model)
        self._checked = False

    @property
    def model(self) -> keras.Model:
        """The model. In a callback of its `fit`, its variables have their values, as for `Callback.model`."""
        return self._holder.model  # on JAX, `fit` keeps the values apart until a callback asks for the model

    def score(self, x: Any, y: Any, batch_size: int = 128) -> np.ndarray:
        """Compute the scores of samples in inference mode.

        Args:
            x, y: arrays, or structures of arrays, with the same number of rows.
            batch_size: int >= 1, default 128, the number of samples that are scored at once. If the last batch is
                smaller, its rows are repeated to fill it.

        Returns:
            float32 `(rows,)`. In models with masks, scores are normalised by the mean number of valid entries of their
            batch, so that only scores of one batch are comparable.

        Raises:
            ValueError: samples can't be weighted, or a callable score returns another shape than `(batch,)`.
        """
        leaves, pack = flatten((x, y))
        rows = len(leaves[0])
        size = min(batch_size, rows)
        result = np.empty(rows, "float32")
        for start in range(0, rows, size):
            batch = pack(backend.to_tensor(leaf[start : start + size]) for leaf in leaves)
            if rows - start < size:
                repeated = np.resize(np.arange(rows - start), size)
                batch = keras.tree.map_structure(lambda t, repeated=repeated: backend.gather(t, repeated), batch)
            result[start : start + size] = self.score_batch(*batch)[: rows - start]
        return result

    def score_batch(self, x: Any, y: Any) -> np.ndarray:
        """Compute the scores of a batch in inference mode.

        Args:
            x, y: arrays, or structures of arrays, with the same number of rows.

        Returns:
            float32 `(batch,)`.

        Raises:
            ValueError: as for `score`.
        """
        batch = self._prepare(x, y)
        return ops.convert_to_numpy(self._compiled(self._score)(batch))

    def evaluate(self, x: Any, y: Any, batch_size: int = 128) -> np.ndarray:
        """Return the results of `model.evaluate`, and send them as the signal `is.evaluation`.

        Args:
            x, y: the samples, as for `keras.Model.evaluate`.
            batch_size: int >= 1, default 128.

        Returns:
            float64 `(1 + metrics,)`, the loss and the metrics, in the order of `model.evaluate`.
        """
        results = np.atleast_1d(self.model.evaluate(x, y, batch_size=batch_size, verbose=0))
        events.notify_evaluation(self, results)
        return results

    def evaluate_batch(self, x: Any, y: Any) -> np.ndarray:
        """Return the loss and the metrics of a batch, and send them as the signal `is.evaluate_batch`.

        Args:
            x, y: the batch.

        Returns:
            float64 `(1 + metrics,)`, in the order of `model.evaluate`.
        """
        self.model.reset_metrics()  # Keras 3.8 accumulates metrics over batches
        results = np.atleast_1d(self.model.test_on_batch(x, y))
        events.notify_batch_evaluation(self, results)
        return results

    def train_batch(self, x: Any, y: Any, w: Any) -> tuple[np.ndarray, list[float], np.ndarray]:
        """Train on a batch; implemented by subclasses.

        Args:
            x, y: the batch.
            w: float, the weights of the samples, in the shape that the subclass defines.

        Returns:
            losses: float32 `(batch,)`, the loss of each sample in training mode, unweighted.
            metrics: list of floats, the compiled metrics of this batch, in the order of `evaluate`.
            scores: float32 `(batch,)`.

        Raises:
            NotImplementedError: the class is `ModelWrapper` itself.
        """
        raise NotImplementedError

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the optimizer.

        Args:
            lr: float.

        Raises:
            TypeError: the learning rate is a schedule (raised by Keras).
        """
        self.model.optimizer.learning_rate = lr

    def _score(self, batch: tuple) -> Any:
        return self.scorer(batch).scores

    def _prepare(self, x: Any, y: Any, sample_weight: Any = None) -> tuple:
        """Convert a batch to tensors; build and check the model on the first batch after `compile`.

        Raises:
            Unsupported: samples can't be weighted.
        """
        batch = map_leaves(backend.to_tensor, (x, y, sample_weight))
        if keras_internals.loss_tracker(self.model) is not self._compiled_tracker:  # `compile` was called again
            self._compiled_tracker, self._checked = keras_internals.loss_tracker(self.model), False
            self._functions.clear()
        if not self._checked:
            eligibility.build(self.model, batch)
            eligibility.check_loss(self.model, batch)
            self._checked = True
        return batch

    def _compiled(self, function: Callable, reduce_retracing: bool = False) -> Callable:
        """Return a method of this object compiled, from the cache after the first call.

        Args:
            function: a method.
            reduce_retracing: bool, default False. False traces the method for each shape of its arguments; True uses
                one trace with dynamic shapes for further shapes.
        """
        name = function.__name__
        if name not in self._functions:
            self._functions[name] = backend.compile_step(function, self.model, reduce_retracing)
        return self._functions[name]


def to_host_results(losses: Any, logs: dict, scores: Any) -> tuple[np.ndarray, list[float], np.ndarray]:
    """Convert the results of a training step to the return value of `train_batch`.

    Args:
        losses: float `(batch,)` tensor.
        logs: the logs of Keras, name to value.
        scores: float `(batch,)` tensor.

    Returns:
        losses, metrics, scores: as `ModelWrapper.train_batch` returns them. Metrics are NumPy scalars: scripts for
        version 0.10 call their `mean()`.
    """
    metrics = [np.float64(float(value)) for name, value in logs.items() if name != "loss"]
    return ops.convert_to_numpy(losses), metrics, ops.convert_to_numpy(scores)


def measured_scores(score: str | Callable, measurements: Measurements, predicted: Any) -> Any:
    """Return the scores of a training step.

    Args:
        score: "loss" or "gnorm" for the scores that the step measured, another score for the predicted ones.
        measurements: the measurements of the step.
        predicted: float `(batch,)`, scores computed before the step; None if `score` is "loss" or "gnorm".

    Returns:
        float `(batch,)`.

    Raises:
        Unsupported: the loss doesn't depend on the outputs, so that there are no gradient norms.
    """
    if score == "loss":
        return measurements.losses
    if score != "gnorm":
        return predicted
    if measurements.norms is None:
        raise Unsupported("the loss doesn't depend on the model's outputs")
    return measurements.norms
