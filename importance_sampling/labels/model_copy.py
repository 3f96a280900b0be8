"""A copy of a compiled model, which trains on one part of the data and predicts another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.core.logits import Logits
from importance_sampling.core.scoring import Scorer
from importance_sampling.data.arrays import ArraySource
from importance_sampling.fit import eligibility


class Unseen(NamedTuple):
    """What a copy says of samples that it wasn't trained on.

    Attributes:
        losses: float32 `(rows,)`.
        outputs: the outputs of the model, a structure of `(rows, ...)` arrays.
        epochs: int, how long the copy was trained.
        trained, scored: int, how many samples it was trained on and how many it scored, repetitions counted.
    """

    losses: np.ndarray
    outputs: Any
    epochs: int
    trained: int
    scored: int


class ModelCopy:
    """A copy of a model as compiled, with the weights that the model has now, and an optimizer of its own.

    Args:
        model: a compiled `keras.Model`. If it isn't built yet, the copy has initial weights of its own.

    Raises:
        ValueError: Keras can't copy the model.
    """

    def __init__(self, model: keras.Model):
        self.model = _copy(model)
        self._weights = model.get_weights() if model.built else None
        self._initial: list[np.ndarray] | None = None
        self._score: Callable | None = None

    def predict(self, training: ArraySource, unseen: ArraySource, batch_size: int, epochs: int) -> Unseen:
        """Train from the initial weights on some samples, and predict others.

        Training ends with the first epoch after which the mean loss of the other samples has risen, and the
        predictions are those of the epoch before.

        Args:
            training: the samples to train on.
            unseen: the samples to predict.
            batch_size: int, of training and prediction.
            epochs: int >= 1, the largest number of epochs.
        """
        self._reset(training, batch_size)
        dataset = backend.epoch_dataset(training, batch_size, True, None)
        best: tuple | None = None
        trained = 0
        while trained < epochs:
            self.model.fit(dataset, epochs=1, verbose=0, shuffle=False)
            trained += 1
            losses, outputs = self._predict(unseen, batch_size)
            if best is not None and not losses.mean() < best[0].mean():
                break
            best = losses, outputs
        return Unseen(*best, trained, trained * training.num_rows, trained * unseen.num_rows)

    def _reset(self, source: ArraySource, batch_size: int) -> None:
        """Set the weights and the optimizer to their initial values, which are recorded the first time."""
        if self._initial is None:
            eligibility.build(self.model, source.example(batch_size))
            if self._weights is not None:
                self.model.set_weights(self._weights)
            self._initial = [ops.convert_to_numpy(variable) for variable in self._variables]
            return
        for variable, value in zip(self._variables, self._initial, strict=True):
            variable.assign(value)

    @property
    def _variables(self) -> list[keras.Variable]:
        return [*self.model.weights, *self.model.optimizer.variables]

    def _predict(self, source: ArraySource, batch_size: int) -> tuple[np.ndarray, Any]:
        """Return the losses and the outputs for all rows."""
        if self._score is None:
            scorer = Scorer(self.model, "loss", Logits(self.model))

            def score(*batch: Any) -> tuple:
                scored = scorer(batch)
                return scored.scores, scored.y_pred

            self._score = backend.compile_step(score, self.model)
        parts = []
        for start in range(0, source.num_rows, batch_size):
            # All batches have one size, for one trace.
            rows = np.resize(np.arange(start, min(start + batch_size, source.num_rows)), batch_size)
            parts.append(keras.tree.map_structure(ops.convert_to_numpy, self._score(*source.read(rows))))

        def join(*arrays: np.ndarray) -> np.ndarray:
            return np.concatenate(arrays)[: source.num_rows].astype("float32")

        return keras.tree.map_structure(join, *parts)


def _copy(model: keras.Model) -> keras.Model:
    """Return an untrained copy of a model, compiled in the same way, without metrics.

    Raises:
        ValueError: Keras can't copy it.
    """
    try:
        copy = keras_internals.clone_uncompiled(model)
        optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
    except Exception as error:  # any error of the user's `get_config` and `from_config`
        raise ValueError(
            "`model` must be a model that Keras can copy, to train copies of it. Give the model, its layers and the "
            "optimizer a `get_config`, or measure the losses yourself and pass `irreducible_loss`. "
            f"Received: model={model.name!r}, which fails with {type(error).__name__}: {error}"
        ) from error
    copy.compile(
        optimizer,
        loss=model.loss,
        loss_weights=keras_internals.loss_weights(model),
        jit_compile=model.jit_compile,
        run_eagerly=model.run_eagerly,
    )
    return copy
