"""Train for a long time in one process: memory, traces and the state file must not grow, compared with `model.fit`.

    python tests/endurance/long_runs.py epochs --units 20000 --how model.fit ReshuffleTraining

Runs: `epochs`, many epochs of one `fit`; `fits`, `fit(epochs=1)` in a loop; `trainers`, new trainers of new models,
each trained for an epoch and dropped; `sizes`, `fit` on data of another size each time; `batches`, `fit` with another
batch size each time; `compiles`, `fit` after `compile`, which shows what the framework keeps of dropped steps.

Every run is a process. Memory is the resident set after Python's collector has run. Its slope is that of the second
half, with the standard error of least squares. Traces are the calls of a loss function, which is called while it is
compiled. Prints a row of a Markdown table for each way.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable

import keras
import numpy as np

from importance_sampling.training import ImportanceTraining, ReshuffleTraining

WAYS: dict[str, Callable] = {
    "model.fit": lambda model: model,
    "off": lambda model: ImportanceTraining(model, tau_th=float("inf")),
    "default": ImportanceTraining,
    "pools": lambda model: ImportanceTraining(model, tau_th=0, sampler="pool", seed=1),
    "ReshuffleTraining": lambda model: ReshuffleTraining(model, seed=1),
}
BATCH_SIZE, POINTS = 16, 100  # points of a run at which memory is measured
FEWEST = 5  # points of which a slope has a standard error
calls = 0  # of the loss function


def loss(y_true, y_pred):
    """Count the calls: when a step is traced, except on torch, where every step calls it."""
    global calls
    calls += 1
    return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)


def build(way: str) -> object:
    """Return a new trainer, or model."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", loss)
    return WAYS[way](model)


def data(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random rows and classes."""
    x = np.random.default_rng(0).normal(size=(rows, 6)).astype("float32")
    return x, (x[:, 0] > 0).astype("int32")


class Epochs(keras.callbacks.Callback):
    """Ends `fit` epoch by epoch: calls a function at the end of each."""

    def __init__(self, function: Callable[[], None]):
        super().__init__()
        self.function = function

    def on_epoch_end(self, epoch, logs=None):
        self.function()


def epochs(way: str, units: int, measure: Callable) -> None:
    trainer = build(way)
    callbacks = [Epochs(lambda: measure(trainer))]
    trainer.fit(*data(4 * BATCH_SIZE), BATCH_SIZE, units, verbose=0, callbacks=callbacks)


def fits(way: str, units: int, measure: Callable) -> None:
    trainer, xy = build(way), data(4 * BATCH_SIZE)
    for _ in range(units):
        trainer.fit(*xy, BATCH_SIZE, verbose=0)
        measure(trainer)


def trainers(way: str, units: int, measure: Callable) -> None:
    xy = data(4 * BATCH_SIZE)
    for _ in range(units):
        trainer = build(way)
        trainer.fit(*xy, BATCH_SIZE, verbose=0)
        measure(trainer)
        del trainer
        keras.backend.clear_session()


def sizes(way: str, units: int, measure: Callable) -> None:
    trainer, (x, y) = build(way), data(64 * BATCH_SIZE + units)
    for unit in range(units):
        rows = 4 * BATCH_SIZE + unit
        trainer.fit(x[:rows], y[:rows], BATCH_SIZE, verbose=0, steps_per_epoch=4)
        measure(trainer)


def batches(way: str, units: int, measure: Callable) -> None:
    trainer, xy = build(way), data(4 * (BATCH_SIZE + units))
    for unit in range(units):
        trainer.fit(*xy, BATCH_SIZE + unit, verbose=0, steps_per_epoch=1)
        measure(trainer)


def compiles(way: str, units: int, measure: Callable) -> None:
    trainer, xy = build(way), data(4 * BATCH_SIZE)
    for _ in range(units):
        getattr(trainer, "model", trainer).compile("sgd", loss)
        trainer.fit(*xy, BATCH_SIZE, verbose=0)
        measure(trainer)


RUNS = {run.__name__: run for run in (epochs, fits, trainers, sizes, batches, compiles)}


def resident_bytes() -> int:
    """Return the size of the process in memory."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Measurements:
    """Memory, traces and the size of the state file at some units of a run.

    Args:
        units: of the run.
        seconds: after which the run is ended.
    """

    def __init__(self, units: int, seconds: float):
        self.every, self.until = max(units // POINTS, 1), time.perf_counter() + seconds
        self.units, self.rows = 0, []

    def __call__(self, trainer: object) -> None:
        self.units += 1
        if self.units % self.every:
            return
        size = 0
        if hasattr(trainer, "save_state"):
            with tempfile.NamedTemporaryFile(suffix=".npz") as file:
                trainer.save_state(file.name)
                size = os.path.getsize(file.name)
        self.rows.append((self.units, resident_bytes(), calls, size))
        if time.perf_counter() > self.until:
            raise TimeoutError

    def cells(self) -> list[str]:
        """Return the units, memory at half and at the end, slope, traces and sizes of the state file."""
        units, memory, traces, size = np.array(self.rows, "float64").T
        half = len(units) // 2
        slope = "too few points"
        if len(units) - half >= FEWEST:
            (growth, _), covariance = np.polyfit(units[half:], memory[half:], 1, cov=True)
            slope = f"{growth:.0f} ± {covariance[0, 0] ** 0.5:.0f}"
        mib = memory / 2**20
        return [
            f"{self.units:,}",
            f"{mib[half]:.1f}",
            f"{mib[-1]:.1f}",
            slope,
            f"{traces[0]:.0f}, {traces[half]:.0f}, {traces[-1]:.0f}",
            f"{size[0]:.0f}, {size[-1]:.0f}" if size[-1] else "",
        ]


def forked(function: Callable[[], None]) -> None:
    """Run a function in a process of its own."""
    gc.collect()
    gc.freeze()  # what was imported isn't collected at each measurement
    pid = os.fork()
    if not pid:
        code = 1
        try:
            function()
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    if status := os.waitpid(pid, 0)[1]:
        raise SystemExit(f"The run ended with status {status}")


def report(run: str, way: str, units: int, seconds: float) -> None:
    """Train and print a row."""
    began, measurements = time.perf_counter(), Measurements(units, seconds)
    with contextlib.suppress(TimeoutError):
        RUNS[run](way, units, measurements)
    cells = [keras.config.backend(), run, way, *measurements.cells(), f"{time.perf_counter() - began:.0f}"]
    sys.stdout.write("| " + " | ".join(cells) + " |\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", choices=RUNS, metavar="RUN", help=", ".join(RUNS))
    parser.add_argument("--units", type=int, default=2000, help="epochs, fits or trainers (default: %(default)s)")
    parser.add_argument("--how", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("--seconds", type=float, default=3600, help="after which a run is ended (default: %(default)s)")
    options = parser.parse_args()
    sys.stdout.write("| backend | run | trained by | units | MiB at half | at the end | bytes a unit | ")
    sys.stdout.write("traces after the first, half, all | state file, bytes | s |\n" + "| --- " * 10 + "|\n")
    sys.stdout.flush()
    for run in options.runs:
        for way in options.how:
            forked(lambda run=run, way=way: report(run, way, options.units, options.seconds))


if __name__ == "__main__":
    main()
