"""Where candidates come from: memory maps are read as they are asked for, and nothing is held twice."""

import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from frameworks import needs, tf
from keras import layers

from importance_sampling import ImportanceTraining
from importance_sampling.data import ArraySource, LazyArray, is_lazy, is_mapped
from importance_sampling.fit.make_plan import plan_data


class Counting(np.memmap):
    """A memory map that notes how many rows are read of it by index; slices of it are views, and read nothing."""

    read: list = []

    def __getitem__(self, key):
        if not isinstance(key, slice):
            self.read.append(len(key))
        return super().__getitem__(key)


@pytest.fixture
def mapped(tmp_path):
    rng = np.random.default_rng(0)
    x = Counting(tmp_path / "x", "float64", "w+", shape=(400, 5))
    x[:] = rng.normal(size=x.shape)
    y = Counting(tmp_path / "y", "int64", "w+", shape=(400,))
    y[:] = np.asarray(x)[:, :3].argmax(1)
    Counting.read = []
    return x, y


def build():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def test_rows_of_a_memory_map_are_read_in_the_requested_order_and_in_the_float_type_of_keras(mapped):
    x, _ = mapped
    rows = LazyArray(x).read([7, 3, 399, 3])
    assert rows.dtype == "float32"
    np.testing.assert_array_equal(rows, np.asarray(x)[[7, 3, 399, 3]].astype("float32"))


def test_a_view_of_a_memory_map_counts_as_mapped_and_a_copy_does_not(mapped):
    x, _ = mapped
    assert is_mapped(x) and is_mapped(x[10:20]) and is_mapped(np.asarray(x)[3:])
    assert not is_mapped(np.array(x)) and not is_mapped([1])


@pytest.mark.parametrize("tau_th", [0, None, float("inf")])
@pytest.mark.parametrize("split", [0.0, 0.25])
@pytest.mark.slow
def test_a_memory_map_is_read_in_batches_and_pools_and_never_as_a_whole(mapped, tau_th, split):
    x, y = mapped
    ImportanceTraining(build(), tau_th=tau_th).fit(
        x, y, batch_size=16, epochs=2, verbose=0, validation_split=split, validation_data=None if split else (x, y)
    )
    assert Counting.read and max(Counting.read) <= 48


def test_memory_mapped_validation_data_give_the_validation_loss_of_data_in_memory(mapped):
    x, y = mapped
    resident = np.array(x), np.array(y)
    histories = [
        wrap(build()).fit(*resident, validation_data=data, batch_size=16, verbose=0).history["val_loss"]
        for wrap, data in (
            (lambda model: model, resident),
            (lambda model: ImportanceTraining(model, tau_th=float("inf")), (x, y)),
        )
    ]
    assert histories[0] == histories[1]


class Adding(layers.Layer):
    def call(self, x):
        self.add_loss(0.01 * keras.ops.mean(keras.ops.square(x)))
        return x


class IgnoringWeights(keras.Model):
    def train_step(self, *arguments):  # on JAX the state of the model, and the batch
        *state, data = arguments
        return super().train_step(*state, data[:2])


@pytest.mark.parametrize("kind", ["add_loss", "train_step"])
def test_models_whose_samples_cannot_be_weighted_read_a_memory_map_in_batches_too(mapped, kind):
    x, y = mapped
    inputs = keras.Input((5,))
    keras.utils.set_random_seed(1)
    outputs = layers.Dense(3, "softmax")(Adding()(inputs) if kind == "add_loss" else inputs)
    model = (IgnoringWeights if kind == "train_step" else keras.Model)(inputs, outputs)
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.warns(UserWarning, match="Importance sampling stays off"):
        ImportanceTraining(model, tau_th=0, presample=1).fit(x, y, batch_size=16, verbose=0)
    assert Counting.read and max(Counting.read) <= 16


class Rows:
    """The least that is read by rows: no array to Keras."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.asked = array, array.shape, array.dtype, []

    def __len__(self):
        return len(self.array)

    def __getitem__(self, indices):
        assert isinstance(indices, np.ndarray) and (np.diff(indices) > 0).all()
        self.asked.append(len(indices))
        return self.array[indices]


@pytest.mark.parametrize("tau_th", [0, 1e9])
@pytest.mark.slow
def test_objects_with_rows_by_index_are_read_in_batches_and_pools_and_train_as_arrays_do(mapped, tau_th):
    arrays = tuple(np.array(part) for part in mapped)
    models, stores = [], tuple(map(Rows, arrays))
    for data in (arrays, stores):
        models.append(build())
        ImportanceTraining(models[-1], tau_th=tau_th, seed=1).fit(
            *data, batch_size=16, verbose=0, validation_split=0.25, class_weight={0: 0.5, 1: 2.0}
        )
    for before, after in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    # Class weights are reckoned in slices of all of y; nothing else is read that far.
    assert max(stores[0].asked) <= 48 and sorted(stores[1].asked)[-2] <= 48


def gone(rows):
    raise KeyError("the disk is gone")


def ended(rows):
    raise StopIteration


FAILURES = {
    "as it is": (gone, KeyError, "the disk is gone"),
    "as no end of the data": (ended, RuntimeError, "raised StopIteration"),
    "by its shape": (
        lambda rows: rows[1:],
        ValueError,
        r"must return one row per index.*Received: an array of shape \(\d+, 5\)",
    ),
}


@pytest.mark.parametrize("tau_th", [0, 1e9, float("inf")])
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.slow
def test_an_error_while_reading_rows_of_an_object_is_raised_by_fit(mapped, tau_th, failure):
    fail, error, message = FAILURES[failure]

    class Failing(Rows):
        def __getitem__(self, indices):
            rows = super().__getitem__(indices)
            return fail(rows) if len(self.asked) > 7 else rows  # past all that is read ahead of the first step

    x, y = (np.array(part) for part in mapped)
    with pytest.raises(error, match=message):
        ImportanceTraining(build(), tau_th=tau_th).fit(Failing(x), y, batch_size=16, verbose=0)


@needs("tf.distribute")
@pytest.mark.slow
def test_in_the_scope_of_a_strategy_memory_maps_are_read_as_a_whole_with_a_warning(mapped):
    weights = []
    for wrap in (lambda model: model, lambda model: ImportanceTraining(model, tau_th=1e9)):
        with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
            model = build()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            wrap(model).fit(*mapped, batch_size=16, verbose=0, validation_split=0.25)
        weights.append(model.get_weights())
    assert any("arrays are read into memory as a whole" in str(warning.message) for warning in warned)
    for ours, keras_own in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, keras_own)


def test_objects_without_rows_by_index_are_left_to_keras():
    class OneByOne(Rows):
        def __array__(self, dtype=None, copy=None):
            return self.array

        def __getitem__(self, index):
            raise TypeError("one by one")

    class ByIndex(Rows):
        def __array__(self, dtype=None, copy=None):
            raise AssertionError("read whole")

    numbers = np.arange(12.0).reshape(6, 2)
    assert not is_lazy(OneByOne(numbers)) and is_lazy(ByIndex(numbers)) and is_lazy(Rows(numbers))
    assert not is_lazy(Rows(numbers.astype(str))) and not is_lazy([1.0]) and not is_lazy(numbers)
    part = LazyArray(ByIndex(numbers)).slice(1, 5).slice(1, 3)
    assert len(part) == 2 and part.read([1, 0, 1]).tolist() == [[6, 7], [4, 5], [6, 7]]


HUGE = """
import sys
import keras, numpy as np
from importance_sampling import ImportanceTraining
def peak():  # `ru_maxrss` would begin at the size of the process that started this one
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) // 1024
rows, width = 500_000, 10_000
x = np.memmap(sys.argv[1], "float32", "r", shape=(rows, width))
model = keras.Sequential([keras.Input((width,)), keras.layers.Dense(4, "softmax")])
model.compile("adam", "sparse_categorical_crossentropy")
small = np.zeros((256, width), "float32")
y = np.arange(rows, dtype="uint8") % 4
ImportanceTraining(model, tau_th=0).fit(small, y[:256], verbose=0)
before = peak()
options = dict(batch_size=16, steps_per_epoch=4, epochs=2, verbose=0)  # every row read costs a read ahead
for tau_th in (0, 50, np.inf):
    trainer = ImportanceTraining(model, tau_th=tau_th)
    if tau_th == np.inf:
        trainer.fit(np.zeros((64, width)), np.zeros(64), validation_data=(x, y), validation_steps=2, **options)
    else:
        trainer.fit(x, y, validation_split=0.0001, **options)
    print(peak() - before, trainer.summary().splitlines()[0])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
@pytest.mark.slow
def test_training_on_twenty_gigabytes_on_disk_needs_less_than_one_in_memory(tmp_path):
    with open(tmp_path / "x", "wb") as file:
        file.truncate(4 * 500_000 * 10_000)
    run = subprocess.run(
        [sys.executable, "-c", HUGE, str(tmp_path / "x")], capture_output=True, text=True, check=True, timeout=120
    )
    said = run.stdout.splitlines()
    for line, expected in zip(said, ("100% of the 8 steps", "throughout (8 steps)", "switched off"), strict=True):
        megabytes, summary = line.split(" ", 1)
        assert int(megabytes) < 1000  # at its peak, since before the first of them
        assert expected in summary


BROKEN_OFF = """
import sys, time
import keras, numpy as np
from importance_sampling import ImportanceTraining
class Slow:
    shape, dtype = (1600, 4), np.dtype("float32")
    def __len__(self):
        return 1600
    def __getitem__(self, indices):
        time.sleep(0.02)
        return np.zeros((len(indices), 4), "float32")
def stop(batch, logs):
    if batch == 3:
        raise RuntimeError("on purpose")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
model.compile("sgd", "sparse_categorical_crossentropy")
callbacks = [keras.callbacks.LambdaCallback(on_train_batch_end=stop)]
trainer = ImportanceTraining(model, tau_th=float(sys.argv[1]))
trainer.fit(Slow(), np.zeros(1600, int), batch_size=16, verbose=0, callbacks=callbacks)
"""


@pytest.mark.parametrize("tau_th", ["0", "1e9"])
@pytest.mark.slow
def test_an_error_during_fit_ends_the_process_while_slow_data_are_being_read(tau_th):
    run = subprocess.run([sys.executable, "-c", BROKEN_OFF, tau_th], capture_output=True, text=True, timeout=120)
    assert run.returncode == 1 and "RuntimeError: on purpose" in run.stderr


@needs("tf.data")
def test_keras_and_the_candidates_share_one_tensor_of_each_array():
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    y = np.arange(64)
    names = ("x", "y", "sample_weight", "class_weight", "validation_data", "steps_per_epoch", "batch_size")
    names += ("validation_batch_size",)
    prepared = plan_data(dict.fromkeys(names) | dict(x=x, y=y, validation_split=0.0), build(), with_order=False)
    for column, name in zip(prepared.source.columns, ("x", "y"), strict=True):
        assert column is prepared.arguments[name]


def test_rows_of_nested_arrays_are_returned_in_the_same_structure():
    n = keras.ops.convert_to_numpy
    source = ArraySource(({"a": np.arange(6.0), "b": [np.arange(6) * 2]}, np.arange(6) * 3, None))
    x, y, sample_weight = source.read([4, 1])
    assert n(x["a"]).tolist() == [4, 1] and n(x["b"][0]).tolist() == [8, 2]
    assert n(y).tolist() == [12, 3] and sample_weight is None
