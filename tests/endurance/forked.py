"""Trainings in forked processes, that can be killed at a time, while a file is written, or stopped after a backup.

The processes are forked from one that has imported Keras and has run nothing: a framework can't be forked later.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from importance_sampling.callbacks import SamplingRecorder
from importance_sampling.training import (
    SVRG,
    HistoryImportanceTraining,
    ImportanceTraining,
    ReducibleLossTraining,
    ReshuffleTraining,
    SkippingTraining,
)

WAYS: dict[str, Callable] = {
    "ImportanceTraining": lambda model: ImportanceTraining(model, tau_th=0, seed=1),
    "ImportanceTraining, default gate": lambda model: ImportanceTraining(model, seed=1),
    "ImportanceTraining, pools": lambda model: ImportanceTraining(model, tau_th=0, sampler="pool", seed=1),
    "ImportanceTraining, validation data": lambda model: ImportanceTraining(model, tau_th=0, seed=1),
    "ReshuffleTraining": lambda model: ReshuffleTraining(model, seed=1),
    "HistoryImportanceTraining": lambda model: HistoryImportanceTraining(model, seed=1),
    "SVRG": lambda model: SVRG(model, B_over_b=8, seed=1),
    "SkippingTraining": lambda model: SkippingTraining(model, seed=1),
    "ReducibleLossTraining": lambda model: ReducibleLossTraining(model, seed=1),
}
EPOCHS, BATCH_SIZE, STEPS = 5, 32, 8  # steps of an epoch
VALIDATED = {"ImportanceTraining, validation data": 0.2}  # share of the rows, by way
# Moments in which a process is killed: the function that then writes, and the part of its work that is done.
AIMS: dict[str, tuple[object, str, float]] = {
    "before the state": (np, "savez", 0.0),
    "half of the state": (np, "savez", 0.5),
    "before the state's rename": (os, "replace", 0.0),
    "after the state's rename": (os, "replace", 1.0),
    "half of the weights": (keras.Model, "save_weights", 0.5),
    "after the weights": (keras.Model, "save_weights", 1.0),
}

rng = np.random.default_rng(0)
X = rng.normal(size=(250, 6)).astype("float32")  # the last batch is smaller
Y = (X[:, 0] + 0.3 * rng.normal(size=len(X)) > 0).astype("int32")
# Most samples are soon learnt: the default gate is closed at first, and opens in the second epoch.
EASY = X.copy()
EASY[rng.random(len(X)) > 0.05, 0] = 0
EASY[:, 0] += 6 * (EASY[:, 0] == 0) * (2 * Y - 1)
INPUTS = {"ImportanceTraining, default gate": EASY}


@dataclasses.dataclass(frozen=True)
class End:
    """What ends a training early.

    Attributes:
        kind: "time": SIGKILL, `seconds` after step `number` of the process; a name in `AIMS`: SIGKILL when the function
            is called for the `number`-th time; "stop": an exception after the backup of step `number` of the optimizer.
    """

    kind: str
    number: int
    seconds: float = 0.0


class Stopped(Exception):
    """Ends a training in an orderly way."""


class Progress(keras.callbacks.Callback):
    """Notes the step and the epoch that a training resumes at, and the steps at the ends of epochs; may end it."""

    def __init__(self, end: End | None, path: Path, saves_epochs: bool):
        super().__init__()
        self.end, self.path, self.saves_epochs = end, path, saves_epochs
        self.begin, self.steps, self.epoch_ends = 0, 0, {}

    def on_train_begin(self, logs=None):
        self.begin = self.steps = int(self.model.optimizer.iterations)
        self.path.write_text(json.dumps([self.steps, self.model._initial_epoch or 0]))

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.end == End("stop", self.steps) and not self.saves_epochs:
            raise Stopped
        if self.end is not None and (self.end.kind, self.end.number) == ("time", self.steps - self.begin):
            threading.Thread(target=_kill_after, args=(self.end.seconds,), daemon=True).start()

    def on_epoch_end(self, epoch, logs=None):
        self.epoch_ends[epoch] = self.steps
        if self.end == End("stop", self.steps) and self.saves_epochs:
            raise Stopped


def _kill_after(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_in_call(owner: object, name: str, share: float, number: int) -> None:
    """Replace a function; its `number`-th call does a share of its work, and is killed."""
    original, calls = getattr(owner, name), []

    def replaced(*args, **kwargs):
        calls.append(args)
        if len(calls) == number and share == 0.0:
            _kill_after(0)
        result = original(*args, **kwargs)
        if len(calls) == number:
            if share == 0.5:
                _halve(args[0] if name == "savez" else kwargs["filepath"])
            _kill_after(0)
        return result

    setattr(owner, name, replaced)


def _halve(file: Any) -> None:
    """Cut a file, by its path or open, to half of its size."""
    if hasattr(file, "flush"):
        file.flush()
        file = file.name
    os.truncate(file, os.path.getsize(file) // 2)


def _flat(figures: dict) -> dict:
    """Return the figures with those of inner dicts, at any depth, in the place of the dicts."""
    flat = {}
    for name, value in figures.items():
        inner = {f"{name} {key}": part for key, part in value.items()} if isinstance(value, dict) else None
        flat |= {name: value} if inner is None else _flat(inner)
    return flat


def _train(way: str, save_freq: str | int, folder: Path, end: End | None) -> None:
    """Train, or resume, in this process, and write the result."""
    keras.config.disable_traceback_filtering()
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax")])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    trainer, recorder = WAYS[way](model), SamplingRecorder()
    backup = keras.callbacks.BackupAndRestore(folder / "backup", save_freq=save_freq, double_checkpoint=True)
    progress = Progress(end, folder / "start.json", save_freq == "epoch")
    if end is not None and end.kind in AIMS:
        _kill_in_call(*AIMS[end.kind], end.number)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = trainer.fit(
            *(INPUTS.get(way, X), Y, BATCH_SIZE, EPOCHS),
            validation_split=VALIDATED.get(way, 0.0),
            shuffle=False,
            verbose=0,
            callbacks=[recorder, backup, progress],
        )
    state, figures = trainer._state, recorder.arrays()
    for counted in (state.counters, state.decision, state.losses):
        figures |= _flat(dataclasses.asdict(counted))
    for number, variable in enumerate([*model.variables, *model.optimizer.variables]):
        figures[f"variable {number}"] = keras.ops.convert_to_numpy(variable)
    for name, values in history.history.items():
        figures |= {f"{name} of epoch {e}": value for e, value in zip(history.epoch, values, strict=True)}
    assert trainer.importance_steps, trainer.summary()
    told = [str(one.message) for one in caught if "trainer's state" in str(one.message)]
    result = dict(figures=figures, epoch_ends=progress.epoch_ends, told=told)
    (folder / "result.pickle").write_bytes(pickle.dumps(result))


def run(way: str, save_freq: str | int, folder: Path, end: End | None = None) -> str:
    """Train in a forked process; return "ended", "killed", "stopped", or the traceback of an error."""
    (folder / "start.json").unlink(missing_ok=True)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            _train(way, save_freq, folder, end)
            code = 0
        except Stopped:
            code = 2
        except BaseException:
            (folder / "error.txt").write_text(traceback.format_exc())
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) == signal.SIGKILL:
            return "killed"
        (folder / "error.txt").write_text(f"ended by signal {os.WTERMSIG(status)}")
        return "error"
    return ("ended", "error", "stopped")[os.WEXITSTATUS(status)]
