"""What importance sampling can't be done for, told before the first step.

Where Keras trains and samples can't be weighed, training goes on plainly with one warning that gives the reason and
the remedy. What only shows once the loss is computed is found in `check` and in `weighted_loss`. Nothing is changed
here.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.trainers.trainer import Trainer as KerasTrainer

from importance_sampling import backend
from importance_sampling.pre_activations import PreActivations
from importance_sampling.scores import call, flat
from importance_sampling.weighted_loss import Unsupported, stateless, weighted_loss

KERAS_FIT = keras.Model.fit


def obstacle(model: keras.Model) -> str | None:
    """Why the samples of a model can't be weighed, with the remedy, as a clause; None if they can."""
    if backend.has_custom_loop(model) or has_own_fit(model):
        return (
            f"{type(model).__name__} has a training step of its own, which weights can't be handed to. Move what is "
            "special about it to `call` and `compute_loss`"
        )
    if backend.replicas(model) > 1:
        return f"it trains on {backend.replicas(model)} replicas. Train on one"
    if model.optimizer is None or (model.built and not model.trainable_variables):
        return "it has no trainable weights, or no optimizer"
    if model._compile_loss is None:
        return "no loss was passed to `compile`. Pass one; `add_loss` alone can't be weighed by sample"
    for layer in model._flatten_layers():
        if getattr(layer, "stateful", False) and isinstance(layer, keras.layers.RNN):
            return f"the layer `{layer.name}` is a stateful RNN, whose rows must stay in order. Use stateful=False"
        if layer.activity_regularizer is not None:
            return (
                f"the layer `{layer.name}` has an activity regulariser, a plain mean over whatever batch it sees, "
                "which can't be weighed by sample. Use a weight regulariser"
            )
    return None


def is_model(value: Any) -> bool:
    """Whether a value is a model to Keras: a `keras.Model`, or another layer that Keras's trainer is mixed into."""
    return isinstance(value, keras.Model) or (isinstance(value, keras.Layer) and isinstance(value, KerasTrainer))


def feeds_itself(model: keras.Model) -> bool:
    """Whether the model can only be fed what the user handed over, and not passes over it that are read here."""
    own = has_own_fit(model) or backend.has_custom_loop(model, ("make_train_function",))
    return own or backend.replicas(model) > 1


def has_own_fit(model: keras.Model) -> bool:
    """Whether a `fit` of the model's own stands between a trainer and Keras's."""
    return backend.has_custom_loop(model, ("fit",)) and not is_in_fit(model)


def is_in_fit(model: keras.Model) -> bool:
    """Whether this was called by the model's own `fit`, which is how models come to train with a trainer."""
    return _code(model.fit) in _running()


def fit_of(model: keras.Model) -> Callable:
    """The `fit` of a model that runs the loop: the first that isn't running, or it would only lead here again.

    Its own comes first, then those of its classes; the last is Keras's, as this module found it.
    """
    running = _running()
    kinds = itertools.takewhile(lambda kind: kind is not KerasTrainer, type(model).__mro__)
    above = (vars(kind)["fit"].__get__(model) for kind in kinds if "fit" in vars(kind))
    for fit in (model.fit, *above):
        if _code(fit) not in running or getattr(fit, "__func__", None) is KERAS_FIT:
            return fit
    return KERAS_FIT.__get__(model)


def _code(fit: Any) -> Any:
    while isinstance(fit, functools.partial):
        fit = fit.func
    return getattr(fit, "__code__", None)


def _running() -> set:
    """The code of all functions under way."""
    found, frame = set(), sys._getframe()
    while frame is not None:
        found.add(frame.f_code)
        frame = frame.f_back
    return found


def is_ready(model: keras.Model) -> bool:
    """Whether the model's variables, its loss and its metrics have been built."""
    kind, loss, metrics = type(model), model._compile_loss, model._compile_metrics
    return (
        model.built
        and model.optimizer.built
        and (loss is None or loss.built or kind.compute_loss is not keras.Model.compute_loss)
        and (metrics is None or metrics.built or kind.compute_metrics is not keras.Model.compute_metrics)
    )


def build(model: keras.Model, batch: tuple) -> None:
    """Build what Keras would build at its first step."""
    if not is_ready(model):
        model._symbolic_build(data_batch=batch)


def check(model: keras.Model, points: PreActivations, batch: tuple) -> None:
    """Find out, on a batch, whether all of a built model's loss that depends on the data is weighed by sample.

    Raises:
        Unsupported: it isn't, or there is an obstacle that building the model brought to light.
    """
    reason = obstacle(model)
    if reason is not None:
        raise Unsupported(reason)
    x, y, sample_weight = batch
    regularised = [(v, v.value) for v in model.trainable_variables if v.regularizer is not None]
    with keras.StatelessScope(state_mapping=regularised, collect_losses=True) as scope:
        call(model, x, training=True)
    if scope.losses:
        raise Unsupported(
            "the model adds a loss with `add_loss`, a plain number for the batch, which can't be weighed by sample. "
            "Make it part of the compiled loss"
        )
    if type(model).compute_loss is keras.Model.compute_loss:
        return

    def unweighed() -> tuple:
        with stateless(model), points.caught() as caught:
            y_pred = call(model, x, training=False)
        nothing = ops.zeros((flat(x)[0][0].shape[0],))
        loss = weighted_loss(model, x, y, y_pred, sample_weight, lambda *_: nothing, training=False)
        return loss.total, points.of(y_pred, caught), None

    gradients, _, _ = backend.differentiate(unweighed, model.variables)
    if any(gradient is not None and bool(ops.any(gradient != 0)) for gradient in gradients):
        raise Unsupported(
            "`compute_loss` of the model adds to the compiled loss something of the data that has no sample weights. "
            "Make it part of the compiled loss"
        )


def takes(model: keras.Model, batch: tuple, rows: int) -> bool:
    """Whether a built model can be called on so many rows; one whose inputs have a fixed size may take no other.

    It needn't: a model that was built on a batch has that one's size in its inputs. So it is called, once.
    """
    try:
        inputs = keras.tree.flatten(model.inputs) or []
    except (AttributeError, ValueError):  # subclassed
        inputs = []
    if all(tensor is None or tensor.shape[0] in (None, rows) for tensor in inputs):
        return True
    leaves, pack = flat((batch[0],))
    (x,) = pack(backend.gather(leaf, np.arange(rows) % leaf.shape[0]) for leaf in leaves)
    try:
        with stateless(model):
            call(model, x, training=False)
    except Exception:  # whatever its layers and operations raise; a batch of the user's own has just gone well
        return False
    return True


def remarks(model: keras.Model) -> list[str]:
    """What is worth a line in the summary."""
    layers = list(model._flatten_layers())
    kinds = {kind.__name__ for layer in layers for kind in type(layer).__mro__}
    lines = []
    if kinds & {"BatchNormalization", "BatchRenormalization"}:
        lines.append(
            "The model has batch normalisation: its statistics come from the picked batches, and the figures of "
            "importance steps from inference mode."
        )
    if any(map(_drops, layers)):
        lines.append("The model has dropout: scores and the figures of importance steps are taken without it.")
    return lines


def _drops(layer: keras.Layer) -> bool:
    """Whether a layer has dropout, and not only could have it, as every recurrent one."""
    rates = [getattr(layer, name) for name in ("rate", "dropout", "recurrent_dropout") if hasattr(layer, name)]
    return any("Dropout" in kind.__name__ for kind in type(layer).__mro__) and (any(rates) or not rates)
