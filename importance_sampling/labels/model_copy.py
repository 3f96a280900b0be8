"""A copy of a compiled model, which trains on one part of the data and predicts another one."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.conditions.base import UNIFORM_STEP
from importance_sampling.core import eligibility
from importance_sampling.core.logits import Logits
from importance_sampling.core.scoring import Scorer
from importance_sampling.data.arrays import ArraySource
from importance_sampling.samplers.table import fixed_random_order

PATIENCE = 2  # epochs without a new minimum: the loss of a network with batch normalisation rises now and then
MOST_OUTPUTS = 1000  # numbers per sample that are worth their memory if they weren't asked for


class Unseen(NamedTuple):
    """What a copy says of samples that it wasn't trained on.

    Attributes:
        losses: float32 `(rows,)`.
        outputs: the outputs of the model, a structure of `(rows, ...)` arrays; None if they weren't kept.
        epochs: int, how long the copy was trained.
        trained, scored: int, how many samples it was trained on and how many it scored, repetitions counted.
    """

    losses: np.ndarray
    outputs: Any
    epochs: int
    trained: int
    scored: int

    @property
    def cost(self) -> float:
        """The cost in forward passes of a sample."""
        return UNIFORM_STEP * self.trained + self.scored


class ModelCopy:
    """A copy of a model as compiled, with the weights that the model has now, and an optimizer of its own.

    Args:
        model: a compiled `keras.Model`. If it isn't built yet, the copy has initial weights of its own.
        keeps_outputs: bool, True to keep all outputs; False keeps those of classifiers with up to 1,000 classes.

    Attributes:
        from_logits: bool or None, whether the outputs are logits; None if the loss doesn't tell.

    Raises:
        ValueError: Keras can't copy the model.
    """

    def __init__(self, model: keras.Model, keeps_outputs: bool):
        self.model = _copied(model)
        self.from_logits: bool | None = None
        self._original = model
        self._weights = model.get_weights() if model.built else None
        self._keeps_outputs = keeps_outputs
        self._initial: list[np.ndarray] | None = None
        self._score: Callable | None = None

    def fit_predict(self, training: ArraySource, unseen: ArraySource, batch_size: int, epochs: int) -> Unseen:
        """Train from the initial weights on some samples, and predict others.

        Training ends when the mean loss of the other samples has had no new minimum for two epochs. The predictions
        are those at the minimum.

        Args:
            training: the samples to train on.
            unseen: the samples to predict.
            batch_size: int, of training and prediction.
            epochs: int >= 1, the largest number of epochs.
        """
        self._reset(training, batch_size)
        dataset = backend.epoch_dataset(training, batch_size, True, None)
        best: tuple | None = None
        lowest, trained, best_epoch = np.inf, 0, 0
        while trained < epochs:
            self.model.fit(dataset, epochs=1, verbose=0, shuffle=False)
            trained += 1
            losses, outputs = self._predict(unseen, batch_size)
            finite = losses[np.isfinite(losses)]
            mean = float(finite.mean()) if len(finite) else np.inf
            if best is None or mean < lowest:
                best, lowest, best_epoch = (losses, outputs), mean, trained
            elif trained - best_epoch >= PATIENCE:
                break
        return Unseen(*best, trained, trained * training.num_rows, trained * unseen.num_rows)

    def _reset(self, source: ArraySource, batch_size: int) -> None:
        """Set the weights and the optimizer to their initial values, which are recorded the first time."""
        if self._initial is None:
            self._build(source.example(batch_size))
            self._initial = [ops.convert_to_numpy(variable) for variable in self._variables]
            return
        for variable, value in zip(self._variables, self._initial, strict=True):
            variable.assign(value)

    def _build(self, batch: tuple) -> None:
        """Build the copy, with the weights of the model.

        Raises:
            ValueError: the copy shares variables with the model.
        """
        eligibility.build(self.model, batch)
        own = set(map(id, self._original.variables))
        if any(id(variable) in own for variable in self.model.variables):
            raise _refused(self._original, "the copy shares variables with it")
        if self._weights is not None:
            if [w.shape for w in self._weights] != [w.shape for w in self.model.weights]:
                raise _refused(self._original, "the copy has other weights")
            if len(self._original.trainable_weights) != len(self.model.trainable_weights):
                raise _refused(self._original, "other weights of the copy are trainable")
            self.model.set_weights(self._weights)
        self.from_logits = keras_internals.expects_logits(self.model)
        self._original = None

    @property
    def _variables(self) -> list[keras.Variable]:
        return [*self.model.weights, *self.model.optimizer.variables]

    def _predict(self, source: ArraySource, batch_size: int) -> tuple[np.ndarray, Any]:
        """Return the losses and the outputs for all rows."""
        if self._score is None:
            scorer = Scorer(self.model, "loss", Logits(self.model, warns=False))

            def score(*batch: Any) -> tuple:
                scored = scorer(batch)
                return scored.scores, scored.y_pred

            self._score = backend.compile_step(score, self.model)
        parts = []
        # In random order: a loss of masked sequences depends on how long those of its batch are. All batches have one
        # size, for one trace.
        order = fixed_random_order(source.num_rows)
        for start in range(0, source.num_rows, batch_size):
            rows = np.resize(order[start : start + batch_size], batch_size)
            losses, outputs = keras.tree.map_structure(ops.convert_to_numpy, self._score(*source.read(rows)))
            parts.append((losses, outputs if self._keeps_outputs or _are_classes(outputs) else None))

        positions = np.argsort(order)

        def join(*arrays: Any) -> Any:
            return None if arrays[0] is None else np.concatenate(arrays)[positions].astype("float32")

        return keras.tree.map_structure(join, *parts)


def _are_classes(outputs: Any) -> bool:
    return hasattr(outputs, "ndim") and outputs.ndim <= 2 and outputs[:1].size <= MOST_OUTPUTS


def _copied(model: keras.Model) -> keras.Model:
    """Return an untrained copy of a model, compiled in the same way, without metrics.

    Raises:
        ValueError: Keras can't copy it.
    """
    python_random = random.getstate()  # from which layers take their seeds
    try:
        copy = keras_internals.clone_uncompiled(model)
        copy.compile(
            type(model.optimizer).from_config(model.optimizer.get_config()),
            loss=model.loss,
            loss_weights=keras_internals.loss_weights(model),
            jit_compile=model.jit_compile,
            run_eagerly=model.run_eagerly,
        )
        _copy_layers(model, copy)
    except Exception as error:  # any error of the user's `get_config`, `from_config` and `compile`
        raise _refused(model, f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
    finally:
        random.setstate(python_random)
    return copy


def _copy_layers(model: keras.Model, copy: keras.Model) -> None:
    """Copy what a configuration doesn't have: which layers are trainable, and what preprocessing layers adapted to."""
    pairs = list(zip(*(_layers_of(one) for one in (model, copy)), strict=True))
    for original, layer in pairs:  # a layer comes before those inside it
        layer.trainable = original.trainable
    for original, layer in pairs:
        if not hasattr(original, "adapt"):
            continue
        if original.built and not layer.built:
            layer.build_from_config(original.get_build_config())
        if original.built:
            store: dict[str, Any] = {}
            original.save_own_variables(store)
            layer.load_own_variables(store)
        if hasattr(original, "save_assets"):
            with tempfile.TemporaryDirectory() as folder:
                original.save_assets(folder)
                layer.load_assets(folder)


def _layers_of(model: keras.Model) -> list[keras.Layer]:
    layers = keras_internals.layers_of(model, include_self=False)
    return [layer for layer in layers if not isinstance(layer, keras.layers.InputLayer)]


def _refused(model: keras.Model, reason: str) -> ValueError:
    return ValueError(
        "`model` must be a model that Keras can copy, to train copies of it. Give the model, its layers and the "
        "optimizer a `get_config` with all arguments of their constructors, or measure the losses yourself and pass "
        f"`irreducible_loss`. Received: model={model.name!r}, for which this fails: {reason}"
    )
