"""The swap, as a table: arrays, models and arguments, and how a case is run by `model.fit` and by the trainer."""

import random
import tempfile

import keras
import numpy as np
import pytest
from drop_in_data import (
    ROWS,
    data,
    dict_data,
    hdf5_data,
    mapped_data,
    mapped_two_data,
    one_hot_data,
    pandas_data,
    plain_data,
    ragged_data,
    sequence_data,
    sparse_data,
    sparse_tensor_data,
    tensor_data,
    text_data,
    two_data,
    two_validation,
    validation,
    weighted_data,
    weighted_sequence_data,
    weighted_two_data,
)
from drop_in_models import (
    accumulating,
    batch_norm,
    compute_loss,
    dense,
    dict_inputs,
    frozen_and_shared,
    half,
    lazy,
    nested,
    quantised,
    ragged_words,
    regularised,
    sequences,
    several_metrics,
    sparse_inputs,
    subclassed,
    texts,
    two_outputs,
)
from frameworks import build_ahead, host, needs

from importance_sampling import ImportanceTraining
from importance_sampling.fit.state import TrainerState
from importance_sampling.fit.state_file import save_state

FIGURES = {"score", "tau", "importance"}  # what a trainer adds to the logs


def three_steps():
    return dense(steps_per_execution=3)


def by_xla():
    return dense(jit_compile=True)


CASES = {
    "dense": (dense, plain_data, {}),
    "one hot, float64": (lambda: dense(loss="categorical_crossentropy"), one_hot_data, {}),
    "batch norm": (batch_norm, plain_data, {}),
    "lazily built": (lazy, plain_data, {}),
    "subclassed": (subclassed, plain_data, {}),
    "nested": (nested, plain_data, {}),
    "two outputs": (two_outputs, two_data, {}),
    "two outputs, one weight": (
        two_outputs,
        lambda _: dict(two_data(_), sample_weight=np.linspace(0.1, 2, ROWS)),
        {},
    ),
    "dict inputs": (dict_inputs, dict_data, {}),
    "regularised": (regularised, plain_data, {}),
    "accumulating": (accumulating, plain_data, {}),
    "half precision": (half, plain_data, {}),
    "sample weights": (lambda: dense(weighted_metrics=["accuracy"]), weighted_data, {}),
    "class weights": (dense, plain_data, dict(class_weight={0: 0.3, 2: 2.0})),
    "validation split": (dense, plain_data, dict(validation_split=0.25)),
    "class weights, split": (dense, plain_data, dict(validation_split=0.25, class_weight={0: 0.3, 2: 2.0})),
    "validation data": (dense, plain_data, dict(validation_data=data(1), validation_freq=2)),
    "several steps": (three_steps, plain_data, {}),
    "xla": (by_xla, plain_data, {}),
    "xla, several steps": (lambda: dense(jit_compile=True, steps_per_execution=8), plain_data, {}),
    "eager": (lambda: dense(run_eagerly=True), plain_data, {}),
    "fewer steps": (dense, plain_data, dict(steps_per_epoch=4, batch_size=16)),
    "not shuffled": (dense, plain_data, dict(shuffle=False)),
    "later epochs": (dense, plain_data, dict(initial_epoch=1)),
    "masked sequences": (sequences, sequence_data, {}),
    "memory map": (dense, mapped_data, {}),
    "memory map, split, class weights": (
        dense,
        mapped_data,
        dict(validation_split=0.25, class_weight={0: 0.3, 2: 2.0}),
    ),
    "memory map, several steps": (three_steps, mapped_data, {}),
    "memory map, xla": (by_xla, mapped_data, {}),
    "more steps than batches": (dense, plain_data, dict(steps_per_epoch=20, validation_data=validation())),
    "weights by output": (two_outputs, weighted_two_data, dict(validation_data=two_validation(), validation_steps=2)),
    "weights by time step": (sequences, weighted_sequence_data, dict(validation_split=0.25, validation_batch_size=7)),
    "memory map, weights, two outputs": (two_outputs, mapped_two_data, {}),
}

# In these Keras is handed what the user gave where nothing is sampled: there is nothing to compare.
FURTHER = {
    "h5py, split, class weights": (dense, hdf5_data, dict(validation_split=0.25, class_weight={0: 0.3, 2: 2.0})),
    "pandas, split": (lambda: dense(weighted_metrics=["accuracy"]), pandas_data, dict(validation_split=0.25)),
    "tensors": (dict_inputs, tensor_data, {}),
    "scipy sparse, split": (sparse_inputs, sparse_data, dict(validation_split=0.25)),
    "sparse tensors": (sparse_inputs, sparse_tensor_data, {}),
    "ragged": (ragged_words, ragged_data, dict(shuffle="batch")),
    "texts": (texts, text_data, {}),
    "several metrics": (several_metrics, one_hot_data, {}),
    "compute_loss": (compute_loss, weighted_data, {}),
    "frozen and shared layers": (frozen_and_shared, plain_data, {}),
    "quantised, LoRA": (quantised, plain_data, {}),
}
SWITCHED_OFF = list(CASES)
CASES |= FURTHER
_MADE = [make for make, *_ in CASES.values()]

# What Keras must have for a case, see `frameworks.LACKING`.
NEEDS = {
    "several steps": "several steps per execution",
    "xla": "compiled steps",
    "xla, several steps": "several steps per execution",
    "memory map, several steps": "several steps per execution",
    "memory map, xla": "compiled steps",
    "scipy sparse, split": "draws from sparse inputs",
    "sparse tensors": "sparse and ragged inputs",
    "ragged": "sparse and ragged inputs",
    "texts": "text inputs",
}


def cases(names):
    """The names of cases as parameters of a test, with the marks of those that Keras can't run on every backend."""
    return [pytest.param(name, marks=needs(NEEDS[name])) if name in NEEDS else name for name in names]


class Hooks(keras.callbacks.Callback):
    """Notes which hooks are called, and with what."""

    def __init__(self):
        super().__init__()
        self.called = []

    def on_epoch_begin(self, epoch, logs=None):
        self.called.append(("epoch", epoch))

    def on_train_batch_begin(self, batch, logs=None):
        self.called.append(("begin", batch))

    def on_train_batch_end(self, batch, logs=None):
        self.called.append(("end", batch, sorted(logs)))

    def on_epoch_end(self, epoch, logs=None):
        self.called.append(("epoch end", epoch, sorted(logs)))

    def on_test_batch_end(self, batch, logs=None):
        self.called.append(("test", batch, sorted(logs)))

    def on_train_end(self, logs=None):
        self.called.append(("train end", sorted(logs)))


class Plain:
    """A case by `model.fit`, once for all that is compared with it."""

    def __init__(self, name, arrays):
        self.name, self.arrays = name, arrays
        model, self.history, self.called = train(name, arrays)
        self.values, self.steps = values(model), int(model.optimizer.iterations)
        self.world = state_of_the_world()

    def assert_equals(self, trained):
        assert_same(self.values, values(trained))


def begin_anew():
    """The same global generators at the start of every run; Keras's own is only reseeded by later Keras versions."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)


def train(name, arrays, tau_th=None, **more):
    """A case by the trainer with a threshold, or by `model.fit` without one: model, History and hooks called."""
    arguments = {"batch_size": 16, "epochs": 3, "verbose": 0, **arrays, **CASES[name][2]}
    model, trainer = _as_made(name, arguments, tau_th)
    begin_anew()
    hooks = Hooks()
    return model, trainer.fit(**{**arguments, "callbacks": [hooks], **more}).history, hooks.called


def _made(model, tau_th):
    return model if tau_th is None else ImportanceTraining(model, tau_th=tau_th, seed=None if tau_th else 1)


_kept: dict = {}


def _as_made(name, arguments, tau_th):
    """The model of a case and its trainer, as they were in the beginning, but with all that was compiled for them.

    All ways to train share the model, as long as the case is at hand. Cases whose models are made by the same function
    share one that Keras trains and one that is trained open: their arrays must be of the same ranks. A model that isn't
    built before `fit` is made anew.
    """
    make = CASES[name][0]
    key = (make, tau_th == 0) if _MADE.count(make) > 1 else name
    if key not in _kept:
        begin_anew()
        model = make()
        if not model.built:
            return model, _made(model, tau_th)
        build_ahead(model, **arguments)
        model.optimizer.build(model.trainable_variables)
        for other in [other for other in _kept if isinstance(other, str)]:
            del _kept[other]
        _kept[key] = model, [(v, host(v)) for v in (*model.variables, *model.optimizer.variables)], {}
    model, start, trainers = _kept[key]
    for variable, value in start:
        variable.assign(value)
    if tau_th == 0:
        model.train_function = None  # as `compile` leaves it
    if tau_th not in trainers:
        trainers[tau_th] = _made(model, tau_th)
    elif tau_th == 0:  # a new state
        with tempfile.NamedTemporaryFile(suffix=".npz") as file:
            save_state(TrainerState(1), file.name)
            trainers[0].load_state(file.name)
    return model, trainers[tau_th]


def state_of_the_world():
    return random.getstate(), np.random.get_state()[1].tolist(), float(keras.random.uniform(()))


def values(model):
    """Copies of the variables of a model and of its optimizer, with their paths."""
    return [(variable.path, host(variable)) for variable in (*model.variables, *model.optimizer.variables)]


def assert_same(plain, trained):
    for (path, before), (_, after) in zip(plain, trained, strict=True):
        np.testing.assert_array_equal(before, after, err_msg=path)


def assert_equal(plain, trained):
    assert_same(values(plain), values(trained))


WAYS = {
    "plain": lambda model: model,
    "closed": lambda model: ImportanceTraining(model, tau_th=1e9),
    "open": lambda model: ImportanceTraining(model, tau_th=0, seed=1),
}


def each_way(train):
    """Closed it equals plain, bit for bit; open it takes as many steps, and stays finite."""
    (plain, _), (closed, _), (opened, trainer) = map(train, WAYS)
    assert_equal(plain, closed)
    assert int(opened.optimizer.iterations) == int(plain.optimizer.iterations)
    assert all(np.isfinite(host(weight)).all() for weight in opened.weights)
    return plain, opened, trainer
