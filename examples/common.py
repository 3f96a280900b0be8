"""What the examples share: their options, and the training, one way or side by side."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from importance_sampling.cli import positive
from importance_sampling.comparison import Budget, Clock, Data, Evaluation, Task, compare, fit_of, report
from importance_sampling.comparison.progress import Progress, told

QUICK = (512, 1)  # rows and epochs
BATCH = 128
FOREVER = 10**6  # epochs


@dataclass(frozen=True)
class Example:
    """Data, a model, and the line that makes the difference.

    Attributes:
        name: str, the script's.
        text: str, its docstring.
        load: from the options to `Data`.
        build: from the data to a compiled model.
        trainer: from a model and the options to whatever has Keras's `fit`; the model itself with `uniform`.
        way: str, what training with it is called.
        others: further ways, by name; with these the example trains side by side.
        add_options: adds what options the example has of its own.
        epochs: int, the default.
        quick: rows and epochs, with `--quick`.
        error: as for `Task`.
        unit: as for `Task`.
        decay: as for `Task`.
        measurements: int, how many are made side by side; fewer where they take long.
    """

    name: str
    text: str
    load: Callable[[argparse.Namespace], Data]
    build: Callable[[Data], keras.Model]
    trainer: Callable[[keras.Model, argparse.Namespace], Any]
    way: str = "importance"
    others: Mapping[str, Callable[[keras.Model, int], Any]] = field(default_factory=dict)
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    epochs: int = 3
    quick: tuple[int, int] = QUICK
    error: Callable[[dict], float] | None = None
    unit: str = "%"
    decay: Callable[[float], float] | None = None
    measurements: int = 20

    def main(self) -> None:
        """Run as a script."""
        options = self.options()
        data = self.data(options)
        if self.others and not options.uniform:
            print(report.text(side_by_side(self, data, options), self.unit))
        else:
            fit(self, self.build(data), data, options)

    def options(self) -> argparse.Namespace:
        """Those that were given; the global random generators have the seed from here on."""
        parser = argparse.ArgumentParser(description=self.text.split("\n\n    python")[0])
        parser.add_argument("--uniform", action="store_true", help="train with model.fit")
        add_options(parser, f"default: {self.epochs}", self.quick)
        self.add_options(parser)
        options = parser.parse_args()
        if options.seed is not None:
            keras.utils.set_random_seed(options.seed)
        return options

    def data(self, options: argparse.Namespace) -> Data:
        """What is trained on."""
        data = self.load(options)
        return data.first(self.quick[0]) if options.quick else data

    def length(self, data: Data, options: argparse.Namespace) -> tuple[int, int]:
        """How many epochs to train, and how many steps these have."""
        epochs = options.epochs or (self.quick[1] if options.quick else self.epochs)
        return epochs, epochs * -(-len(data.x_train) // BATCH)


def add_options(parser: argparse.ArgumentParser, default_budget: str, quick: tuple[int, int] = QUICK) -> None:
    """The options that all examples have."""
    rows, epochs = quick[0], f"{quick[1]} epochs" if quick[1] > 1 else "one epoch"
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--epochs", type=positive(int), metavar="N", help=f"how long to train; {default_budget}")
    budget.add_argument("--seconds", type=positive(float), metavar="S", help="the same in seconds of training")
    parser.add_argument("--data", type=Path, metavar="FILE", help="a local npz file in the layout of Keras's mnist.npz")
    parser.add_argument("--seed", type=int, metavar="N", help="makes a run of N epochs repeatable")
    parser.add_argument("--quick", action="store_true", help=f"the first {rows} rows, {epochs} unless told otherwise")


def fit(
    example: Example, model: keras.Model, data: Data, options: argparse.Namespace, callbacks: Sequence[Any] = ()
) -> None:
    """Train for the epochs, or seconds, asked for, and say what the trainer did."""
    trainer = example.trainer(model, options)
    if options.seconds:
        clock = Clock(
            trainer,
            Evaluation(data, example.error),
            options.seconds,
            measurements=5,
            decay=example.decay,
            measured=lambda clock: print(told(clock, example.unit), flush=True),
        )
        arguments = dict(epochs=FOREVER, verbose=0, callbacks=[clock, *callbacks])
    else:
        epochs, steps = example.length(data, options)
        clock = Clock(trainer, unmeasured, steps, by="steps", measurements=1, decay=example.decay)
        clocks = [clock] if example.decay else []
        validation = (data.x_test, data.y_test)
        arguments = dict(epochs=epochs, validation_data=validation, callbacks=[*clocks, *callbacks])
    fit_of(trainer, data)(data.x_train, data.y_train, batch_size=BATCH, **arguments)
    if trainer is not model:
        print(trainer.summary())


def unmeasured(model: keras.Model) -> tuple[float, float, float]:
    """What a clock measures where Keras does."""
    return (float("nan"),) * 3


def side_by_side(example: Example, data: Data, options: argparse.Namespace) -> list[dict]:
    """Train in all ways, from the same weights and by turns, for the same budget each.

    Returns:
        The runs, as `comparison.compare` makes them, in the order of the ways.
    """

    def way(uniform: bool) -> Callable[[keras.Model, int], Any]:
        return lambda model, seed: example.trainer(model, argparse.Namespace(uniform=uniform, seed=seed))

    runs, progress = [], Progress(example.name, example.unit)

    def done(run: dict, trainer: Any) -> None:
        runs.append(run)
        progress.done(run)
        if not isinstance(trainer, keras.Model):
            print(f"{run['way']}: {trainer.summary()}")

    ways = {"uniform": way(uniform=True), example.way: way(uniform=False), **example.others}
    task = Task(
        example.name,
        data,
        lambda: example.build(data),
        ways,
        error=example.error,
        unit=example.unit,
        decay=example.decay,
    )
    budget = Budget(options.seconds) if options.seconds else Budget(example.length(data, options)[1], "steps")
    compare(task, budget, [1 if options.seed is None else options.seed], done, progress.measured, example.measurements)
    return sorted(runs, key=lambda run: list(ways).index(run["way"]))
