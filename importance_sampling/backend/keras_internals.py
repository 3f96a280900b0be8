"""The private names of Keras: models, losses, masks and callbacks. Those of its data are in `keras_data`.

Each function stands for one thing that Keras has no public name for, on every Keras from 3.8 on; it handles the
differences between the versions. `tests/test_keras_internals.py` tests each function by its contract, so that a release
of Keras that changes one of them fails one test.
Source: `keras.src`, of Keras 3.8, 3.15 and the nightly build of 3.16.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from importance_sampling import __version__
from importance_sampling.backend.scopes import replaced_attribute


def private_module(name: str, *attributes: str) -> Any:
    """Import a private module of Keras.

    Args:
        name: the full name of the module.
        *attributes: the names of attributes that it must have.

    Raises:
        ImportError: the module, or an attribute, is missing in the installed Keras.
    """
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise _missing(name) from error
    require(module, *attributes)
    return module


def require(owner: Any, *attributes: str) -> None:
    """Check that a module or class of Keras has attributes.

    Raises:
        ImportError: one is missing in the installed Keras.
    """
    for attribute in attributes:
        if not hasattr(owner, attribute):
            raise _missing(f"{owner.__name__}.{attribute}")


def _missing(name: str) -> ImportError:
    return ImportError(
        f"importance_sampling {__version__} needs `{name}`, which Keras {keras.__version__} doesn't have. Upgrade "
        "keras-importance-sampling; if its newest release fails too, report it, and install an earlier Keras until it "
        f"is fixed. Received: keras.__version__={keras.__version__!r}"
    )


_functional = private_module("keras.src.models.functional", "Functional")
_masking = private_module("keras.src.backend.common.masking", "get_keras_mask", "set_keras_mask")
_tensors = private_module("keras.src.backend.common.tensor_attributes", "get_tensor_attr", "set_tensor_attr")
require(keras.Layer, "_flatten_layers")
require(keras.layers.BatchNormalization, "_moments")
require(keras.Model, "_compute_loss", "_symbolic_build")
require(keras.callbacks.ModelCheckpoint, "_get_file_path")
require(keras.callbacks.BackupAndRestore, "_should_save_on_batch")


# Models

# The methods that make Keras's training function, and those that it calls for a step; some backends lack some of them.
COMPILING_METHODS = ("make_train_function", "_make_function")
STEP_METHODS = ("train_step", "compute_loss_and_updates")

# The class that makes a layer trainable; it declares `fit` without implementing it. `keras.Model` inherits from it by
# way of the backend's trainer. Its name is `Trainer` up to Keras 3.15 and `BaseTrainer` from 3.16 on.
TRAINER_CLASS: type = [cls for cls in keras.Model.__mro__ if "fit" in vars(cls)][-1]


def overrides_methods(model: keras.Model, names: Sequence[str]) -> bool:
    """Return True if the class of a model, or the model itself, overrides one of Keras's methods.

    Args:
        model: a `keras.Model`.
        names: the names of the methods.
    """
    names = [name for name in names if hasattr(keras.Model, name)]  # which depends on the backend
    return any(name in vars(model) or getattr(type(model), name) is not getattr(keras.Model, name) for name in names)


def layers_of(model: keras.Layer, include_self: bool = True) -> list[keras.Layer]:
    """Return all layers of a model, those inside other layers included; the model itself comes first."""
    return model._flatten_layers(include_self=include_self)


def clone_uncompiled(model: keras.Model) -> keras.Model:
    """Return a copy of a model with layers of its own, as `keras.models.clone_model` makes it, but not compiled.

    `clone_model` also compiles the copy, which fails for losses and metrics that can't be serialised.
    """
    if type(model) is keras.Sequential:
        return keras.models.clone_model(model._functional or keras.Sequential(model.layers))
    if type(model) is _functional.Functional:
        return keras.models.clone_model(keras.Model(model._inputs_struct, model._outputs_struct))
    config = model.get_config()
    try:
        return type(model).from_config(config)
    except Exception:  # of any type; Keras's default configuration has arguments that a constructor needn't have
        accepted = inspect.signature(type(model).__init__).parameters
        return type(model)(**{name: value for name, value in config.items() if name in accepted})


def has_training_argument(layer: keras.Layer) -> bool:
    """Return True if `layer.call` accepts `training`."""
    return layer._call_has_training_arg


def is_rematerialized(layer: keras.Layer) -> bool:
    """Return True if the layer was made in a `keras.RematScope`: its `call` is repeated in the backward pass."""
    return getattr(layer, "_remat_mode", None) is not None


def build_on_batch(model: keras.Model, batch: tuple) -> None:
    """Build the model, its loss, metrics and optimizer for a batch, as Keras does before the first step.

    Args:
        model: a compiled model.
        batch: `(x, y)` or `(x, y, sample_weight)`, arrays or tensors.
    """
    model._symbolic_build(data_batch=batch)


def optimizer_steps(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """Return the variable that counts the steps of an optimizer.

    With gradient accumulation, `optimizer.iterations` counts only the steps that update the weights.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # under a LossScaleOptimizer
    return optimizer._iterations


def optimizer_parts(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """Return the optimizers with learning rates that an optimizer consists of; in most cases the optimizer itself."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # under a LossScaleOptimizer
    return getattr(optimizer, "optimizers", [optimizer])


def optimizers_of(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Return the optimizers in public attributes of a model and its layers, also in lists and dicts there."""
    found: dict[int, keras.optimizers.Optimizer] = {}

    def search(value: Any) -> None:
        if isinstance(value, keras.optimizers.Optimizer):
            found[id(value)] = value
        elif isinstance(value, (dict, list, tuple)):
            for part in value.values() if isinstance(value, dict) else value:
                search(part)

    for layer in layers_of(model):
        for name, value in vars(layer).items():
            if not name.startswith("_"):
                search(value)
    return list(found.values())


def has_step_schedule(optimizer: keras.optimizers.Optimizer) -> bool:
    """Return True if the learning rate of an optimizer is a `LearningRateSchedule`, a function of its steps."""
    rates = [part._learning_rate for part in optimizer_parts(optimizer)]
    return any(isinstance(rate, keras.optimizers.schedules.LearningRateSchedule) for rate in rates)


def producer(tensor: keras.KerasTensor) -> tuple[Any, int, int]:
    """Return `(operation, call, position)`: the tensor is output `position` of call number `call` of the operation."""
    operation, call, position = tensor._keras_history
    return operation, call, position


def first_input(operation: Any, call: int) -> keras.KerasTensor:
    """Return the first tensor that an operation was given in its call number `call`."""
    return operation._inbound_nodes[call].input_tensors[0]


def graph_inputs(model: keras.Model) -> list[keras.KerasTensor]:
    """Return the tensors that the graph of a functional model starts from, whether the model lists them or not."""
    nodes = (node for depth in model._nodes_by_depth.values() for node in depth)
    return [node.outputs[0] for node in nodes if node.is_input]


def raw_value(variable: keras.Variable) -> Any:
    """Return the array of a variable, in any scope; None while Keras's `fit` on JAX holds it."""
    return variable._value


def set_raw_value(variable: keras.Variable, value: Any) -> None:
    """Set the array of a variable without a check, a conversion or a copy; None takes it out."""
    variable._value = value


def discard_jax_state(model: keras.Model) -> None:
    """Discard the values that a running `fit` on JAX writes to the variables when a callback asks for its model."""
    model._jax_state = None


# Losses and metrics


def compiled_loss(model: keras.Model) -> Any:
    """Return the loss object that `compile` made of the losses it was last given; None if it never was."""
    return model._compile_loss


def loss_weights(model: keras.Model) -> Any:
    """Return the `loss_weights` that `compile` was given; None if there are none."""
    return model._compile_loss._user_loss_weights


def compiled_metrics(model: keras.Model) -> Any:
    """Return the metric object that `compile` made of its metrics; None if it was given none."""
    return model._compile_metrics


def has_unweighted_metrics(model: keras.Model) -> bool:
    """Return True if a model has metrics besides its losses and the `weighted_metrics` given to `compile`."""
    compiled = model._compile_metrics
    if compiled is not None and compiled._user_metrics:
        return True
    known = [model._loss_tracker, compiled, *(model._compile_loss.metrics if model._compile_loss is not None else [])]
    return any(all(metric is not one for one in known) for metric in model.metrics)


def loss_tracker(model: keras.Model) -> keras.metrics.Metric:
    """Return the metric of the mean loss; every call of `compile` makes another one."""
    return model._loss_tracker


def output_losses(model: keras.Model) -> list:
    """Return the compiled losses, one per output that has one; an empty list before the loss is built."""
    compiled = model._compile_loss
    return [entry.loss for entry in compiled._flat_losses or []] if compiled is not None else []


@contextlib.contextmanager
def replaced_losses(model: keras.Model, replace: Callable) -> Iterator[None]:
    """Compute `replace(loss)` in the place of every compiled loss while open; do nothing before the loss is built."""
    compiled = model._compile_loss
    if compiled is None or not compiled.built:
        yield
        return
    entries = compiled._flat_losses
    compiled._flat_losses = [entry._replace(loss=replace(entry.loss)) for entry in entries]
    try:
        yield
    finally:
        compiled._flat_losses = entries


@contextlib.contextmanager
def replaced_moments(model: keras.Model, replace: Callable) -> Iterator[None]:
    """Compute `replace(layer, moments)` in the place of the moments of a batch in layers for batch normalisation.

    Keras's `moments(inputs, mask)` returns mean and variance. Layers that share them between replicas stay as they are,
    and so do those of a class that overrides the function.
    """
    kind = keras.layers.BatchNormalization
    with contextlib.ExitStack() as stack:
        for layer in layers_of(model):
            if isinstance(layer, kind) and type(layer)._moments is kind._moments and not layer.synchronized:
                stack.enter_context(replaced_attribute(layer, "_moments", replace(layer, layer._moments)))
        yield


def compute_loss(model: keras.Model, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool) -> Any:
    """Return `model.compute_loss(...)`; `training` is passed only to an override that accepts it."""
    return model._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)


def loss_arguments(loss: Any) -> dict:
    """Return the arguments that a loss passes to its function besides targets and predictions."""
    return getattr(loss, "_fn_kwargs", {})


def expects_logits(model: keras.Model) -> bool | None:
    """Return True if the loss of a model takes logits, False if it takes probabilities; None if that isn't known.

    Args:
        model: a compiled model whose loss is built.
    """
    losses = output_losses(model)
    function = getattr(losses[0], "fn", None) if len(losses) == 1 else None
    if function is None or "from_logits" not in (parameters := inspect.signature(function).parameters):
        return None
    return loss_arguments(losses[0]).get("from_logits", parameters["from_logits"].default)


def set_loss_dtype(loss: keras.losses.Loss, dtype: str) -> None:
    """Set the dtype that a loss casts targets and predictions to."""
    vars(loss)["_dtype"] = dtype  # also where the class forbids new attributes


def metric_function(metric: keras.metrics.MeanMetricWrapper) -> tuple[Callable, dict]:
    """Return the function that the metric is the mean of, and the arguments that it passes to it."""
    return metric._fn, dict(metric._fn_kwargs)


# Masks and logits of tensors


def get_mask(tensor: Any) -> Any:
    """Return the mask that a layer or a loss attached to a tensor; None if there is none."""
    return _masking.get_keras_mask(tensor)


def set_mask(tensor: Any, mask: Any) -> None:
    """Attach a mask to a tensor, for the losses, metrics and layers that use the tensor."""
    _masking.set_keras_mask(tensor, mask)


def get_logits(tensor: Any) -> Any:
    """Return the logits that `softmax` or `sigmoid` attached to its output; None if there are none."""
    return _tensors.get_tensor_attr(tensor, "_keras_logits")


def set_logits(tensor: Any, logits: Any) -> None:
    """Attach logits to probabilities, for Keras's cross-entropies."""
    _tensors.set_tensor_attr(tensor, "_keras_logits", logits)


# Callbacks


def backup_is_due(callback: keras.callbacks.BackupAndRestore, batch: int) -> bool:
    """Return True if the callback is going to save the model at the end of a batch."""
    return copy.copy(callback)._should_save_on_batch(batch)  # the method counts the batches in the callback


def checkpoint_path(
    callback: keras.callbacks.ModelCheckpoint, epoch: int, batch: int | None, logs: dict[str, Any]
) -> str:
    """Return the path that the callback saves to with these logs; `batch` is None at the end of an epoch.

    Raises:
        KeyError: the path has a placeholder that isn't in `logs`.
    """
    return callback._get_file_path(epoch, batch, logs)
