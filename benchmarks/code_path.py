"""Count the files, classes and changes of file that a `fit` of a few steps passes through, tracing included.

A reader who follows a `fit` through the code opens that many files; `files in a step` are those of its last step, which
was compiled before. `python benchmarks/code_path.py` prints one line for each kind of step, `--list` the names of the
files as well, with a star for those of a step. `default` has both kinds, a gate that decides between them, and
validation data.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
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
    "default": {},
}


class CodePath(NamedTuple):
    """The part of the package that ran."""

    files: list[str]  # relative to the package, in the order of their first call
    classes: int
    changes: int  # calls into another file than the call before
    in_step: list[str]  # the files of the last step


def measure(options: dict[str, Any]) -> CodePath:
    """Profile a `fit` of two steps; without options, of three epochs with validation data.

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
    y = x[:, :3].argmax(1)
    arguments = dict(steps_per_epoch=STEPS) if options else dict(epochs=3, validation_data=(x, y))
    calls: list[tuple[str, str | None]] = []
    begin, end = 0, 0  # of the last step, among the calls

    def profile(frame: Any, event: str, _: Any) -> None:
        nonlocal begin, end
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(PACKAGE):
            owner = frame.f_locals.get("self")
            calls.append((file.removeprefix(PACKAGE), None if owner is None else type(owner).__qualname__))
            begin = len(calls) if frame.f_code.co_name == "on_train_batch_begin" else begin
            end = len(calls) if frame.f_code.co_name == "on_epoch_end" and end < begin else end

    sys.setprofile(profile)
    try:
        trainer.fit(x, y, batch_size=BATCH_SIZE, verbose=0, **arguments)
    finally:
        sys.setprofile(None)
    files = list(dict.fromkeys(file for file, _ in calls))
    classes = {owner for _, owner in calls if owner is not None}
    changes = sum(one[0] != other[0] for one, other in itertools.pairwise(calls))
    in_step = list(dict.fromkeys(file for file, _ in calls[begin - 1 : end - 1]))
    return CodePath(files, len(classes), changes, in_step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="print the names of the files")
    arguments = parser.parse_args()
    for name, options in WAYS.items():
        path = measure(options)
        counts = f"{len(path.files):3} files {path.classes:3} classes {path.changes:4} changes of file"
        print(f"{name:10} {counts} {len(path.in_step):4} files in a step")
        if arguments.list:
            print("\n".join(f"    {'*' if file in path.in_step else ' '} {file}" for file in path.files))


if __name__ == "__main__":
    main()
