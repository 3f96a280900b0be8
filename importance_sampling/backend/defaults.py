"""The parts of the backend protocol that most backends share; the modules of a backend replace some of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras

from importance_sampling.backend import keras_data, keras_internals
from importance_sampling.backend.scopes import NestedScope, replaced_attribute

# Whether Keras's cross-entropies compute with the logits that Keras attached to probabilities.
LOSSES_USE_LOGITS = False


class Gradients(NamedTuple):
    """The gradients of a scalar. An entry is None or zero where the scalar doesn't depend on the variable or tensor."""

    variables: list[Any]  # one per variable
    extra: list[Any]  # one per tensor that the function was called with
    tapped: list[Any]  # one per intermediate tensor that was marked, in the order of the calls


def repeatable_random() -> contextlib.AbstractContextManager:
    """Return a context after which random layers draw the same numbers again.

    It does nothing where they draw from variables, which a scope keeps from changing.
    """
    return contextlib.nullcontext()


def clear_later(box: list) -> threading.Thread | None:
    """Empty a list that holds the last reference to an iterator.

    Args:
        box: the list.

    Returns:
        None: that is done at once.
    """
    box.clear()


def dense(gradient: Any) -> Any:
    """Convert a gradient to a dense tensor; here all gradients are dense."""
    return gradient


def shapes_of(function: Callable, model: keras.Model) -> Any:
    """Return results of which only the shapes and dtypes are used, without computing them where that saves time.

    Args:
        function: called without arguments; may assign variables in a scope around this call.
        model: the model that it calls.
    """
    return function()


class _TrialScope(NestedScope):
    """A scope in which every variable that wasn't assigned has its own value.

    Keras asks the scope, and not the variables, for the weights that regularisers depend on. A tensor in the place of
    a variable wouldn't do: the step differentiates the loss by the variables themselves.
    """

    def get_current_value(self, variable: keras.Variable) -> Any:
        value = super().get_current_value(variable)
        return keras_internals.raw_value(variable) if value is None else value


def try_train_step(model: keras.Model, batch: tuple) -> tuple[list[list], bool]:
    """Run the `train_step` of a model eagerly, with its optimizers replaced. No Keras variable of the model changes.

    Args:
        model: a compiled and built model.
        batch: `(x, y)` or `(x, y, sample_weight)`, as Keras passes it to `train_step`.

    Returns:
        For each call of an optimizer, a list of the gradients that it was given; and True if the step itself has
        assigned a trainable variable.
    """
    calls: list[list] = []

    def record(gradients: Any, *_: Any, **__: Any) -> None:
        calls.append(list(gradients))

    with contextlib.ExitStack() as stack:
        scope = stack.enter_context(_TrialScope())
        for optimizer in keras_internals.optimizers_of(model):
            stack.enter_context(replaced_attribute(optimizer, "apply", record))
        model.train_step(batch)
    return calls, any(scope.updated(variable) is not None for variable in model.trainable_variables)


# Devices: by default a step is one computation, which sees all rows.


def replicas(model: keras.Model) -> int:
    """Return the number of replicas that a model trains on, each of which computes a part of a step."""
    return 1


def replicas_in_step() -> int:
    """Return the number by which Keras divides a loss that is computed here, so that replicas can add gradients."""
    return 1


def on_replicas(model: keras.Model, function: Callable, rows: Any) -> tuple:
    """Run a function on rows, an equal share of them on each replica.

    Args:
        model: the model that the function uses.
        function: `function(rows) -> (logs, results)`.
        rows: structure of tensors with a static number of rows, which the number of replicas divides.

    Returns:
        The logs of the first replica, and the results of all replicas, joined in the order of the rows.
    """
    return function(rows)


def is_distributed(model: keras.Model) -> bool:
    """Return True if Keras distributes the data of `fit` in its own pipeline, which can't read arrays lazily."""
    return False


def copies_of_batch() -> int:
    """Return how often each row of a batch occurs in a step of Keras: once per process that passes the same batch."""
    return 1


def spans_processes(model: keras.Model) -> bool:
    """Return True if a model has replicas in other processes, whose results can't be collected in this one."""
    return False


def distribute_rows(structure: Any) -> Any:
    """Split the rows of tensors over the devices that compute a step together.

    Args:
        structure: structure of tensors, inside a compiled function.
    """
    return structure


def collect_rows(structure: Any) -> Any:
    """Copy tensors that `distribute_rows` has split to all devices and processes.

    Args:
        structure: structure of tensors, inside a compiled function.
    """
    return structure


# Batches


def with_rows(tensor: Any, rows: int) -> Any:
    """Set the static number of rows of a tensor if it is unknown; here it is always known."""
    return tensor


def without_optionals(batch: Any) -> Any:
    """Replace the values by which Keras's pipelines represent None with None; here they represent it as None."""
    return batch


def whole_batch(batch: Any) -> Any:
    """Join the parts of a batch that Keras has split for replicas, without optionals."""
    return batch


class BatchReader:
    """Read batches through Keras's own data adapter, epoch after epoch.

    Args:
        x: a dataset, a `PyDataset` or a data loader, as for `keras.Model.fit`.
        class_weight: as for `keras.Model.fit`.
    """

    def __init__(self, x: Any, class_weight: dict | None):
        self._adapter = keras_data.data_adapter(keras_data.unshared(x), class_weight=class_weight)
        self._adapter.on_epoch_begin()
        self._iterator: Iterator | None = self._batches()

    def __next__(self) -> Any:
        return next(self._iterator)

    def close(self) -> None:
        """Stop reading and release the iterator."""
        self._iterator = None
        self._adapter.on_epoch_end()

    def _batches(self) -> Iterator:
        is_empty = False
        while not is_empty:
            is_empty = True
            for batch in keras_data.adapter_batches(self._adapter):
                is_empty = False
                yield batch
