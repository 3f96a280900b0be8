"""Save the trainer's state beside the checkpoints of Keras's callbacks, and restore it with their backups.

A callback is added before and after each `BackupAndRestore` and `ModelCheckpoint` of the user. If a file changes
between the two, the model was saved, and the trainer's state is saved too. The user's callback isn't modified.

A process may be killed while the model is saved. Before a backup, the state is therefore written to a second file,
which replaces the first one afterwards: one of the two belongs to the model on the disk. The optimizer's count of steps
tells which.
Source: `keras.src.callbacks.backup_and_restore` and `keras.src.callbacks.model_checkpoint`, for when files are written.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from importance_sampling.backend import keras_internals
from importance_sampling.fit.state import TrainerState, steps_taken
from importance_sampling.fit.state_file import UnreadableState, load_state, save_state

MTIME_RESOLUTION = 0.02  # seconds, longer than the resolution of modification times in file systems
REMOTE_MARKER = "://"


class BackupFiles:
    """The files of a `BackupAndRestore` callback.

    Attributes:
        restores: bool, True: the callback restores the model when `fit` begins.
        location: str, the argument of the callback that names its folder or file, for messages.
    """

    restores = True

    def __init__(self, callback: keras.callbacks.BackupAndRestore):
        self.location = f"backup_dir={str(callback.backup_dir)!r}"
        self.saves_batches = callback.save_freq != "epoch"
        self._folder = Path(callback.backup_dir)
        self._callback = callback

    @property
    def model(self) -> keras.Model:
        """The model that the callback saves."""
        return self._callback.model

    def is_due(self, batch: int | None) -> bool:
        """Return True if the callback is going to save the model; `batch` is None at the end of an epoch."""
        if batch is None or not self.saves_batches:
            return batch is None and not self.saves_batches
        return keras_internals.backup_is_due(self._callback, batch)

    def find(self, epoch: int, batch: int | None, logs: dict | None) -> tuple[Path, list[Path]]:
        """Return the path of the trainer's state, and the existing paths that the callback may write."""
        state = self._folder / "importance_sampling.npz"
        return state, [path for path in self._folder.glob("*") if not path.name.startswith(state.name)]


class CheckpointFiles:
    """The files of a `ModelCheckpoint` callback. Attributes as for `BackupFiles`; `restores` is False."""

    restores = False

    def __init__(self, callback: keras.callbacks.ModelCheckpoint):
        self.location = f"filepath={callback.filepath!r}"
        self.saves_batches = callback.save_freq != "epoch"
        self._callback = callback

    @property
    def model(self) -> keras.Model:
        """The model that the callback saves."""
        return self._callback.model

    def is_due(self, batch: int | None) -> bool:
        """Return False: whether the callback saves the model is known afterwards."""
        return False

    def find(self, epoch: int, batch: int | None, logs: dict | None) -> tuple[Path, list[Path]]:
        """Return the path of the trainer's state, and the path that the callback may write, if it can be determined."""
        try:
            path = Path(keras_internals.checkpoint_path(self._callback, epoch, batch, logs or {}))
        except Exception:  # the file name contains a key that is missing from the logs; the callback raises the error
            return Path(), []
        return path.with_name(path.name + ".importance_sampling.npz"), [path]


class BeforeCheckpoint(keras.callbacks.Callback):
    """Records the state of the files before the user's callback, and writes the trainer's state ahead of a backup.

    Args:
        files: `BackupFiles` or `CheckpointFiles`.
        state: the trainer's state.

    Attributes:
        epoch: int, the current epoch.
        stamps: dict from path to modification time, size and inode of each existing file.
        is_staged: bool, True if the trainer's state was written.
    """

    async_safe = True  # Keras may then dispatch the hooks of batches as it does without this callback

    def __init__(self, files: BackupFiles | CheckpointFiles, state: TrainerState):
        super().__init__()
        self.files = files
        self.state = state
        self.epoch = 0
        self.stamps: dict[Path, tuple] = {}
        self.is_staged = False

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Record the epoch."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Record the state of the files."""
        if self.files.saves_batches:
            self._record(batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Record the state of the files."""
        self._record(None, logs)

    def _record(self, batch: int | None, logs: dict | None) -> None:
        path, paths = self.files.find(self.epoch, batch, logs)
        self.is_staged = False
        if self.files.is_due(batch):
            with contextlib.suppress(OSError):  # the callback after the user's tries again, and warns
                path.parent.mkdir(parents=True, exist_ok=True)
                save_state(self.state, staged_path(path), steps_taken(self.files.model))
                self.is_staged = True
        self.stamps = file_stamps(paths)
        if any(0 <= time.time_ns() - modified < MTIME_RESOLUTION * 1e9 for modified, *_ in self.stamps.values()):
            time.sleep(MTIME_RESOLUTION)  # otherwise a new version of the file could have the same modification time


class AfterCheckpoint(keras.callbacks.Callback):
    """Saves the trainer's state if the user's callback has saved the model, and restores it with the model.

    Args:
        before: the callback before the user's callback.
        state: the trainer's state.
        on_restore: called without arguments after the state was restored.
        warn: called with a warning message if the state can't be written or read.
    """

    async_safe = True

    def __init__(
        self,
        before: BeforeCheckpoint,
        state: TrainerState,
        on_restore: Callable[[], None],
        warn: Callable[[str], None],
    ):
        super().__init__()
        self.before = before
        self.state = state
        self.on_restore = on_restore
        self.warn = warn
        self._has_warned = False

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Restore the state of a backup."""
        path, _ = self.before.files.find(0, None, logs)
        if not self.before.files.restores:
            return
        errors: list[Exception] = []
        for candidate in filter(Path.exists, (path, staged_path(path))):
            try:
                load_state(self.state, candidate, steps_taken(self.before.files.model))
            except (UnreadableState, OSError) as error:
                errors.append(error)
                continue
            if candidate != path:
                with contextlib.suppress(OSError):
                    os.replace(candidate, path)  # before the next backup is staged
            self.on_restore()
            return
        if errors:  # the model was restored: a run must not be lost by it
            self.warn(
                f"The trainer's state wasn't restored: {errors[0]}. "
                "The training goes on, and its scores are measured again"
            )

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Save the state if a file changed."""
        if self.before.files.saves_batches:
            self._save(batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Save the state if a file changed."""
        self._save(None, logs)

    def _save(self, batch: int | None, logs: dict | None) -> None:
        path, paths = self.before.files.find(self.before.epoch, batch, logs)
        if not file_stamps(paths).items() - self.before.stamps.items():
            return
        try:
            if self.before.is_staged:
                os.replace(staged_path(path), path)
            else:
                save_state(self.state, path, steps_taken(self.before.files.model))
        except OSError as error:  # the disk is full, for instance: a run must not be lost by it
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)  # it belongs to an earlier model
            if self._has_warned:
                return
            self._has_warned = True
            self.warn(
                f"The trainer's state wasn't saved beside the model ({error}). The training goes on; one that is "
                "continued from this checkpoint has to measure its scores again. "
                f"Received: {self.before.files.location}"
            )


def enclose_callback(
    callback: Any, state: TrainerState, on_restore: Callable[[], None], warn: Callable[[str], None]
) -> list[keras.callbacks.Callback]:
    """Return a list of the user's callback and, if it saves the model, a callback before and after it.

    Args:
        callback: any callback.
        state: the trainer's state.
        on_restore: called without arguments after the state was restored from a backup.
        warn: called with a warning message if the state can't be saved beside the model.
    """
    if isinstance(callback, keras.callbacks.BackupAndRestore):
        files: BackupFiles | CheckpointFiles = BackupFiles(callback)
    elif isinstance(callback, keras.callbacks.ModelCheckpoint):
        files = CheckpointFiles(callback)
    else:
        return [callback]
    if REMOTE_MARKER in files.location:
        warn(
            "The trainer's state is saved only beside checkpoints in local folders. Save it with `trainer.save_state`. "
            f"Received: {type(callback).__name__}({files.location})"
        )
        return [callback]
    before = BeforeCheckpoint(files, state)
    return [before, callback, AfterCheckpoint(before, state, on_restore, warn)]


def staged_path(path: Path) -> Path:
    """Return the path of a state that is written before its model."""
    return path.with_name(path.name + ".staged")


def file_stamps(paths: list[Path]) -> dict[Path, tuple]:
    """Return the modification time in nanoseconds, the size in bytes and the inode of each existing file."""
    stamps = {}
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        stamps[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return stamps
