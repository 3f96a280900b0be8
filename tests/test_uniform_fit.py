"""A trainer that is switched off: Keras's own `fit` on the user's arguments, with the steps counted."""

import functools

import keras
import numpy as np
import pytest
from frameworks import build_ahead, host, needs
from saved_states import read_state

from importance_sampling import ImportanceTraining, events

ROWS, BATCH = 29, 4  # 8 batches per epoch, the last of one row
X = np.random.default_rng(0).normal(size=(ROWS, 3)).astype("float32")
Y = X.argmax(1)
SEVERAL = pytest.param(3, marks=needs("several steps per execution"))  # the last execution of an epoch has 2


def build(steps_per_execution=1, ahead=True):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.5), keras.layers.Dense(3, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", steps_per_execution=steps_per_execution)
    if ahead:
        build_ahead(model, X, Y)
    return model


def fit(trainer, **options):
    return trainer.fit(X, Y, **{"batch_size": BATCH, "epochs": 2, "verbose": 0, **options})


def off(model):
    return ImportanceTraining(model, tau_th=float("inf"))


def steps_saved(path):
    return read_state(path)[0]["counters"]["steps"]


class Functions(keras.callbacks.Callback):
    """Records the model's training function in every step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append(self.model.train_function)


def test_kerass_own_training_function_runs_and_stays_as_after_model_fit():
    model, functions = build(), Functions()
    fit(off(model), callbacks=[functions])
    assert {id(function) for function in functions.seen} == {id(model.train_function)}
    first = model.train_function
    fit(model)
    assert model.train_function is first


@pytest.mark.parametrize("steps", [1, SEVERAL])
@pytest.mark.parametrize("waits", [False, True])  # True: a callback for which Keras waits for the logs of every batch
def test_every_step_is_counted(steps, waits):
    trainer = off(build(steps))
    fit(trainer, callbacks=[Functions()] if waits else None)
    assert trainer.summary() == "Uniform training throughout (16 steps): importance sampling is switched off by tau_th."
    assert trainer.forward_equivalents == 3 * 16 and trainer.importance_steps == 0
    fit(trainer, epochs=1)
    assert "throughout (8 steps)" in trainer.summary() and trainer.forward_equivalents == 3 * 24


@pytest.mark.fast
def test_a_step_that_raises_is_not_counted():
    class Failing(keras.Sequential):
        calls = 0

        def train_step(self, *arguments):  # on JAX the state of the model, and the batch
            self.calls += 1
            if self.calls == 5:
                raise ZeroDivisionError("on purpose")
            return super().train_step(*arguments)

    model = Failing([keras.Input((3,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    trainer = off(model)
    with pytest.raises(ZeroDivisionError):
        fit(trainer, callbacks=[Functions()])
    assert trainer.summary().startswith("fit was interrupted by ZeroDivisionError after 4 steps. Uniform training")


@needs("training inside a fit")
def test_steps_of_a_callback_that_trains_the_model_are_not_counted():
    trainer = off(build())
    train = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: trainer.model.train_on_batch(X, Y))
    fit(trainer, callbacks=[train])
    assert trainer.forward_equivalents == 3 * 16


@pytest.mark.parametrize("in_list", [True, False])
def test_the_state_is_saved_with_the_model_and_contains_the_last_step(tmp_path, in_list):
    model, path, saved = build(), tmp_path / "model.keras", []
    saver = keras.callbacks.ModelCheckpoint(path, save_freq=1)
    reader = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: saved.append(steps_saved(f"{path}.importance_sampling.npz"))
    )
    callbacks = [saver, reader]
    if not in_list:
        callbacks = keras.callbacks.CallbackList(callbacks, add_history=True, model=model, epochs=2, steps=8, verbose=0)
        before = list(callbacks.callbacks)
    fit(off(model), callbacks=callbacks)
    assert saved == list(range(1, 17))
    assert in_list or callbacks.callbacks == before


def test_a_fit_that_was_interrupted_continues_with_the_counters_of_its_backup(tmp_path):
    def stop(epoch, logs):
        if epoch == 2:
            raise KeyboardInterrupt

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path)

    with pytest.raises(KeyboardInterrupt):
        fit(off(build()), epochs=4, callbacks=[backup(), keras.callbacks.LambdaCallback(on_epoch_begin=stop)])
    resumed = off(build())
    fit(resumed, epochs=4, callbacks=[backup()])
    assert "throughout (16 steps)" in resumed.summary()
    assert resumed.forward_equivalents == 3 * 32


@functools.lru_cache
def plainly(steps):
    """What `model.fit` makes of a model whose optimizer is built ahead, or in the first of several steps."""
    model = build(steps, ahead=steps == 1)
    keras.utils.set_random_seed(5)
    return model, fit(model).history


@pytest.mark.parametrize("steps", [1, SEVERAL])
@pytest.mark.parametrize(("tau_th", "listens"), [(float("inf"), True), (1e9, False), (1e9, True)])
def test_uniform_steps_of_the_controller_equal_model_fit_bit_for_bit(steps, tau_th, listens):
    (plain, expected), model = plainly(steps), build(steps, ahead=steps == 1)
    keras.utils.set_random_seed(5)
    listen = dict(on_sample=lambda *_: None, on_scores=lambda *_: None) if listens else {}
    trainer, functions = ImportanceTraining(model, tau_th=tau_th), Functions()
    history = fit(trainer, callbacks=[functions], **listen).history
    assert functions.seen and model.train_function not in functions.seen
    assert {key: history[key] for key in expected} == expected and trainer.importance_steps == 0
    variables = [[*one.variables, *one.optimizer.variables] for one in (plain, model)]
    for one, other in zip(*variables, strict=True):
        np.testing.assert_array_equal(host(one), host(other), err_msg=one.path)


@pytest.mark.parametrize("signal", [events.SAMPLE, events.SCORE, events.TRAINING])
@pytest.mark.fast
def test_receivers_of_signals_are_listeners_too(signal):
    model, functions = build(), Functions()
    with signal.connected_to(lambda *_, **__: None):
        fit(off(model), callbacks=[functions])
    assert functions.seen and model.train_function not in functions.seen
