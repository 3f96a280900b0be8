"""Count the files, classes and changes of file that two training steps pass through, tracing included.

A reader who follows a step through the code opens that many files. `python benchmarks/code_path.py` prints one line for
each kind of step; `--max-files` makes the command fail where a kind needs more.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import importance_sampling
from importance_sampling import ImportanceTraining

PACKAGE = str(Path(importance_sampling.__file__).parent) + os.sep
STEPS = 2
BATCH_SIZE = 16
WAYS: dict[str, dict] = {
    "uniform": {"tau_th": float("inf")},
    "pool": {"tau_th": 0.0},
    "reshuffle": {"tau_th": 0.0, "sampler": "reshuffle"},
}


class CodePath(NamedTuple):
    """The part of the package that ran."""

    files: list[str]  # relative to the package, in the order of their first call
    classes: int
    changes: int  # calls into another file than the call before


def measure(options: dict[str, Any]) -> CodePath:
    """Profile the first two steps of a `fit`.

    Args:
        options: of `ImportanceTraining`.

    Returns:
        `CodePath`.
    """
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(STEPS * 3 * BATCH_SIZE, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    trainer = ImportanceTraining(model, **options)
    calls: list[tuple[str, str | None]] = []
    trainer.fit(
        x,
        x[:, :3].argmax(1),
        batch_size=BATCH_SIZE,
        steps_per_epoch=STEPS,
        verbose=0,
        callbacks=[ProfiledSteps(profiler(calls))],
    )
    files = list(dict.fromkeys(file for file, _ in calls))
    classes = {owner for _, owner in calls if owner is not None}
    changes = sum(one[0] != other[0] for one, other in zip(calls, calls[1:], strict=False))
    return CodePath([file.removeprefix(PACKAGE) for file in files], len(classes), changes)


class ProfiledSteps(keras.callbacks.Callback):
    """Profiles everything between the beginning and the end of each step."""

    def __init__(self, profile: Callable):
        super().__init__()
        self.profile = profile

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Start to profile."""
        sys.setprofile(self.profile)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Stop."""
        sys.setprofile(None)


def profiler(calls: list) -> Callable:
    """Return a function for `sys.setprofile` that appends (file, class) of every call of the package to `calls`."""

    def profile(frame: Any, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(PACKAGE):
            owner = frame.f_locals.get("self")
            calls.append((file, None if owner is None else type(owner).__qualname__))

    return profile


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-files", type=int, help="fail where an importance step passes through more files")
    parser.add_argument("--list", action="store_true", help="print the names of the files")
    arguments = parser.parse_args()
    most = 0
    for name, options in WAYS.items():
        path = measure(options)
        most = max(most, len(path.files))
        print(f"{name:10} {len(path.files):3} files {path.classes:3} classes {path.changes:4} changes of file")
        if arguments.list:
            print("   ", "\n    ".join(path.files))
    return int(arguments.max_files is not None and most > arguments.max_files)


if __name__ == "__main__":
    sys.exit(main())
