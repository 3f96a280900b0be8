"""The swap, as a table: arrays, models and arguments, and how a case is run by `model.fit` and by the trainer."""

import random
import tempfile

import keras
import numpy as np
import pytest
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
from frameworks import host, needs, tf
from toys import Stream

from importance_sampling import ImportanceTraining
from importance_sampling.fit.state import TrainerState

ROWS = 203  # an odd last batch
FIGURES = {"score", "tau", "importance"}  # what a trainer adds to the logs


def data(seed=0, rows=ROWS):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 8)).astype("float32")
    return x, (x[:, :3] + 0.3 * rng.normal(size=(rows, 3))).argmax(1)


def plain_data(_):
    x, y = data()
    return dict(x=x, y=y)


def one_hot_data(_):
    x, y = data()
    return dict(x=x.astype("float64"), y=keras.utils.to_categorical(y))


def weighted_data(_):
    x, y = data()
    return dict(x=x, y=y, sample_weight=np.linspace(0.1, 2, ROWS))


def validation():
    return Stream(*data(1), 30)


def two_validation():
    x, y = data(1)
    return x, [y, x[:, :1]], [np.linspace(0, 1, ROWS)] * 2


def weighted_two_data(_):
    weights = np.linspace(0.1, 2, ROWS)
    return dict(two_data(_), sample_weight=[weights, weights[::-1]])


def weighted_sequence_data(_):
    arrays = sequence_data(_)
    return dict(arrays, sample_weight=np.random.default_rng(1).uniform(0.1, 2, arrays["x"].shape))


def mapped(path, array):
    file = np.memmap(path, array.dtype, "w+", shape=array.shape)
    file[:] = array
    return file


def mapped_data(folder):
    x, y = data()
    return dict(x=mapped(folder / "x", x), y=mapped(folder / "y", y))


def mapped_two_data(folder):
    """A memory map of everything, the weights too."""
    x, y = data()
    weights = mapped(folder / "weights", np.linspace(0.1, 2, ROWS))
    return dict(x=mapped(folder / "x", x), y=[mapped(folder / "y", y), x[:, :1] * 2], sample_weight=weights)


def hdf5_data(folder):
    h5py = pytest.importorskip("h5py")
    file = h5py.File(folder / "data.h5", "w")
    x, y = data()
    return dict(x=file.create_dataset("x", data=x.astype("float64")), y=file.create_dataset("y", data=y))


def pandas_data(_):
    pandas = pytest.importorskip("pandas")
    x, y = data()
    frame = pandas.DataFrame(x.astype("float64"))
    frame[3] = np.arange(ROWS) % 5
    weights = pandas.Series(np.linspace(0.1, 2, ROWS), index=np.arange(ROWS)[::-1])
    return dict(x=frame, y=pandas.Series(y, index=np.arange(ROWS)[::-1]), sample_weight=weights)


def tensor_data(_):
    (x, y), tensor = data(), keras.ops.convert_to_tensor
    return dict(x={"a": tensor(x[:, :5].astype("float64")), "b": tensor(x[:, 5:])}, y=tensor(y))


def sparse_data(_):
    scipy_sparse = pytest.importorskip("scipy.sparse")
    x, y = data()
    return dict(x=scipy_sparse.csr_matrix(x.astype("float64") * (x > 0)), y=y)


def sparse_tensor_data(_):
    x, y = data()
    return dict(x=tf.sparse.from_dense(x * (x > 0)), y=y)


def ragged_data(_):
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 9, 1 + row % 5).tolist() for row in range(ROWS)]
    return dict(x=tf.ragged.constant(rows), y=np.array([max(row) % 3 for row in rows]))


def text_data(_):
    words = np.array(["red", "green", "blue"])
    numbers = np.random.default_rng(0).integers(0, 3, (ROWS, 2))
    return dict(x=tf.constant([[" ".join(words[row])] for row in numbers]), y=numbers[:, 0])


def sequence_data(_):
    rng = np.random.default_rng(0)
    words = rng.integers(1, 9, (ROWS, 6)) * (np.arange(6) < rng.integers(1, 7, (ROWS, 1)))
    return dict(x=words, y=words % 3)


def two_data(_):
    x, y = data()
    return dict(x=x, y=[y, x[:, :1] * 2])


def dict_data(_):
    x, y = data()
    return dict(x={"a": x[:, :5], "b": x[:, 5:]}, y=y)


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
    "several steps": (lambda: dense(steps_per_execution=3), plain_data, {}),
    "xla": (lambda: dense(jit_compile=True), plain_data, {}),
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
    "memory map, several steps": (lambda: dense(steps_per_execution=3), mapped_data, {}),
    "memory map, xla": (lambda: dense(jit_compile=True), mapped_data, {}),
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

# What Keras must have for a case, see `frameworks.LACKING`.
NEEDS = {
    "several steps": "several steps per execution",
    "xla": "compiled steps",
    "xla, several steps": "several steps per execution",
    "memory map, several steps": "several steps per execution",
    "memory map, xla": "compiled steps",
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
        self.model, self.history, self.called = train(name, arrays)
        self.world = state_of_the_world()


def begin_anew():
    """The same global generators at the start of every run; Keras's own is only reseeded by later Keras versions."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)


def train(name, arrays, tau_th=None, **more):
    """A case by the trainer with a threshold, or by `model.fit` without one: model, History and hooks called."""
    make, _, arguments = CASES[name]
    model, trainer = (_as_made if make is dense else _made)(make, tau_th)
    begin_anew()
    hooks = Hooks()
    arguments = {"batch_size": 16, "epochs": 3, "verbose": 0, **arrays, **arguments, "callbacks": [hooks], **more}
    return model, trainer.fit(**arguments).history, hooks.called


def _made(make, tau_th):
    begin_anew()
    model = make()
    return model, model if tau_th is None else ImportanceTraining(model, tau_th=tau_th, seed=None if tau_th else 1)


_shared: dict = {}


def _as_made(make, tau_th):
    """A model that many cases have, with all that was compiled for it, as it was in the beginning."""
    if (make, tau_th) not in _shared:
        model, trainer = _made(make, tau_th)
        model.optimizer.build(model.trainable_variables)
        start = [(v, host(v)) for v in (*model.variables, *model.optimizer.variables)]
        _shared[make, tau_th] = model, trainer, start
    model, trainer, start = _shared[make, tau_th]
    for variable, value in start:
        variable.assign(value)
    if tau_th == 0:
        with tempfile.NamedTemporaryFile(suffix=".npz") as file:
            TrainerState(1).save(file.name)
            trainer.load_state(file.name)
    return model, trainer


def state_of_the_world():
    return random.getstate(), np.random.get_state()[1].tolist(), float(keras.random.uniform(()))


def assert_equal(plain, trained):
    for before, after in zip(plain.variables, trained.variables, strict=True):
        np.testing.assert_array_equal(host(before), host(after), err_msg=before.path)
    for before, after in zip(plain.optimizer.variables, trained.optimizer.variables, strict=True):
        np.testing.assert_array_equal(host(before), host(after), err_msg=before.path)


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
