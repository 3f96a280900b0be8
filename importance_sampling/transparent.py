"""A model whose `train_on_batch` and `test_on_batch` also return tensors of its graph.

Source: the class of the package transparent-keras, whose steps don't run with Keras 3 and are replaced here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import transparent_keras
from keras import ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.core.weighted_loss import stateless


class TransparentModel(transparent_keras.TransparentModel):
    """A functional model that returns the values of observed tensors when it trains or tests on a batch.

    All other methods and attributes (`compile`, `fit`, `predict`, ...) are those of the wrapped Keras model. The
    observed tensors are computed by a forward pass of their own, before Keras's own step.

    Args:
        inputs, outputs: Keras tensors or structures of Keras tensors, as for `keras.Model`.
        observed_tensors: Keras tensor or list of Keras tensors that can be computed from `inputs`. None (default) means
            no tensors.
        **kwargs: further arguments of `keras.Model`.

    Raises:
        ValueError: a tensor can't be computed from the inputs.

    Example:
        >>> inputs = keras.Input((4,))
        >>> hidden = keras.layers.Dense(8, activation="relu")(inputs)
        >>> model = TransparentModel(inputs, keras.layers.Dense(1)(hidden), observed_tensors=[hidden])
        >>> model.compile("sgd", "mse")
        >>> loss, hidden_value = model.train_on_batch(np.ones((2, 4)), np.ones((2, 1)))

    Source: transparent-keras 0.3.1, for Keras 2.
    """

    def __init__(self, inputs: Any, outputs: Any, observed_tensors: Any = None, **kwargs: Any):
        super().__init__(inputs, outputs, observed_tensors, **kwargs)
        try:
            self._observer = keras.Model(inputs, [*keras.tree.flatten(outputs), *self._observed_tensors])
            if _has_other_inputs(self._observer):  # Keras 3.8 doesn't check this before the first step
                raise ValueError("some tensors are not connected to `inputs`")
        except ValueError as error:
            raise ValueError(
                "`observed_tensors` must be tensors that can be computed from `inputs`. "
                f"Received: observed_tensors={observed_tensors!r}"
            ) from error
        self._observing: dict[bool, Callable] = {}  # compiled, for training and for test mode

    def train_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: dict | None = None) -> Any:
        """Train on a batch, as `keras.Model.train_on_batch`.

        Returns:
            A list of NumPy values, or a single value: the loss, the metrics, and the observed tensors in training mode
            before the step, with the random numbers of the step.
        """
        values = self._observe(x, training=True)
        results = self._model.train_on_batch(x, y, sample_weight=sample_weight, class_weight=class_weight)
        return self._with_observed_values(results, values)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Test on a batch, as `keras.Model.test_on_batch`. Returns values as `train_on_batch`."""
        values = self._observe(x, training=False)
        return self._with_observed_values(self._model.test_on_batch(x, y, sample_weight=sample_weight), values)

    def _observe(self, x: Any, training: bool) -> list:
        """Return the values of the observed tensors for a batch; nothing of the model changes."""
        if not self._observed_tensors:
            return []
        if training not in self._observing:
            self._observing[training] = backend.compile_step(
                functools.partial(self._call_observer, training=training), self._model
            )
        x = keras.tree.map_structure(backend.to_tensor, x)
        with backend.repeatable_random():
            return self._observing[training](x)

    def _call_observer(self, x: Any, training: bool) -> list:
        with stateless(self._model):
            tensors = keras.tree.flatten(self._observer(x, training=training))
        return tensors[len(self._model.outputs) :]

    def _with_observed_values(self, results: Any, observed: list) -> Any:
        values = [np.asarray(result)[()] for result in keras.tree.flatten(results)]
        values.extend(ops.convert_to_numpy(value) for value in observed)
        return values[0] if len(values) == 1 else values


def _has_other_inputs(model: keras.Model) -> bool:
    """Return True if the outputs of a functional model depend on tensors that aren't among its inputs."""
    inputs = {id(tensor) for tensor in model.inputs}
    return any(id(tensor) not in inputs for tensor in keras_internals.graph_inputs(model))
