"""Copies of the user's callbacks for one run of a comparison, which write their files into a folder of this run.

Otherwise the runs would overwrite one another's files and those of the user, and start from one another's backups.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import keras

from importance_sampling.callbacks import SamplingTensorBoard

# The callbacks that write files, with their subclasses, and the attribute that holds the path.
WRITERS = {
    keras.callbacks.ModelCheckpoint: "filepath",
    keras.callbacks.BackupAndRestore: "backup_dir",
    keras.callbacks.CSVLogger: "filename",
    keras.callbacks.TensorBoard: "log_dir",
    SamplingTensorBoard: "log_dir",
}


@contextmanager
def copies_of(callbacks: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield copies of callbacks that write into a temporary folder, which is removed at the end.

    Args:
        callbacks: callbacks of Keras, and lists of them.
    """
    with tempfile.TemporaryDirectory(prefix="importance_sampling-", ignore_cleanup_errors=True) as folder:
        copies = copy.deepcopy(list(callbacks))
        for index, callback in enumerate(_flat(copies)):
            redirect(callback, Path(folder) / str(index))
        try:
            yield copies
        finally:
            for callback in _flat(copies):
                if isinstance(callback, keras.callbacks.CSVLogger) and callback.csv_file is not None:
                    callback.csv_file.close()  # which is open after an error


def redirect(callback: Any, folder: Path) -> None:
    """Make a callback that writes files write into another folder. Other callbacks remain as they are.

    Args:
        callback: a callback; it is changed.
        folder: a folder that doesn't exist; it is created if the callback writes files.
    """
    for kind, attribute in WRITERS.items():
        old = getattr(callback, attribute, None)
        if isinstance(callback, kind) and old is not None:
            folder.mkdir()
            new = folder / (PurePath(old).name or attribute)
            # Paths inside the old one, which some callbacks derive from it when they are created.
            beginnings = tuple(f"{str(old).rstrip('/' + os.sep)}{separator}" for separator in {"/", os.sep})
            for name, value in list(vars(callback).items()):
                if name != attribute and isinstance(value, (str, PurePath)) and str(value).startswith(beginnings):
                    inside = new / str(value)[len(beginnings[0]) :]
                    setattr(callback, name, str(inside) if isinstance(value, str) else inside)
            setattr(callback, attribute, str(new) if isinstance(old, str) else new)


def _flat(callbacks: Sequence[Any]) -> Iterator[Any]:
    for callback in callbacks:
        inner = callback if isinstance(callback, (list, tuple)) else getattr(callback, "callbacks", None)
        if isinstance(inner, (list, tuple)):
            yield from _flat(inner)
        else:
            yield callback
