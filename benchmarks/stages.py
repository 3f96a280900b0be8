"""A network looked at while it is trained: what the scripts that measure scores at several stages have in common.

Nothing is measured here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tasks
from figures import table

STAGES = [0, 100, 300, 1000, 3000]  # training steps
QUICK = [0, 50, 200]


class Stages(keras.callbacks.Callback):
    """Looks at the model after certain numbers of training steps, and stops after the last.

    Args:
        at: numbers of steps, ascending; 0 is the untrained model.
        look: called with the number of steps.
    """

    def __init__(self, at: Sequence[int], look: Callable[[int], None]):
        super().__init__()
        self.at, self.look = tuple(at), look
        self.steps = 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Look at the untrained model."""
        self._look()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Count, look, stop."""
        self.steps += 1
        self._look()
        if self.steps >= self.at[-1]:
            self.model.stop_training = True

    def _look(self) -> None:
        if self.steps in self.at:
            self.look(self.steps)


def parse(description: str, default_out: str) -> argparse.Namespace:
    """The options: tasks, data, seed, stages, rows, out."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=tasks.NAMES, default=["mnist_mlp", "mnist_cnn"])
    parser.add_argument("--data", type=Path, metavar="FILE", help="a local npz in the layout of Keras's mnist.npz")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--rows", type=int, default=5120, metavar="N", help="how many training rows are looked at")
    parser.add_argument(
        "--stages", type=int, nargs="+", default=STAGES, metavar="STEPS", help="when to look, ascending"
    )
    parser.add_argument("--quick", action="store_true", help="a minute's look: few steps, few rows, one network")
    parser.add_argument("--out", type=Path, default=Path(default_out), metavar="DIR")
    options = parser.parse_args()
    if options.quick:
        options.stages, options.rows, options.tasks = QUICK, min(options.rows, 1024), options.tasks[:1]
    return options


def looked_at(data: Any, rows: int, seed: int) -> tuple[np.ndarray, Any, Any]:
    """Training rows in random order: their indices, and `(x, y)` of them."""
    size = len(data.x_train)
    indices = np.random.default_rng(seed).permutation(size)[: min(rows, size)]
    return indices, data.x_train[indices], data.y_train[indices]


def built(task: tasks.Task, seed: int) -> keras.Model:
    """The task's model as its seed makes it."""
    keras.utils.set_random_seed(seed)
    model = task.build()
    model.optimizer.learning_rate = task.rate
    return model


def write(rows: Sequence[Mapping], columns: Mapping[str, tuple[str, str]], first: str, out: Path) -> None:
    """Write `table.md`, and print it."""
    text = table(rows, columns, first)
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)
