"""The swap, as a table: every case by `model.fit` and by the trainer, closed (equal, bit for bit) and open."""

import contextlib
import random

import keras
import numpy as np
import pytest
from keras import layers

from importance_sampling import ImportanceTraining

# Plain `fit` says so too, in the case of fewer steps an epoch than there are batches.
pytestmark = pytest.mark.filterwarnings("ignore:Your input ran out of data")

ROWS = 203  # an odd last batch


def data(seed=0, rows=ROWS):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 8)).astype("float32")
    return x, (x[:, :3] + 0.3 * rng.normal(size=(rows, 3))).argmax(1)


def dense(**compile_options):
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(16, activation="relu"), layers.Dropout(0.2), layers.Dense(3, "softmax")]
    )
    return compiled(model, **compile_options)


def compiled(model, loss="sparse_categorical_crossentropy", optimizer="adam", metrics=("accuracy",), **options):
    model.compile(optimizer, loss, metrics=list(metrics) if isinstance(metrics, tuple) else metrics, **options)
    return model


def batch_norm():
    return compiled(
        keras.Sequential(
            [
                keras.Input((8,)),
                layers.Dense(16),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.Dense(3, "softmax"),
            ]
        )
    )


def lazy():
    return compiled(keras.Sequential([layers.Dense(16, activation="relu"), layers.Dense(3, activation="softmax")]))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.dropout, self.out = layers.Dense(16, "relu"), layers.Dropout(0.3), layers.Dense(3)

    def call(self, x, training=False):
        return self.out(self.dropout(self.hidden(x), training=training))


def subclassed():
    return compiled(Subclassed(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))


def nested():
    inner = keras.Sequential([keras.Input((16,)), layers.Dense(3), layers.Activation("softmax")])
    inputs = keras.Input((8,))
    return compiled(keras.Model(inputs, inner(layers.Dense(16, "relu")(inputs))))


def two_outputs(**options):
    inputs = keras.Input((8,))
    hidden = layers.Dense(16, "relu")(inputs)
    model = keras.Model(inputs, [layers.Dense(3, "softmax", name="a")(hidden), layers.Dense(1, name="b")(hidden)])
    return compiled(
        model, ["sparse_categorical_crossentropy", "mse"], metrics=None, loss_weights=[1.0, 0.25], **options
    )


def dict_inputs():
    a, b = keras.Input((5,), name="a"), keras.Input((3,), name="b")
    return compiled(keras.Model({"a": a, "b": b}, layers.Dense(3, "softmax")(layers.Concatenate()([a, b]))))


def regularised():
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(16, kernel_regularizer="l2"), layers.Softmax(), layers.Dense(3)]
    )
    return compiled(model, keras.losses.SparseCategoricalCrossentropy(from_logits=True))


def accumulating():
    return dense(optimizer=keras.optimizers.Adam(gradient_accumulation_steps=2, use_ema=True, clipnorm=1.0))


def half():
    with policy("mixed_float16"):
        return dense()


@contextlib.contextmanager
def policy(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def plain_data():
    x, y = data()
    return dict(x=x, y=y)


def one_hot_data():
    x, y = data()
    return dict(x=x.astype("float64"), y=keras.utils.to_categorical(y))


def weighted_data():
    x, y = data()
    return dict(x=x, y=y, sample_weight=np.linspace(0.1, 2, ROWS))


def mapped_data(tmp_path):
    x, y = data()
    mapped = np.memmap(tmp_path / "x", x.dtype, "w+", shape=x.shape)
    mapped[:] = x
    mapped_y = np.memmap(tmp_path / "y", y.dtype, "w+", shape=y.shape)
    mapped_y[:] = y
    return dict(x=mapped, y=mapped_y)


def sequences():
    """Word by word, of lengths that differ."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            layers.Embedding(9, 6, mask_zero=True),
            layers.LSTM(8, return_sequences=True),
            layers.Dense(3, "softmax"),
        ]
    )
    return compiled(model, metrics=None, weighted_metrics=["accuracy"])


def sequence_data():
    rng = np.random.default_rng(0)
    words = rng.integers(1, 9, (ROWS, 6)) * (np.arange(6) < rng.integers(1, 7, (ROWS, 1)))
    return dict(x=words, y=words % 3)


def two_data():
    x, y = data()
    return dict(x=x, y=[y, x[:, :1] * 2])


def dict_data():
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
        lambda: dict(two_data(), sample_weight=np.linspace(0.1, 2, ROWS)),
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
}


class Plain:
    """A case by `model.fit`, once for all that is compared with it."""

    def __init__(self, name, arrays):
        self.name, self.arrays = name, arrays
        self.model, self.history = train(name, arrays, lambda model: model)
        self.world = state_of_the_world()


@pytest.fixture(scope="module", params=CASES)
def plain(request, tmp_path_factory):
    make = CASES[request.param][1]
    return Plain(request.param, make(tmp_path_factory.mktemp("mapped")) if make is mapped_data else make())


def begin_anew():
    """The same global generators at the start of every run; Keras's own is only reseeded by later Keras versions."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)


def train(name, arrays, wrap, **more):
    make, _, arguments = CASES[name]
    begin_anew()
    model = make()
    fit = wrap(model).fit
    history = fit(**{"batch_size": 16, "epochs": 3, "verbose": 0, **arrays, **arguments, **more})
    return model, history.history


def state_of_the_world():
    return random.getstate(), np.random.get_state()[1].tolist(), float(keras.random.uniform(()))


def assert_equal(plain, trained):
    for before, after in zip(plain.variables, trained.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(before.value), np.asarray(after.value), err_msg=before.path)
    for before, after in zip(plain.optimizer.variables, trained.optimizer.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(before.value), np.asarray(after.value), err_msg=before.path)


def test_switched_off_it_equals_fit_bit_for_bit(plain):
    trained, history = train(plain.name, plain.arrays, lambda model: ImportanceTraining(model, tau_th=float("inf")))
    assert state_of_the_world() == plain.world
    assert_equal(plain.model, trained)
    assert {key: history[key] for key in plain.history} == plain.history
    assert trained.train_function is None


def test_closed_but_watching_it_trains_as_fit_does(plain):
    trained, history = train(plain.name, plain.arrays, lambda model: ImportanceTraining(model, tau_th=1e9))
    assert_equal(plain.model, trained)
    assert {key: history[key] for key in plain.history} == plain.history
    assert np.isfinite(history["tau"]).all() and history["importance"] == [0.0] * len(history["tau"])


def test_open_it_takes_as_many_steps_and_learns(plain):
    trained, history = train(plain.name, plain.arrays, lambda model: ImportanceTraining(model, tau_th=0, seed=1))
    if plain.name != "half precision":  # there an overflow skips a step, and not the same ones
        assert int(trained.optimizer.iterations) == int(plain.model.optimizer.iterations)
    assert set(history) == set(plain.history) | {"score", "tau", "importance"}
    assert history["importance"] == [1.0] * len(plain.history["loss"])
    assert np.isfinite(history["loss"]).all() and history["loss"][-1] < history["loss"][0]
    assert min(history["tau"]) >= 1.0
    assert trained.train_function is None


TOLD = [
    "lazily built",
    "two outputs, one weight",
    "dict inputs",
    "class weights, split",
    "several steps",
    "xla",
    "eager",
]


@pytest.mark.parametrize("plain", TOLD, indirect=True)
def test_with_a_listener_to_its_rows_it_trains_as_fit_does(plain):
    told = []
    trained, history = train(
        plain.name,
        plain.arrays,
        lambda model: ImportanceTraining(model, tau_th=1e9),
        on_sample=lambda sampler, indices, weights, scores: told.append(indices),
    )
    assert_equal(plain.model, trained)
    assert {key: history[key] for key in plain.history} == plain.history
    assert len(told) == int(trained.optimizer.iterations)
    rows = int(ROWS * (1 - CASES[plain.name][2].get("validation_split", 0)))
    np.testing.assert_array_equal(np.sort(np.concatenate(told)), np.repeat(np.arange(rows), 3))


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return tuple(part[index * 16 : index * 16 + 16] for part in data())


def randomly():
    """A generator that draws its rows with Python's `random`, as many do; Keras reads ahead, so it has an end."""
    x, y = data()
    for _ in range(2 * 12):
        rows = random.sample(range(ROWS), 16)
        yield x[rows], y[rows]


def dataset():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(data()).shuffle(ROWS).batch(16)


SOURCES = {"generator": randomly, "dataset": dataset, "PyDataset": Batches}


@pytest.mark.filterwarnings("ignore:Your `PyDataset` class should call:UserWarning")
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed, but will be ignored:UserWarning")
@pytest.mark.parametrize("tau_th", [float("inf"), None])
@pytest.mark.parametrize("name", SOURCES)
def test_what_it_draws_no_candidates_from_is_read_as_fit_reads_it(name, tau_th):
    def run(wrap):
        begin_anew()
        model = dense()
        history = wrap(model).fit(SOURCES[name](), epochs=2, steps_per_epoch=12, verbose=0)
        return model, history.history

    plain, plain_history = run(lambda model: model)
    world = state_of_the_world()
    said = pytest.warns(UserWarning, match="candidates are only drawn from arrays")
    with said if tau_th is None else contextlib.nullcontext():
        trained, history = run(lambda model: ImportanceTraining(model, tau_th=tau_th))
    assert state_of_the_world() == world
    assert_equal(plain, trained)
    assert {key: history[key] for key in plain_history} == plain_history
