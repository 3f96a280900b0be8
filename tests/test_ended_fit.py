"""A `fit` that an error ends within an epoch: model, loss, metrics, optimizer and callbacks are as after the last step.

The errors are memory that runs out, Ctrl-C, and errors of callbacks, losses and data.
"""

import contextlib
import gc
import os
import threading
import time

import keras
import numpy as np
import pytest
from frameworks import build_ahead, host, needs, tf
from keras import layers
from ways import POOLS, ROWS, Setup, attributes, changes

from importance_sampling import ImportanceTraining

SIZE, STEPS = 16, 6
rng = np.random.default_rng(0)
X = rng.normal(size=(SIZE * STEPS, 5)).astype("float32")
Y = X[:, :3].argmax(1)
CLOSED = dict(tau_th=1e9)
OFF = dict(tau_th=float("inf"))
OF_KERAS = {"history", "_eval_epoch_iterator"}  # attributes of a model that every `fit` sets
WAYS = {"closed": CLOSED, "pools": POOLS, "rows": ROWS}


class Memory:
    """Runs out while it is exhausted, in the steps of a kind."""

    def __init__(self, kind="training"):
        self.kind, self.is_exhausted, self.failures = kind, False, 0

    def use(self, kind):
        if self.is_exhausted and kind == self.kind:
            self.failures += 1
            raise MemoryError("no memory is left")


class Hungry(layers.Layer):
    """Takes memory whenever it is called, in compiled functions too."""

    def __init__(self, memory):
        super().__init__()
        self.memory = memory

    def call(self, x, training=None):
        kind = "training" if training else "scoring"
        with tf.control_dependencies([tf.py_function(lambda: self.memory.use(kind) or 0.0, [], "float32")]):
            return tf.identity(x)


class EachStep(keras.callbacks.Callback):
    """Notes all values after each step, and calls a function after one of them."""

    def __init__(self, step, function=lambda: None):
        super().__init__()
        self.step, self.function, self.noted = step, function, []

    def on_train_batch_end(self, batch, logs=None):
        self.noted.append(values(self.model))
        if len(self.noted) == self.step:
            self.function()


def values(model):
    """Return the weights of a model and its optimizer.

    Not the number of steps: TensorFlow raises it beside a step that fails, in Keras's own step too.
    """
    variables = (*model.variables, *model.optimizer.variables)
    return [host(variable) for variable in variables if variable is not model.optimizer.iterations]


def build(*more, loss="sparse_categorical_crossentropy"):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4), *more, layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"], jit_compile=False)
    build_ahead(model, X, Y)
    return model


def fit(trainer, callbacks=None, x=X, y=Y, epochs=3, **options):
    return trainer.fit(x, y, batch_size=SIZE, epochs=epochs, verbose=0, callbacks=callbacks, **options)


def trainer_of(model, way):
    return ImportanceTraining(model, seed=1, **way)


def assert_equal(one, other):
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def assert_ends_as_after_the_last_step(trainer, each_step, error, restore, **data):
    """Train until an error, and assert that nothing has changed since the last step, and that the next `fit` trains."""
    model = trainer.model
    setup = Setup(model, dict(callbacks=[each_step], x=data.get("x")))
    before = attributes(setup)
    with pytest.raises(error):
        fit(trainer, [each_step], **data)
    steps = len(each_step.noted)
    assert each_step.step <= steps < 3 * STEPS
    assert_equal(values(model), each_step.noted[-1])
    assert {name for *_, name in changes(before, attributes(setup))} <= OF_KERAS
    assert f"after {steps} steps" in trainer.summary()
    restore()
    history = fit(trainer, epochs=2, **data).history
    assert len(history["loss"]) == 2 and np.isfinite(history["loss"]).all()
    assert int(host(model.optimizer.iterations)) - steps - 2 * STEPS in (0, 1)


@needs("TensorFlow")
@pytest.mark.parametrize(
    ("way", "kind"),
    [("closed", "training"), ("pools", "training"), ("rows", "training"), ("pools", "scoring"), ("rows", "scoring")],
)
def test_memory_that_runs_out_in_a_layer_leaves_what_the_last_step_left_and_the_next_fit_trains(way, kind):
    memory = Memory(kind)
    each_step = EachStep(STEPS + 2, lambda: setattr(memory, "is_exhausted", True))
    trainer = trainer_of(build(Hungry(memory)), WAYS[way])
    assert_ends_as_after_the_last_step(
        trainer, each_step, tf.errors.ResourceExhaustedError, lambda: setattr(memory, "is_exhausted", False)
    )
    assert memory.failures > 0
    assert (trainer.importance_steps > 0) == (way != "closed")


class Store:
    """Rows by index, as of a file, that take memory."""

    def __init__(self, array, memory):
        self.array, self.memory, self.shape, self.dtype = array, memory, array.shape, array.dtype

    def __len__(self):
        return len(self.array)

    def __getitem__(self, index):
        self.memory.use("training")
        return self.array[index]


class Batches(keras.utils.PyDataset):
    """Batches that take memory, read in threads."""

    def __init__(self, memory, workers=2):
        super().__init__(workers=workers)
        self.memory = memory

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        self.memory.use("training")
        rows = slice(index * SIZE, (index + 1) * SIZE)
        return X[rows], Y[rows]


@pytest.mark.parametrize("way", WAYS)
def test_memory_that_runs_out_while_rows_are_read_leaves_what_the_last_step_left(way):
    memory = Memory()
    each_step = EachStep(STEPS + 2, lambda: setattr(memory, "is_exhausted", True))
    assert_ends_as_after_the_last_step(
        trainer_of(build(), WAYS[way]),
        each_step,
        MemoryError,
        lambda: setattr(memory, "is_exhausted", False),
        x=Store(X, memory),
    )


ENDS = {"Ctrl-C": KeyboardInterrupt(), "an error": RuntimeError("power cut")}


def raising(error):
    def end():
        raise error

    return end


@pytest.mark.parametrize("way", [*WAYS, "off"])
@pytest.mark.parametrize("error", ENDS)
def test_an_error_after_a_step_leaves_the_weights_of_that_step_of_a_fit_that_goes_on(error, way):
    way, steps = WAYS.get(way, OFF), STEPS + 3
    whole = EachStep(steps)
    fit(trainer_of(build(), way), [whole])
    ended = EachStep(steps, raising(ENDS[error]))
    trainer = trainer_of(build(), way)
    assert_ends_as_after_the_last_step(trainer, ended, type(ENDS[error]), lambda: None)
    for one, other in zip(ended.noted[:steps], whole.noted[:steps], strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("way", ["closed", "off"])
def test_an_error_after_a_uniform_step_leaves_the_weights_that_model_fit_leaves(way):
    ended = []
    for trained in (lambda model: model, lambda model: trainer_of(model, dict(WAYS, off=OFF)[way])):
        each_step = EachStep(STEPS + 3, raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            fit(trained(model := build()), [each_step])
        ended.append(values(model))
    assert_equal(*ended)


def threads_and_files():
    """Return the threads of Python and the open files, once what is left to the collector is gone."""
    gc.collect()
    return set(threading.enumerate()), {one for one in os.listdir("/proc/self/fd") if readlink(one)}


def readlink(descriptor):
    with contextlib.suppress(OSError):  # that of the listing itself
        return os.readlink(f"/proc/self/fd/{descriptor}")


def left_over(before, seconds=10.0):
    """Return what is there in addition to what was before, as soon as there is nothing, or after some seconds."""
    end = time.monotonic() + seconds
    while any(left := [after - old for after, old in zip(threads_and_files(), before, strict=True)]):
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    return left


def generator(memory):
    while True:
        for index in range(STEPS):
            yield Batches(memory)[index]


SOURCES = {
    "arrays, a callback": lambda memory: dict(x=X, y=Y, batch_size=SIZE),
    "a store": lambda memory: dict(x=Store(X, memory), y=Y, batch_size=SIZE),
    "a dataset with threads": lambda memory: dict(x=Batches(memory)),
    "a generator": lambda memory: dict(x=generator(memory), steps_per_epoch=STEPS),
}


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the open files are listed on Linux")
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("way", ["closed", "pools"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_thread_and_no_file_is_left_by_a_fit_that_an_error_ended(source, way):
    memory, model = Memory(), build()
    trainer = trainer_of(model, WAYS[way])

    def train(callback):
        trainer.fit(**SOURCES[source](memory), verbose=0, epochs=3, callbacks=[callback])

    train(EachStep(1))  # what the first `fit` of a process opens for good
    before = threads_and_files()
    fail = raising(MemoryError()) if source.startswith("arrays") else lambda: setattr(memory, "is_exhausted", True)
    with pytest.raises(Exception, match=r"no memory is left|^$"):
        train(EachStep(STEPS + 1, fail))
    threads, files = left_over(before)
    assert threads == set()
    if source != "a dataset with threads":  # Keras's own `fit` leaves the pipe of its readers open
        assert files == set()


class FailingLoss(keras.losses.Loss):
    """A loss that can't be computed any more."""

    def call(self, y_true, y_pred):
        raise OSError("no loss")


def test_no_thread_and_no_file_is_left_by_a_fit_that_an_error_of_the_loss_ended():
    trainer = trainer_of(model := build(), WAYS["pools"])
    fit(trainer, epochs=1)
    before = threads_and_files()
    model.compile("sgd", FailingLoss())
    with pytest.raises((OSError, ValueError), match="no loss"):
        fit(trainer)
    assert left_over(before) == [set(), set()]
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert np.isfinite(fit(trainer, epochs=1).history["loss"][0])
