"""Trainers beside other processes: data that workers read, by fork and by spawn, and training in a worker.

    KERAS_BACKEND=torch python tests/endurance/processes.py

`workers`: a `PyDataset(workers=2, use_multiprocessing=True)`; `executor`: the trainer itself runs in a worker of a
`ProcessPoolExecutor`. Weights must equal those of a training in one process. Each case is a process that is ended after
some time, because a fork of a process with threads may hang, with `model.fit` as well.
Prints a row of a Markdown table for each case.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np

from importance_sampling import ImportanceTraining

WAYS = {"model.fit": lambda model: model, "pools": lambda model: ImportanceTraining(model, tau_th=0, seed=1)}
CASES = [(what, method) for what in ("workers", "executor") for method in ("fork", "spawn")]


class Batches(keras.utils.PyDataset):
    """Random batches, by their number."""

    def __len__(self):
        return 24

    def __getitem__(self, index):
        x = np.random.default_rng(index).normal(size=(16, 6)).astype("float32")
        return x, (x[:, 0] > 0).astype("int32")


def train(way: str, **options) -> list[np.ndarray]:
    """Return the weights after two epochs."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    trainer = WAYS[way](model)
    trainer.fit(Batches(**options), epochs=2, verbose=0, shuffle=False)
    assert trainer is model or trainer.importance_steps, trainer.summary()
    return model.get_weights()


def case(way: str, what: str, method: str) -> bool:
    """Return True if training beside other processes gives the weights of training in one."""
    if what == "workers":
        multiprocessing.set_start_method(method)
        found, expected = train(way, workers=2, use_multiprocessing=True), train(way)
    else:
        context = multiprocessing.get_context(method)
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
            found = executor.submit(train, way).result()
        expected = train(way)  # afterwards: a framework that has run can't be forked
    return all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def run(command: list[str], seconds: float) -> str:
    """Run a command for some time; return what it writes, its error, or that it hasn't ended by then."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        try:
            written, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # also its workers
            return "not ended in time"
    return (errors.strip().splitlines() or ["ended"])[-1] if process.returncode else written


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs=3, metavar=("WAY", "WHAT", "METHOD"), help="run one case in this process")
    parser.add_argument("--seconds", type=float, default=120, help="after which a case is ended (default: %(default)s)")
    options = parser.parse_args()
    if options.case:
        sys.stdout.write("equal" if case(*options.case) else "differ")
        return 0
    sys.stdout.write("| backend | what | start method | trained by | weights | s |\n" + "| --- " * 6 + "|\n")
    for what, method in CASES:
        for way in WAYS:
            began = time.perf_counter()
            command = [sys.executable, __file__, "--case", way, what, method]
            outcome = run(command, options.seconds)
            seconds = time.perf_counter() - began
            sys.stdout.write(f"| {keras.config.backend()} | {what} | {method} | {way} | {outcome} | {seconds:.0f} |\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
