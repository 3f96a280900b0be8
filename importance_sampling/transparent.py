"""A model whose `train_on_batch` and `test_on_batch` also return tensors of its graph.

Source: the class of the package transparent-keras, whose steps don't run with Keras 3 and are replaced here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import transparent_keras
from keras import ops

from importance_sampling.backend import keras_internals
from importance_sampling.core.logits import replaced_attribute


class TransparentModel(transparent_keras.TransparentModel):
    """A functional model that returns the values of observed tensors when it trains or tests on a batch.

    All other methods and attributes (`compile`, `fit`, `predict`, ...) are those of the wrapped Keras model. A step
    runs Keras's own step, and the additional operations that the observed tensors need.

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
        # Keras treats a list of one output as that output.
        self._structure = keras.tree.map_structure(lambda _: 0, outputs)
        self._is_single = isinstance(outputs, (list, tuple)) and len(outputs) == 1
        self._observed_values: list = []

    def train_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: dict | None = None) -> Any:
        """Train on a batch, as `keras.Model.train_on_batch`.

        Returns:
            A list of NumPy values, or a single value: the loss, the metrics, and the observed tensors in the forward
            pass of this training step.
        """
        self._make_train_function()
        with replaced_attribute(self._model, "train_function", self._train_function):
            results = self._model.train_on_batch(x, y, sample_weight=sample_weight, class_weight=class_weight)
        return self._with_observed_values(results)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Test on a batch, as `keras.Model.test_on_batch`. Returns values as `train_on_batch`."""
        self._make_test_function()
        with replaced_attribute(self._model, "test_function", self._test_function):
            results = self._model.test_on_batch(x, y, sample_weight=sample_weight)
        return self._with_observed_values(results)

    def _make_train_function(self) -> None:
        if self._train_function is None:
            self._train_function = self._observing_function(self._model.train_step)

    def _make_test_function(self) -> None:
        if self._test_function is None:
            self._test_function = self._observing_function(self._model.test_step)

    def _observing_function(self, keras_step: Callable) -> Callable:
        """Return a train or test function that runs Keras's step and stores the values of the observed tensors."""

        def step(data: Any) -> tuple:
            values: list = []
            with replaced_attribute(self._model, "call", self._observing_call(values)):
                logs = keras_step(data)
            return logs, values

        function = keras_internals.batch_function(self._model, step)

        def run(batches: Any) -> dict:
            logs, self._observed_values = function(batches)
            return logs

        return run

    def _observing_call(self, values: list) -> Callable:
        """Return a `call` function of the model that also writes the observed tensors to the list `values`."""

        def call(*args: Any, **kwargs: Any) -> Any:
            tensors = keras.tree.flatten(self._observer.call(*args, **kwargs))
            count = len(self._model.outputs)
            values[:] = tensors[count:]
            return tensors[0] if self._is_single else keras.tree.pack_sequence_as(self._structure, tensors[:count])

        return call

    def _with_observed_values(self, results: Any) -> Any:
        values = [np.asarray(result)[()] for result in keras.tree.flatten(results)]
        values.extend(ops.convert_to_numpy(value) for value in self._observed_values)
        self._observed_values = []
        return values[0] if len(values) == 1 else values


def _has_other_inputs(model: keras.Model) -> bool:
    """Return True if the outputs of a functional model depend on tensors that aren't among its inputs."""
    inputs = {id(tensor) for tensor in model.inputs}
    return any(id(tensor) not in inputs for tensor in keras_internals.graph_inputs(model))
