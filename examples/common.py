"""The options and the training loop of the examples."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from importance_sampling.cli import positive
from importance_sampling.comparison import Budget, Clock, Data, Evaluation, Task, compare, fit_of, report
from importance_sampling.comparison.progress import Progress, status

QUICK = (512, 1)  # training samples and epochs
BATCH = 128
MAX_EPOCHS = 10**6  # never reached: the budget ends the training


@dataclass(frozen=True)
class Example:
    """An example script: data, a model, and a trainer.

    Attributes:
        name: str, the name of the script.
        text: str, the docstring of the script.
        load: function from the options to `Data`.
        build: function from the data to a compiled model.
        trainer: function from a model and the options to a trainer; with the option `uniform`, it returns the model.
        way: str, the name of the way to train with the trainer, default "importance".
        others: mapping from names to further ways. If it isn't empty, the script compares all ways.
        add_options: function that adds the options of this example to a parser.
        epochs: int, the default number of epochs.
        quick: pair of ints, training samples and epochs with `--quick`.
        error: as for `Task`.
        unit: as for `Task`.
        decay: as for `Task`.
        measurements: int, the number of measurements in a comparison.
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
        """Run the example as a script."""
        options = self.options()
        data = self.data(options)
        if self.others and not options.uniform:
            print(report.text(side_by_side(self, data, options), self.unit))
        else:
            fit(self, self.build(data), data, options)

    def options(self) -> argparse.Namespace:
        """Parse the command line, and set the global random seed."""
        parser = argparse.ArgumentParser(description=self.text.split("\n\n    python")[0])
        parser.add_argument("--uniform", action="store_true", help="train with model.fit")
        add_options(parser, f"default: {self.epochs}", self.quick)
        self.add_options(parser)
        options = parser.parse_args()
        if options.seed is not None:
            keras.utils.set_random_seed(options.seed)
        return options

    def data(self, options: argparse.Namespace) -> Data:
        """Load the data."""
        data = self.load(options)
        return data.first(self.quick[0]) if options.quick else data

    def length(self, data: Data, options: argparse.Namespace) -> tuple[int, int]:
        """Return the number of epochs and the total number of steps."""
        epochs = options.epochs or (self.quick[1] if options.quick else self.epochs)
        return epochs, epochs * -(-len(data.x_train) // BATCH)


def add_options(parser: argparse.ArgumentParser, default_budget: str, quick: tuple[int, int] = QUICK) -> None:
    """Add the options that all examples have."""
    rows, epochs = quick[0], f"{quick[1]} epochs" if quick[1] > 1 else "one epoch"
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--epochs", type=positive(int), metavar="N", help=f"epochs to train; {default_budget}")
    budget.add_argument("--seconds", type=positive(float), metavar="S", help="seconds to train, instead of epochs")
    parser.add_argument("--data", type=Path, metavar="FILE", help="local npz file in the format of Keras's mnist.npz")
    parser.add_argument("--seed", type=int, metavar="N", help="random seed, for reproducible runs of N epochs")
    parser.add_argument("--quick", action="store_true", help=f"use the first {rows} samples; default: {epochs}")


def fit(
    example: Example, model: keras.Model, data: Data, options: argparse.Namespace, callbacks: Sequence[Any] = ()
) -> None:
    """Train for the given epochs or seconds, and print the summary of the trainer."""
    trainer = example.trainer(model, options)
    if options.seconds:
        clock = Clock(
            trainer,
            Evaluation(data, example.error),
            options.seconds,
            measurements=5,
            decay=example.decay,
            measured=lambda clock: print(status(clock, example.unit), flush=True),
        )
        arguments = dict(epochs=MAX_EPOCHS, verbose=0, callbacks=[clock, *callbacks])
    else:
        epochs, steps = example.length(data, options)
        clock = Clock(trainer, no_evaluation, steps, by="steps", measurements=1, decay=example.decay)
        clocks = [clock] if example.decay else []
        validation = (data.x_test, data.y_test)
        arguments = dict(epochs=epochs, validation_data=validation, callbacks=[*clocks, *callbacks])
    fit_of(trainer, data)(data.x_train, data.y_train, batch_size=BATCH, **arguments)
    if trainer is not model:
        print(trainer.summary())


def no_evaluation(model: keras.Model) -> tuple[float, float, float]:
    """Return NaN as the evaluation of a clock; `fit` evaluates the model itself."""
    return (float("nan"),) * 3


def side_by_side(example: Example, data: Data, options: argparse.Namespace) -> list[dict]:
    """Train in all ways, with equal initial weights and equal budgets.

    Returns:
        The runs of `comparison.compare`, in the order of the ways.
    """

    def way(uniform: bool) -> Callable[[keras.Model, int], Any]:
        return lambda model, seed: example.trainer(model, argparse.Namespace(uniform=uniform, seed=seed))

    runs, progress = [], Progress(example.name, example.unit)

    def done(run: dict, trainer: Any) -> None:
        runs.append(run)
        progress.show_result(run)
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
    compare(
        task,
        budget,
        [1 if options.seed is None else options.seed],
        done,
        progress.show_measurement,
        example.measurements,
    )
    return sorted(runs, key=lambda run: list(ways).index(run["way"]))
