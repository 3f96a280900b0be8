"""The end of a `fit`, whatever ends it: what the summary says, and that the user's callbacks are as they were."""

import warnings

import keras
import numpy as np
import pytest
from saved_states import read_state

from importance_sampling import ImportanceTraining
from importance_sampling.callbacks import SamplingCallback

X = np.random.default_rng(0).normal(size=(96, 8)).astype("float32")
Y = X[:, :3].argmax(1)
STEPS = 6  # an epoch


def build():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def fit(trainer, callbacks, epochs=2, **arguments):
    return trainer.fit(X, Y, batch_size=16, epochs=epochs, verbose=0, callbacks=callbacks, **arguments)


class Raising(keras.callbacks.Callback):
    """Raises at the end of a step of the second epoch."""

    def __init__(self, error, batch=2):
        super().__init__()
        self.error, self.batch, self.steps = error, batch, 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps == STEPS + self.batch:
            raise self.error


# Summary


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("power cut")])
def test_the_summary_of_an_interrupted_fit_counts_the_steps_up_to_the_interruption(error):
    trainer = ImportanceTraining(build(), tau_th=0, seed=1)
    with pytest.raises(type(error)):
        fit(trainer, [Raising(error)])
    first = trainer.summary().splitlines()[0]
    assert first.startswith(f"fit was interrupted by {type(error).__name__} after 8 steps. Importance sampling ran")
    assert "ran for 100% of the 8 steps" in first


@pytest.mark.fast
def test_the_summary_of_an_interrupted_fit_says_that_the_gate_was_closed():
    trainer = ImportanceTraining(build(), tau_th=1e9)
    with pytest.raises(KeyboardInterrupt):
        fit(trainer, [Raising(KeyboardInterrupt(), batch=1 - STEPS)])
    expected = "fit was interrupted by KeyboardInterrupt after 1 step. Uniform training throughout"
    assert trainer.summary().startswith(expected)


@pytest.mark.fast
def test_the_summary_names_an_error_before_the_first_step():
    trainer = ImportanceTraining(build())
    stop = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: int("no number"))
    with pytest.raises(ValueError, match="no number"):
        fit(trainer, [stop])
    assert trainer.summary() == "fit was interrupted by ValueError before the first step."


def test_data_that_are_refused_interrupt_fit_before_the_first_step():
    trainer = ImportanceTraining(build())
    fit(trainer, [])
    with pytest.raises(ValueError, match="Data cardinality"):
        trainer.fit(X, Y[:50], verbose=0)
    assert trainer.summary() == "fit was interrupted before the first step."


def test_a_fit_after_an_interrupted_one_has_a_summary_of_its_own_steps():
    trainer = ImportanceTraining(build(), tau_th=0, seed=1)
    with pytest.raises(KeyboardInterrupt):
        fit(trainer, [Raising(KeyboardInterrupt())])
    fit(trainer, [], epochs=1)
    assert trainer.summary().startswith("Importance sampling ran for 100% of the 6 steps")


def test_a_summary_that_fails_does_not_hide_the_error(monkeypatch):
    trainer = ImportanceTraining(build(), tau_th=0, seed=1)

    def fail(signals):
        raise OSError("the device is gone")

    monkeypatch.setattr(trainer.condition, "worth", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(trainer, [Raising(RuntimeError("power cut"))])
    assert trainer.summary() == "fit was interrupted by RuntimeError after 8 steps."


# Callbacks


def strict(kind):
    """A subclass that has a slot, and raises when an attribute is set that Keras doesn't set."""
    known = set()

    class Strict(kind):
        __slots__ = ("slot",)

        def __init__(self, *args, **options):
            known.update(vars(kind(*args, **options)), ("slot", "_model", "params", "_current_epoch", "best"))
            super().__init__(*args, **options)
            self.slot = 1

        def __setattr__(self, name, value):
            if name not in known:
                raise AttributeError(f"{name} can't be set")
            super().__setattr__(name, value)

        def __delattr__(self, name):
            raise AttributeError(f"{name} can't be deleted")

    return Strict


SHAPES = {
    "alone": lambda saver: saver,
    "in a list": lambda saver: [saver, keras.callbacks.LambdaCallback()],
    "in a tuple": lambda saver: (keras.callbacks.TerminateOnNaN(), saver),
    "in lists in a list": lambda saver: [[saver], [[keras.callbacks.LambdaCallback()]]],
    "in a CallbackList": lambda saver: keras.callbacks.CallbackList(
        [saver], add_history=True, model=saver.wanted_by, epochs=2, steps=STEPS, verbose=0
    ),
}


def steps_saved(path):
    return read_state(path)[0]["counters"]["steps"]


def saved_by(train, kind, folder, shape):
    """A strict callback that saved a model, and the names of its attributes at the end of each epoch."""
    model, attributes = build(), []

    class Saver(strict(kind)):
        wanted_by = model

        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            attributes.append(set(vars(self)))

    if kind is keras.callbacks.ModelCheckpoint:
        saver = Saver(folder / "{epoch}.keras")
    else:
        saver = Saver(folder, delete_checkpoint=False)
    train(model, SHAPES[shape](saver))
    return saver, attributes


def by_trainer(model, callbacks):
    fit(ImportanceTraining(model, tau_th=0, seed=1), callbacks)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore])
def test_the_state_is_saved_beside_the_model_with_callbacks_in_any_structure(tmp_path, kind, shape):
    saved_by(by_trainer, kind, tmp_path, shape)
    name = "2.keras.importance_sampling.npz" if kind is keras.callbacks.ModelCheckpoint else "importance_sampling.npz"
    assert steps_saved(tmp_path / name) == 2 * STEPS


@pytest.mark.parametrize("kind", [keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore])
def test_a_callback_that_saves_the_model_has_the_attributes_that_model_fit_sets(tmp_path, kind):
    plain, expected = saved_by(fit, kind, tmp_path / "plain", "in a list")
    saver, attributes = saved_by(by_trainer, kind, tmp_path / "ours", "in a list")
    assert attributes == expected
    assert vars(saver).keys() == vars(plain).keys()


@pytest.mark.parametrize("kind", [keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore])
def test_a_method_that_the_user_replaced_on_a_callback_is_still_there_after_an_error(tmp_path, kind):
    saver = kind(tmp_path / "model.keras")
    calls, save = [], saver._save_model

    def counted(*args, **options):
        calls.append(len(calls))
        return save(*args, **options)

    saver._save_model = counted
    with pytest.raises(KeyboardInterrupt):
        fit(ImportanceTraining(build(), tau_th=0, seed=1), [saver, Raising(KeyboardInterrupt())])
    assert saver._save_model is counted
    assert calls == [0]


@pytest.mark.parametrize("kind", [keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore])
def test_a_state_is_saved_with_every_model_that_is_saved_in_quick_succession(tmp_path, kind):
    saver, path = kind(tmp_path / "model.keras", save_freq=1), tmp_path / "model.keras.importance_sampling.npz"
    if kind is keras.callbacks.BackupAndRestore:
        path = tmp_path / "model.keras" / "importance_sampling.npz"
    saved = []
    reader = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: saved.append(steps_saved(path)))
    fit(ImportanceTraining(build(), tau_th=0, seed=1), [saver, reader])
    assert saved == list(range(1, 2 * STEPS + 1))


def test_a_remote_checkpoint_gets_a_warning_and_no_state():
    saver = keras.callbacks.ModelCheckpoint("gs://bucket/model.keras", save_freq=1000)
    with pytest.warns(UserWarning, match=r"in local folders.*save_state.*ModelCheckpoint\(filepath='gs://bucket"):
        fit(ImportanceTraining(build()), [saver])


@pytest.mark.parametrize("error", [None, KeyboardInterrupt()])
def test_a_callback_list_has_its_own_callbacks_after_fit(tmp_path, error):
    model = build()
    own = [keras.callbacks.ModelCheckpoint(tmp_path / "model.keras"), keras.callbacks.LambdaCallback()]
    own += [Raising(error)] if error else []
    callbacks = keras.callbacks.CallbackList(own, add_history=True, add_progbar=True, model=model)
    callbacks.set_params(dict(verbose=0, epochs=2, steps=STEPS))
    before, inside = list(callbacks.callbacks), callbacks.callbacks
    try:
        fit(ImportanceTraining(model, tau_th=0, seed=1), callbacks)
    except KeyboardInterrupt:
        assert error is not None
    assert callbacks.callbacks is inside
    assert [a is b for a, b in zip(inside, before, strict=True)] == [True] * len(before)


def test_a_callback_list_without_a_model_is_called():
    seen = []
    model = build()
    model.history = keras.callbacks.History()
    ends = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    fit(ImportanceTraining(model), keras.callbacks.CallbackList([ends]))
    assert seen == [0, 1]


def test_a_callback_that_holds_others_is_called_itself():
    class Holder(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.callbacks, self.epochs = [keras.callbacks.LambdaCallback()], []

        def on_epoch_end(self, epoch, logs=None):
            self.epochs.append(epoch)

    holder = Holder()
    fit(ImportanceTraining(build()), holder)
    assert holder.epochs == [0, 1]


class Connected(SamplingCallback):
    def __init__(self, error=None):
        super().__init__()
        self.error, self.is_connected = error, False

    def connect(self, num_rows, figures):
        super().connect(num_rows, figures)
        self.is_connected = True

    def disconnect(self):
        super().disconnect()
        self.is_connected = False
        if self.error is not None:
            raise self.error


def test_every_sampling_callback_is_disconnected_though_one_raises():
    callbacks = [Connected(), Connected(OSError("disk full")), Connected()]
    with pytest.raises(OSError, match="disk full"):
        fit(ImportanceTraining(build()), callbacks)
    assert [callback.is_connected for callback in callbacks] == [False] * 3


# Metrics and data


class Batches(keras.utils.PyDataset):
    def __init__(self):
        super().__init__()
        self.read = 0

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        return X[16 * index : 16 * index + 16], Y[16 * index : 16 * index + 16]


@pytest.mark.parametrize("tau_th", [0, 1e9])
@pytest.mark.parametrize("error", [None, KeyboardInterrupt()])
def test_metrics_and_data_have_the_attributes_that_model_fit_leaves(error, tau_th):
    def attributes(make):
        model, metric, data = build(), keras.metrics.SparseCategoricalAccuracy(), Batches()
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=[metric])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                make(model).fit(data, epochs=2, verbose=0, callbacks=[Raising(error)] if error else None)
            except KeyboardInterrupt:
                assert error is not None
        return vars(metric).keys(), vars(data)

    assert attributes(lambda model: ImportanceTraining(model, tau_th=tau_th, seed=1)) == attributes(lambda model: model)
