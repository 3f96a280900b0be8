"""Save the trainer's state beside the checkpoints of Keras's callbacks, and restore it with their backups.

Two callbacks enclose each `BackupAndRestore` and `ModelCheckpoint` of the user. A file that changes between the two
shows that the model was saved. Nothing is set on the user's callback, and Keras calls it as without a trainer.
Source: `keras.src.callbacks.backup_and_restore` and `keras.src.callbacks.model_checkpoint` for when files are written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from importance_sampling.backend import keras_internals
from importance_sampling.state import TrainerState

RESOLUTION = 0.02  # seconds, longer than the unit in which file systems count modification times
IS_REMOTE = "://"


class BackupFiles:
    """The files of a `BackupAndRestore` callback.

    Attributes:
        restores: bool, True if the callback restores what it saved when `fit` begins.
        location: str, where the callback saves, for messages.
    """

    restores = True

    def __init__(self, callback: keras.callbacks.BackupAndRestore):
        self.location = f"backup_dir={str(callback.backup_dir)!r}"
        self._folder = Path(callback.backup_dir)

    def find(self, epoch: int, batch: int | None, logs: dict | None) -> tuple[Path, list[Path]]:
        """Return the file for the trainer's state, and the files that the callback may write, if they exist."""
        state = self._folder / "importance_sampling.npz"
        return state, [path for path in self._folder.glob("*") if path != state]


class CheckpointFiles:
    """The files of a `ModelCheckpoint` callback, as `BackupFiles`."""

    restores = False

    def __init__(self, callback: keras.callbacks.ModelCheckpoint):
        self.location = f"filepath={callback.filepath!r}"
        self._callback = callback

    def find(self, epoch: int, batch: int | None, logs: dict | None) -> tuple[Path, list[Path]]:
        """Return the file for the trainer's state, and the file that the callback may write, if it has a name."""
        try:
            path = Path(keras_internals.checkpoint_path(self._callback, epoch, batch, logs or {}))
        except Exception:  # a key that these logs don't have; the callback raises it itself if it saves
            return Path(), []
        return path.with_name(path.name + ".importance_sampling.npz"), [path]


class BeforeCheckpoint(keras.callbacks.Callback):
    """Notes the files as they are ahead of the user's callback.

    Args:
        files: `BackupFiles` or `CheckpointFiles`.

    Attributes:
        epoch: int, the current epoch.
        stamps: dict, what identifies the content of each existing file.
    """

    async_safe = True  # Keras may dispatch the hooks of batches as it does without this callback

    def __init__(self, files: BackupFiles | CheckpointFiles):
        super().__init__()
        self.files = files
        self.epoch = 0
        self.stamps: dict[Path, tuple] = {}

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Note the epoch."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Note the files."""
        self._note(batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Note the files."""
        self._note(None, logs)

    def _note(self, batch: int | None, logs: dict | None) -> None:
        _, paths = self.files.find(self.epoch, batch, logs)
        self.stamps = stamps(paths)
        if any(0 <= time.time_ns() - modified < RESOLUTION * 1e9 for modified, *_ in self.stamps.values()):
            time.sleep(RESOLUTION)  # a file that is written again now would have the same modification time


class AfterCheckpoint(keras.callbacks.Callback):
    """Saves the trainer's state if the user's callback has saved the model, and restores it with the model.

    Args:
        before: the callback on the other side of the user's.
        state: the trainer's.
        restored: called after the state was restored.
    """

    async_safe = True

    def __init__(self, before: BeforeCheckpoint, state: TrainerState, restored: Callable[[], None]):
        super().__init__()
        self.before = before
        self.state = state
        self.restored = restored

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Restore the state of a backup."""
        path, _ = self.before.files.find(0, None, logs)
        if self.before.files.restores and path.exists():
            self.state.load(path)
            self.restored()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Save the state if a file changed."""
        self._save(batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Save the state if a file changed."""
        self._save(None, logs)

    def _save(self, batch: int | None, logs: dict | None) -> None:
        path, paths = self.before.files.find(self.before.epoch, batch, logs)
        if stamps(paths).items() - self.before.stamps.items():
            self.state.save(path)


def enclosed(
    callback: Any, state: TrainerState, restored: Callable[[], None], warn: Callable[[str], None]
) -> list[keras.callbacks.Callback]:
    """Return a callback of the user's, with a callback on either side of it if it saves the model.

    Args:
        callback: any callback.
        state: the trainer's.
        restored: called after the state was restored from a backup.
        warn: called with the warning if the state can't be saved beside the model.
    """
    if isinstance(callback, keras.callbacks.BackupAndRestore):
        files: BackupFiles | CheckpointFiles = BackupFiles(callback)
    elif isinstance(callback, keras.callbacks.ModelCheckpoint):
        files = CheckpointFiles(callback)
    else:
        return [callback]
    if IS_REMOTE in files.location:
        warn(
            "The trainer's state is saved beside checkpoints in local folders only. Save it by `trainer.save_state`. "
            f"Received: {type(callback).__name__}({files.location})"
        )
        return [callback]
    before = BeforeCheckpoint(files)
    return [before, callback, AfterCheckpoint(before, state, restored)]


def stamps(paths: list[Path]) -> dict[Path, tuple]:
    """Return modification time in nanoseconds, size in bytes and inode of each file that exists."""
    found = {}
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        found[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found
