"""A model whose steps on batches also hand out tensors of its graph.

Source: the package transparent-keras, whose class this is; its steps call internals that Keras 3 no longer has, and are
replaced here. The step itself is Keras's own. Nothing is sampled or weighed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import transparent_keras
from keras import ops

from importance_sampling.pre_activations import swapped


class TransparentModel(transparent_keras.TransparentModel):
    """A functional model that observes tensors while it trains and tests on batches.

    Everything else (`compile`, `fit`, `predict`, attributes) goes to the Keras model that it holds. A step costs what
    Keras's own costs, and what lies on the way to observed tensors alone.

    Args:
        inputs, outputs: Keras tensors, or structures of them, as for `keras.Model`.
        observed_tensors: a Keras tensor or a list of them, any that can be computed from the inputs; None: none.
        **kwargs: for `keras.Model`.

    Raises:
        ValueError: a tensor can't be computed from the inputs.

    Example:
        >>> inputs = keras.Input((4,))
        >>> hidden = keras.layers.Dense(8, activation="relu")(inputs)
        >>> model = TransparentModel(inputs, keras.layers.Dense(1)(hidden), observed_tensors=[hidden])
        >>> model.compile("sgd", "mse")
        >>> loss, seen = model.train_on_batch(np.ones((2, 4)), np.ones((2, 1)))

    Source: transparent-keras 0.3.1, for Keras 2.
    """

    def __init__(self, inputs: Any, outputs: Any, observed_tensors: Any = None, **kwargs: Any):
        super().__init__(inputs, outputs, observed_tensors, **kwargs)
        try:
            self._observer = keras.Model(inputs, [*keras.tree.flatten(outputs), *self._observed_tensors])
            if _has_other_inputs(self._observer):  # Keras 3.8 would only stumble over it in a step
                raise ValueError("there are tensors that are not connected to `inputs`")
        except ValueError as error:
            raise ValueError(
                "`observed_tensors` must be tensors that can be computed from `inputs`. "
                f"Received: observed_tensors={observed_tensors!r}"
            ) from error
        # A list of one output is that output to Keras.
        self._structure = keras.tree.map_structure(lambda _: 0, outputs)
        self._is_single = isinstance(outputs, (list, tuple)) and len(outputs) == 1
        self._seen: list = []

    def train_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: dict | None = None) -> Any:
        """Take a step of training, as `keras.Model.train_on_batch`.

        Returns:
            A list of NumPy values, or the value alone where there is one: the loss, the metrics, and the observed
            tensors as they were in the forward pass of this very step.
        """
        self._make_train_function()
        with swapped(self._model, "train_function", self._train_function):
            figures = self._model.train_on_batch(x, y, sample_weight=sample_weight, class_weight=class_weight)
        return self._with_seen(figures)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Take a step of evaluation, as `keras.Model.test_on_batch`; returns what `train_on_batch` does."""
        self._make_test_function()
        with swapped(self._model, "test_function", self._test_function):
            figures = self._model.test_on_batch(x, y, sample_weight=sample_weight)
        return self._with_seen(figures)

    def _make_train_function(self) -> None:
        if self._train_function is None:
            self._train_function = self._observed(self._model.train_step)

    def _make_test_function(self) -> None:
        if self._test_function is None:
            self._test_function = self._observed(self._model.test_step)

    def _observed(self, keras_step: Callable) -> Callable:
        """Keras's function of batches around one of its steps, which keeps what is seen on the way."""

        def step(data: Any) -> tuple:
            seen: list = []
            with swapped(self._model, "call", self._watching(seen)):
                logs = keras_step(data)
            return logs, seen

        function = self._model._make_function(step)

        def run(batches: Any) -> dict:
            logs, self._seen = function(batches)
            return logs

        return run

    def _watching(self, seen: list) -> Callable:
        """The model's `call`, by a graph that has the observed tensors among its outputs."""

        def call(*args: Any, **kwargs: Any) -> Any:
            tensors = keras.tree.flatten(self._observer.call(*args, **kwargs))
            count = len(self._model.outputs)
            seen[:] = tensors[count:]
            return tensors[0] if self._is_single else keras.tree.pack_sequence_as(self._structure, tensors[:count])

        return call

    def _with_seen(self, figures: Any) -> Any:
        values = [np.asarray(one)[()] for one in keras.tree.flatten(figures)]
        values.extend(ops.convert_to_numpy(one) for one in self._seen)
        self._seen = []
        return values[0] if len(values) == 1 else values


def _has_other_inputs(model: keras.Model) -> bool:
    """Whether a functional model's outputs depend on inputs that it wasn't given."""
    given = {id(tensor) for tensor in model._inputs}
    nodes = (node for depth in model._nodes_by_depth.values() for node in depth)
    return any(node.is_input and id(node.outputs[0]) not in given for node in nodes)
