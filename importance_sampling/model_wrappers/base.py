"""What model wrappers share: scores and figures of batches that a script hands over itself, outside any `fit`.

A wrapper compiles its functions once for every shape and dtype that it is called with. It draws nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from importance_sampling import backend, events, scores
from importance_sampling.backend import keras_internals
from importance_sampling.fit import eligibility, user_fit
from importance_sampling.pre_activations import PreActivations
from importance_sampling.weighted_loss import Unsupported


class ModelWrapper:
    """Scores, evaluates and (in its subclasses) trains a compiled model batch by batch.

    The model stays the user's own: scoring moves nothing of it, training moves what Keras's own step moves, but for the
    states of metrics.

    Args:
        model: a compiled `keras.Model`.
        score: "loss", "gnorm", "full_gnorm", or a callable `score(model, x, y)` -> `(batch,)`.
        layer: a layer, its name or index: take the gradient of "gnorm" there, not at the model's outputs.

    Raises:
        ValueError: the model isn't compiled, or its samples can't be weighed; `score` or `layer` mean nothing.
    """

    def __init__(self, model: keras.Model, score: str | Callable = "loss", layer: Any = None):
        if not user_fit.is_model(model) or not model.compiled:
            raise ValueError(
                f"`model` must be a `keras.Model` on which `compile` was called. Received: model={model!r}"
            )
        reason = eligibility.unsupported_reason(model)
        if reason is not None:
            raise ValueError(f"`model` can't be trained with weights: {reason}. Received: model={model.name!r}")
        scores.check(score)
        self.model = model
        self.points = PreActivations(model, layer)
        self.scorer = scores.Scorer(model, score, self.points)
        self._functions: dict[str, Callable] = {}
        self._compiled_tracker = keras_internals.loss_tracker(model)
        self._checked = False

    def score(self, x: Any, y: Any, batch_size: int = 128) -> np.ndarray:
        """Score samples, in inference mode.

        Args:
            x, y: arrays, or structures of arrays, with the same number of rows.
            batch_size: int, default 128; how many are scored at once. The last batch is filled up with rows of its own.

        Returns:
            float32 `(rows,)`. Where the model masks sequences, scores compare within a batch of `batch_size`.
        """
        leaves, pack = scores.flat((x, y))
        rows = len(leaves[0])
        size = min(batch_size, rows)
        result = np.empty(rows, "float32")
        for start in range(0, rows, size):
            batch = pack(backend.resident(leaf[start : start + size]) for leaf in leaves)
            if rows - start < size:
                filled = np.resize(np.arange(rows - start), size)
                batch = keras.tree.map_structure(lambda t, filled=filled: backend.gather(t, filled), batch)
            result[start : start + size] = self.score_batch(*batch)[: rows - start]
        return result

    def score_batch(self, x: Any, y: Any) -> np.ndarray:
        """Score a batch, in inference mode: float32 `(batch,)`."""
        batch = self._ready(x, y)
        return np.asarray(self._compiled(self._score)(batch))

    def evaluate(self, x: Any, y: Any, batch_size: int = 128) -> np.ndarray:
        """The loss and the metrics over samples, in the order of Keras's `evaluate`, which this is.

        Returns:
            float64 `(1 + metrics,)`. It is sent as `is.evaluation`.
        """
        figures = np.atleast_1d(self.model.evaluate(x, y, batch_size=batch_size, verbose=0))
        events.notify_evaluation(self, figures)
        return figures

    def evaluate_batch(self, x: Any, y: Any) -> np.ndarray:
        """The loss and the metrics of a batch, as `evaluate` returns them. It is sent as `is.evaluate_batch`."""
        self.model.reset_metrics()  # Keras 3.8 goes on counting from batch to batch
        figures = np.atleast_1d(self.model.test_on_batch(x, y))
        events.notify_batch_evaluation(self, figures)
        return figures

    def train_batch(self, x: Any, y: Any, w: Any) -> tuple[np.ndarray, list[float], np.ndarray]:
        """Take a gradient step."""
        raise NotImplementedError

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the model's optimizer; Keras raises where a schedule sets it."""
        self.model.optimizer.learning_rate = lr

    def _score(self, batch: tuple) -> Any:
        return self.scorer(batch).scores

    def _ready(self, x: Any, y: Any, sample_weight: Any = None) -> tuple:
        """A batch as tensors, the model ready for it."""
        batch = keras.tree.map_structure(lambda t: None if t is None else backend.resident(t), (x, y, sample_weight))
        if keras_internals.loss_tracker(self.model) is not self._compiled_tracker:  # `compile` was called again
            self._compiled_tracker, self._checked = keras_internals.loss_tracker(self.model), False
            self._functions.clear()
        if not self._checked:
            eligibility.build(self.model, batch)
            eligibility.check_loss(self.model, self.points, batch)
            self._checked = True
        return batch

    def _compiled(self, function: Callable, reduce_retracing: bool = False) -> Callable:
        """A method of this object, compiled: a trace for every shape, or one for all further ones."""
        name = function.__name__
        if name not in self._functions:
            self._functions[name] = backend.compile_step(function, self.model, reduce_retracing)
        return self._functions[name]


def trained(losses: Any, logs: dict, measured: Any) -> tuple[np.ndarray, list[float], np.ndarray]:
    """What `train_batch` returns, on the host; metrics are NumPy's floats, whose `mean()` old scripts call."""
    metrics = [np.float64(value) for name, value in logs.items() if name != "loss"]
    return np.asarray(losses), metrics, np.asarray(measured)


def measured_scores(score: str | Callable, measured: Any, predicted: Any) -> Any:
    """The score that a training pass saw; those it doesn't see are the ones predicted.

    Raises:
        Unsupported: there is none to see.
    """
    if score == "loss":
        return measured.losses
    if score != "gnorm":
        return predicted
    if measured.norms is None:
        raise Unsupported("the loss doesn't depend on the model's outputs")
    return measured.norms
