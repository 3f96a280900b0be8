"""Common parts of the benchmarks that measure scores at several stages of training."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tasks
from analysis import markdown_table
from report import write_tables

STAGES = [0, 100, 300, 1000, 3000]  # training steps
QUICK = [0, 50, 200]


class Stages(keras.callbacks.Callback):
    """A callback that calls a function at given steps of training, and stops after the last one.

    Args:
        at: numbers of steps, ascending; 0 is the untrained model.
        measure: function of the number of steps.
    """

    def __init__(self, at: Sequence[int], measure: Callable[[int], None]):
        super().__init__()
        self.at, self.measure = tuple(at), measure
        self.steps = 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Measure the untrained model if requested."""
        self._measure()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Count the step, then measure or stop if requested."""
        self.steps += 1
        self._measure()
        if self.steps >= self.at[-1]:
            self.model.stop_training = True

    def _measure(self) -> None:
        if self.steps in self.at:
            self.measure(self.steps)


def parse(
    description: str, default_out: str, stages: Sequence[int] = STAGES, rows: int = 5120, seeds: int | None = None
) -> argparse.Namespace:
    """Parse the options: tasks, data, seed or seeds, rows, stages, quick, out.

    Args:
        description: the docstring of the script.
        default_out: the default of `--out`.
        stages: the default of `--stages`.
        rows: the default of `--rows`.
        seeds: the default of `--seeds`, the number of seeds; None (default): there is `--seed` instead.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=tasks.NAMES, default=["mnist_mlp", "mnist_cnn"])
    parser.add_argument("--data", type=Path, metavar="PATH", help="folder of the data files, or the path of mnist.npz")
    if seeds is None:
        parser.add_argument("--seed", type=int, default=1, metavar="N")
    else:
        parser.add_argument("--seeds", type=int, default=seeds, metavar="N", help="number of seeds")
    parser.add_argument("--rows", type=int, default=rows, metavar="N", help="number of training samples to score")
    parser.add_argument(
        "--stages", type=int, nargs="+", default=stages, metavar="STEPS", help="steps at which to measure, ascending"
    )
    parser.add_argument("--quick", action="store_true", help="about a minute: few steps, few samples, one task")
    parser.add_argument("--out", type=Path, default=Path(default_out), metavar="DIR")
    options = parser.parse_args()
    if options.quick:
        options.stages, options.rows, options.tasks = QUICK, min(options.rows, 1024), options.tasks[:1]
    return options


def sample_rows(data: Any, rows: int, seed: int) -> tuple[np.ndarray, Any, Any]:
    """Draw training samples at random, without replacement: `(indices, x, y)`."""
    size = len(data.x_train)
    indices = np.random.default_rng(seed).permutation(size)[: min(rows, size)]
    return indices, data.x_train[indices], data.y_train[indices]


def build_model(task: tasks.Task, path: Path | None, seed: int) -> keras.Model:
    """Build the model of a task with a given seed. `path` is that of the data files."""
    build = task.builder(path)
    keras.utils.set_random_seed(seed)
    model = build()
    model.optimizer.learning_rate = task.rate
    return model


def fit_through_stages(
    trainer: Any, data: Any, batch_size: int, at: Sequence[int], measure: Callable[[int], None], **options: Any
) -> None:
    """Train until the last stage, and measure at each of them.

    Args:
        trainer: a model or a trainer.
        data: `Data`.
        batch_size: int.
        at, measure: as for `Stages`.
        options: further arguments of `fit`.
    """
    callbacks = [Stages(at, measure)]
    epochs = 10**6  # more than the last stage needs
    trainer.fit(
        data.x_train, data.y_train, batch_size=batch_size, epochs=epochs, verbose=0, callbacks=callbacks, **options
    )


def write(rows: Sequence[Mapping], columns: Mapping[str, tuple[str, str]], first: str, out: Path, data: Any) -> None:
    """Write a table to `table.md` and its data to `table.json`, and print the table."""
    print(write_tables(out, data, table=markdown_table(rows, columns, first)))
