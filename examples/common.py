"""The options of the examples, and the comparison that they run."""

from __future__ import annotations

from quiet import keras  # isort: skip  # before everything that imports TensorFlow

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loading import Unavailable

from importance_sampling import compare
from importance_sampling.cli import positive
from importance_sampling.comparison import Comparison, Data

QUICK_ROWS = 512


@dataclass(frozen=True)
class Example:
    """An example script: data, a model, and a trainer that is compared with `model.fit`.

    Attributes:
        name: str, the name of the script.
        text: str, the docstring of the script.
        load: function from the options to `Data`.
        build: function from the data to a compiled model.
        trainer: function from a model to a trainer.
        way: str, the name of the way to train with the trainer, default "importance".
        others: mapping from names to further ways.
        add_options: function that adds the options of this example to a parser.
        batch_size: int, default 128.
        seconds: float, the default training time of each way and seed.
        offline: the example to run instead if the data can't be downloaded, or None (default).
    """

    name: str
    text: str
    load: Callable[[argparse.Namespace], Data]
    build: Callable[[Data], keras.Model]
    trainer: Callable[[keras.Model], Any]
    way: str = "importance"
    others: Mapping[str, Callable[[keras.Model], Any]] = field(default_factory=dict)
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    batch_size: int = 128
    seconds: float = 20.0
    offline: Example | None = None

    def main(self) -> None:
        """Run the example as a script."""
        options, example = self.options(), self
        try:
            data = self.data(options)
        except Unavailable as error:
            if self.offline is None:
                raise
            print(f"{error}\nTraining on other data: examples/{self.offline.name}.py.")
            example, data = self.offline, self.offline.data(options)
        comparison = example.compare(data, options)
        paths = comparison.save(options.out, example.name)
        print(f"\n{comparison}\n\nWritten: {', '.join(map(str, paths))}")

    def compare(self, data: Data, options: argparse.Namespace) -> Comparison:
        """Train in all ways, with equal initial weights and equal budgets."""
        seconds = None if options.epochs else options.seconds or self.seconds
        budget = f"{options.epochs} epochs" if options.epochs else f"{seconds:g} seconds"
        ways = {"uniform": lambda model: model, self.way: self.trainer, **self.others}
        print(f"Training {len(ways)} ways, {budget} each, {options.seeds} times; evaluation not counted.", flush=True)
        return compare(
            lambda: self.build(data),
            data.x_train,
            data.y_train,
            ways=ways,
            seconds=seconds,
            epochs=options.epochs,
            seeds=options.seeds,
            batch_size=self.batch_size,
            validation_data=(data.x_test, data.y_test),
            validation_batch_size=1000,
        )

    def options(self) -> argparse.Namespace:
        """Parse the command line."""
        parser = argparse.ArgumentParser(description=self.text.split("\n\n    python")[0])
        budget = parser.add_mutually_exclusive_group()
        budget.add_argument(
            "--seconds", type=positive(float), metavar="S", help=f"training time of each way; default: {self.seconds:g}"
        )
        budget.add_argument("--epochs", type=positive(int), metavar="N", help="epochs of each way, instead of seconds")
        parser.add_argument("--seeds", type=positive(int), default=3, metavar="N", help="runs of each way; default: 3")
        parser.add_argument("--quick", action="store_true", help=f"use the first {QUICK_ROWS} samples")
        add_options(parser)
        self.add_options(parser)
        return parser.parse_args()

    def data(self, options: argparse.Namespace) -> Data:
        """Load the data."""
        data = self.load(options)
        return data.first(QUICK_ROWS) if options.quick else data


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for files."""
    parser.add_argument("--data", type=Path, metavar="FILE", help="local npz file in the format of Keras's mnist.npz")
    parser.add_argument("--out", type=Path, default=Path("."), metavar="DIR", help="output folder; default: .")
