"""What goes wrong outside the library, or is called at the wrong moment, costs neither the run nor the trainer."""

import builtins
import errno
import gc
import io
import logging
import os
import threading
import weakref
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from frameworks import build_ahead, needs
from keras import layers

from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.strategies.compiled_steps import MOST_STRATEGIES, CompiledSteps
from importance_sampling.training import ImportanceTraining

rng = np.random.default_rng(0)
X = rng.normal(size=(192, 6)).astype("float32")
Y = (X[:, 0] + 0.3 * rng.normal(size=192) > 0).astype("int32")
WAYS = {
    "pools": lambda model: ImportanceTraining(model, tau_th=1.0, seed=1),
    "rows": lambda model: ImportanceTraining(model, tau_th=0.0, sampler="reshuffle", seed=1),
    "off": lambda model: ImportanceTraining(model, tau_th=float("inf")),
}


def compiled() -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(2, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    build_ahead(model, X, Y)
    return model


def fit(trainer, epochs=1, **options):
    return trainer.fit(X, Y, batch_size=32, epochs=epochs, verbose=0, **options)


class InStep(keras.callbacks.Callback):
    """Calls a function once, after a number of steps."""

    def __init__(self, step, function):
        super().__init__()
        self.step, self.function, self.steps = step, function, 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps == self.step:
            self.function()


def full_disk(monkeypatch, failures=10**6):
    """Let the first so many attempts to write a state fail half way."""
    savez, attempts = np.savez, []

    def failing(file, **arrays):
        attempts.append(file)
        if len(attempts) > failures:
            return savez(file, **arrays)
        file.write(b"half of")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", failing)


@pytest.mark.parametrize("way", WAYS)
def test_a_fit_inside_a_fit_of_the_same_trainer_is_refused_and_the_trainer_stays_usable(way):
    trainer = WAYS[way](compiled())
    with pytest.raises(RuntimeError, match=r"while another `fit` of this trainer is running.*trainer=\w+Training of"):
        fit(trainer, 2, callbacks=[InStep(3, lambda: fit(trainer))])
    assert trainer.summary().startswith("fit was interrupted by RuntimeError after ")
    assert len(fit(trainer, 2).history["loss"]) == 2


@needs("training inside a fit")
def test_another_trainer_of_the_same_model_can_train_in_a_callback():
    model = compiled()
    outer, inner = WAYS["pools"](model), WAYS["rows"](model)
    fit(outer, 2, callbacks=[InStep(3, lambda: fit(inner))])
    assert (outer.importance_steps, inner.importance_steps) == (12, 6)


def test_trainers_in_several_threads_end_with_the_weights_that_each_has_alone():
    models = {way: compiled() for way in ("pools", "rows")}
    threads = [
        threading.Thread(target=lambda way=way, model=model: fit(WAYS[way](model), 3)) for way, model in models.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for way, model in models.items():
        fit(WAYS[way](alone := compiled()), 3)
        for weight, expected in zip(model.get_weights(), alone.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)


@needs("TensorFlow")
@pytest.mark.parametrize("arrays_first", [True, False])
def test_arrays_and_a_stream_of_the_same_batches_are_trained_in_turn(arrays_first):
    import tensorflow as tf

    trainer, kinds = ImportanceTraining(compiled(), seed=1), set()
    stream = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32)
    for is_stream in (not arrays_first, arrays_first):
        trainer.condition.restore(True)
        listener = dict(on_sample=lambda sampler, *_: kinds.add((is_stream, type(sampler).__name__)))  # noqa: B023
        if is_stream:
            trainer.fit(stream, epochs=2, shuffle=False, verbose=0, **listener)
        else:
            fit(trainer, epochs=2, **listener)
    assert kinds == {(True, "PoolSampler"), (False, "ReshuffleSampler")}


@needs("TensorFlow")
def test_several_trainers_in_one_process_are_no_reason_for_tensorflow_to_warn_about_retracing():
    messages, logger = [], logging.getLogger("tensorflow")
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger.addHandler(handler)
    try:
        for options in [{}] * 7 + [dict(tau_th=0.0)] * 7 + [dict(tau_th=0.0, sampler="reshuffle")] * 7:
            fit(ImportanceTraining(compiled(), **options), epochs=2)
    finally:
        logger.removeHandler(handler)
    assert [message for message in messages if "retracing" in message] == []


def test_a_full_disk_does_not_end_fit_and_leaves_no_incomplete_state(tmp_path, monkeypatch):
    full_disk(monkeypatch)
    trainer = WAYS["rows"](compiled())
    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "model.weights.h5"), save_weights_only=True)
    with pytest.warns(UserWarning, match="state wasn't saved.*No space left") as warned:
        history = fit(trainer, 3, callbacks=[checkpoint])
    assert len(history.history["loss"]) == 3 and sum("No space" in str(one.message) for one in warned) == 1
    assert os.listdir(tmp_path) == ["model.weights.h5"]


def test_a_state_of_an_earlier_model_is_removed_if_that_of_the_current_one_cannot_be_written(tmp_path, monkeypatch):
    trainer = WAYS["rows"](compiled())
    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "model.weights.h5"), save_weights_only=True)
    fit(trainer, callbacks=[checkpoint])
    assert len(os.listdir(tmp_path)) == 2
    full_disk(monkeypatch)
    with pytest.warns(UserWarning, match="has to measure its scores again"):
        fit(trainer, callbacks=[checkpoint])
    assert os.listdir(tmp_path) == ["model.weights.h5"]


def test_a_state_is_written_again_once_the_disk_has_space(tmp_path, monkeypatch):
    full_disk(monkeypatch, failures=1)
    trainer = WAYS["rows"](compiled())
    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "model.weights.h5"), save_weights_only=True)
    with pytest.warns(UserWarning, match="state wasn't saved"):
        fit(trainer, 2, callbacks=[checkpoint])
    continued = WAYS["rows"](compiled())
    continued.load_state(tmp_path / "model.weights.h5.importance_sampling.npz")
    assert continued.importance_steps == 12


READ_ONLY = [OSError(errno.EROFS, "Read-only file system"), PermissionError(errno.EACCES, "Permission denied")]


def read_only(monkeypatch, error, function):
    """Let a function refuse to write or to replace the trainer's states, and let nobody delete them."""
    original, unlink = getattr(builtins if function == "open" else os, function), Path.unlink

    def refusing(file, *arguments, **options):
        writes = function == "replace" or (arguments or ("r",))[0] == "wb"
        if writes and "importance_sampling" in str(file):
            raise error
        return original(file, *arguments, **options)

    def keeping(path, *arguments, **options):
        if "importance_sampling" in path.name:
            raise error
        return unlink(path, *arguments, **options)

    monkeypatch.setattr(builtins if function == "open" else os, function, refusing)
    monkeypatch.setattr(Path, "unlink", keeping)


def checkpoints(kind, folder):
    if kind == "backup":
        return keras.callbacks.BackupAndRestore(folder, delete_checkpoint=False)
    return keras.callbacks.ModelCheckpoint(str(folder / "model.weights.h5"), save_weights_only=True)


@pytest.mark.parametrize("error", READ_ONLY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("function", ["open", "replace"])
@pytest.mark.parametrize("kind", ["backup", "checkpoint"])
def test_a_state_that_may_not_be_written_does_not_end_fit_and_its_loss_is_told_once(
    tmp_path, monkeypatch, kind, function, error
):
    fit(WAYS["rows"](compiled()), callbacks=[checkpoints(kind, tmp_path)])
    (state,) = tmp_path.glob("*importance_sampling.npz")
    former = state.read_bytes()
    trainer, usual = WAYS["rows"](compiled()), WAYS["rows"](compiled())
    usual_history = fit(usual, 3)
    if kind == "backup":
        (tmp_path / "training_metadata.json").unlink()  # or it would resume
        for path in tmp_path.glob("*.weights.h5"):
            path.unlink()
        state.unlink()
    with monkeypatch.context() as patched, pytest.warns(UserWarning) as warned:
        read_only(patched, error, function)
        history = fit(trainer, 3, callbacks=[checkpoints(kind, tmp_path)])
    (message,) = [str(one.message) for one in warned if "trainer's state" in str(one.message)]
    assert error.strerror in message and "has to measure its scores again" in message and str(tmp_path) in message
    assert history.history == usual_history.history and trainer.importance_steps == 18
    assert kind == "backup" or state.read_bytes() == former
    fit(trainer, callbacks=[checkpoints("checkpoint", tmp_path)])  # the folder can be written to again
    continued = WAYS["rows"](compiled())
    continued.load_state(tmp_path / "model.weights.h5.importance_sampling.npz")
    assert continued.importance_steps == 24


@pytest.mark.parametrize("kind", ["backup", "checkpoint"])
def test_a_file_in_the_place_of_the_folder_ends_fit_as_it_ends_that_of_the_model(tmp_path, kind):
    folder = tmp_path / "folder"
    folder.write_text("a file")
    trainer, raised = WAYS["rows"](compiled()), []
    for trained in (compiled(), trainer):
        with pytest.raises(Exception) as info:
            fit(trained, 2, callbacks=[checkpoints(kind, folder)])
        raised.append((info.type, str(info.value)))
    assert raised[0] == raised[1] and folder.read_text() == "a file"
    assert len(fit(trainer, 2).history["loss"]) == 2


@pytest.mark.fast
def test_training_continues_from_a_backup_whose_state_may_not_be_read(tmp_path):
    fit(WAYS["rows"](compiled()), callbacks=[checkpoints("backup", tmp_path)])
    (tmp_path / "importance_sampling.npz").unlink()
    (tmp_path / "importance_sampling.npz").mkdir()  # which can't be opened, also by root
    trainer = WAYS["rows"](compiled())
    with pytest.warns(UserWarning, match="trainer's state") as warned:
        history = fit(trainer, 3, callbacks=[keras.callbacks.BackupAndRestore(tmp_path)])
    messages = [str(one.message) for one in warned]
    restored, saved = (message for message in messages if "trainer's state" in message)
    assert "state wasn't restored" in restored and "its scores are measured again" in restored
    assert "state wasn't saved" in saved  # the folder is still in its place
    assert history.epoch == [1, 2] and trainer.importance_steps == 12


def test_training_continues_from_a_backup_with_a_damaged_state_beside_it(tmp_path):
    class Killed(Exception):
        pass

    def kill():
        raise Killed

    with pytest.raises(Killed):
        backup = keras.callbacks.BackupAndRestore(tmp_path)
        fit(WAYS["rows"](compiled()), 3, callbacks=[backup, InStep(8, kill)])
    state = tmp_path / "importance_sampling.npz"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="state wasn't restored.*its scores are measured again"):
        history = fit(WAYS["rows"](compiled()), 3, callbacks=[keras.callbacks.BackupAndRestore(tmp_path)])
    assert history.epoch == [1, 2]


class Killed(BaseException):
    """Ends a process as SIGKILL does: nothing that handles errors runs."""


def killed_in(monkeypatch, owner, name, number, is_done):
    """Let the `number`-th call of a function end the process, before or after its work."""
    original, calls = getattr(owner, name), []

    def replaced(*args, **kwargs):
        calls.append(name)
        result = original(*args, **kwargs) if len(calls) < number or is_done else None
        if len(calls) == number:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, replaced)


@pytest.mark.parametrize(
    "save_freq, owner, name, number, is_done, steps",
    [
        ("epoch", os, "replace", 3, True, 6),
        ("epoch", keras.Model, "save_weights", 2, True, 12),
        (6, os, "replace", 4, False, 12),
    ],
    ids=["before the model", "after the weights", "before the state's last rename"],
)
def test_killed_while_a_backup_is_written_the_state_of_the_model_on_the_disk_is_restored(
    tmp_path, monkeypatch, save_freq, owner, name, number, is_done, steps
):
    def backed_up():
        return [keras.callbacks.BackupAndRestore(tmp_path, save_freq, double_checkpoint=True)]

    with monkeypatch.context() as patched, pytest.raises(Killed):
        killed_in(patched, owner, name, number, is_done)
        fit(WAYS["rows"](compiled()), 3, callbacks=backed_up())
    trainer = WAYS["rows"](model := compiled())
    begun = []
    begin = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: begun.append(int(model.optimizer.iterations)))
    fit(trainer, 3, callbacks=[*backed_up(), begin])
    assert begun == [steps]
    assert trainer.importance_steps == int(model.optimizer.iterations)


def test_a_state_of_another_backup_than_the_model_is_not_restored(tmp_path):
    def run(trainer, epochs):
        fit(trainer, epochs, callbacks=[keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)])

    run(WAYS["rows"](compiled()), 1)
    earlier = (tmp_path / "importance_sampling.npz").read_bytes()
    run(WAYS["rows"](compiled()), 2)
    (tmp_path / "importance_sampling.npz").write_bytes(earlier)
    trainer = WAYS["rows"](compiled())
    with pytest.warns(UserWarning, match="wasn't restored.*after 12 steps.*saved after 6 steps.*measured again"):
        run(trainer, 3)
    assert trainer.importance_steps == 6


@pytest.mark.fast
def test_a_state_of_another_step_than_the_model_is_loaded_with_a_warning(tmp_path):
    trainer = WAYS["rows"](compiled())
    fit(trainer, callbacks=[keras.callbacks.ModelCheckpoint(str(tmp_path / "model.keras"))])
    state = tmp_path / "model.keras.importance_sampling.npz"
    trainer.load_state(state)
    fit(trainer)
    with pytest.warns(UserWarning, match="after 6 steps of the optimizer, and this one has taken 12"):
        trainer.load_state(state)
    WAYS["rows"](compiled()).load_state(state)  # the model is loaded afterwards


@pytest.mark.fast
def test_save_state_reports_a_full_disk_and_keeps_the_former_file(tmp_path, monkeypatch):
    trainer = WAYS["rows"](compiled())
    fit(trainer)
    trainer.save_state(tmp_path / "state.npz")
    former = (tmp_path / "state.npz").read_bytes()
    full_disk(monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        trainer.save_state(tmp_path / "state.npz")
    assert (tmp_path / "state.npz").read_bytes() == former and os.listdir(tmp_path) == ["state.npz"]


@pytest.mark.parametrize("way", [*WAYS, "recorded"])
def test_memory_maps_are_closed_after_fit(tmp_path, way):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    reference = weakref.ref(mapped)
    options = {"on_sample": lambda *_: None} if way == "recorded" else {}
    trainer = WAYS["pools" if way == "recorded" else way](compiled())
    trainer.fit(mapped, Y, batch_size=32, epochs=2, verbose=0, **options)
    del mapped
    gc.collect()
    assert reference() is None, "the file stays open"


@pytest.mark.fast
def test_compiled_steps_of_the_sizes_used_last_are_kept_and_others_dropped():
    class Steps:
        pass

    compiled_steps, made = CompiledSteps(compiled()), []

    def make(plan, batch_size):
        made.append(batch_size)
        return Steps()

    def used(batch_size):
        return weakref.ref(compiled_steps.strategy(make, FitPlan({}), batch_size, is_indexed=False))

    first, second = used(1), used(2)
    for batch_size in range(3, 3 + MOST_STRATEGIES - 2):
        used(batch_size)
    assert used(1) is first  # the second is now the oldest
    used(100)
    assert first() is not None and second() is None
    used(2)
    assert made == [*range(1, MOST_STRATEGIES + 1), 100, 2]


def changed(path, name, content, compression=zipfile.ZIP_STORED):
    """Write a copy of an npz file in which an array is replaced; return its path."""
    copy = path.with_name("changed.npz")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w", compression) as into:
        for member in archive.namelist():
            into.writestr(member, content if member == f"{name}.npy" else archive.read(member))
    return copy


def as_npy(array) -> bytes:
    np.save(file := io.BytesIO(), array)
    return file.getvalue()


def huge() -> bytes:
    """Return the header of an array of 4 TB, without the array."""
    np.lib.format.write_array_header_1_0(
        file := io.BytesIO(), {"descr": "<f4", "fortran_order": False, "shape": (10**12,)}
    )
    return file.getvalue()


@pytest.mark.parametrize(
    "name, content, compression",
    [
        ("averages", huge(), zipfile.ZIP_STORED),
        ("sampler/_scores", huge(), zipfile.ZIP_STORED),
        ("sampler/_scores", as_npy(np.zeros(10**7, "float32")), zipfile.ZIP_DEFLATED),
        ("averages", as_npy(np.zeros(4, "float32")), zipfile.ZIP_STORED),
        ("totals", as_npy(np.array(["a", "b", "c", "d"])), zipfile.ZIP_STORED),
        ("generator", as_npy(np.zeros(5, "uint32")), zipfile.ZIP_STORED),
        ("sampler/_scores", as_npy(np.zeros(7, "float32")), zipfile.ZIP_STORED),
    ],
    ids=["4 TB", "4 TB of a sampler", "compressed", "shape", "text", "random state", "another sampler"],
)
def test_a_damaged_state_is_refused_and_changes_nothing(tmp_path, name, content, compression):
    trainer = WAYS["rows"](compiled())
    fit(trainer)
    trainer.save_state(tmp_path / "earlier.npz")
    fit(trainer)
    trainer.save_state(tmp_path / "now.npz")
    with pytest.raises(ValueError, match="must be"):
        trainer.load_state(changed(tmp_path / "earlier.npz", name, content, compression))
    trainer.save_state(tmp_path / "after.npz")
    with np.load(tmp_path / "now.npz") as now, np.load(tmp_path / "after.npz") as after:
        assert now.files == after.files
        for key in now.files:
            np.testing.assert_array_equal(now[key], after[key])
