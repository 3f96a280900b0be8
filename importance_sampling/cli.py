"""The command `importance-sampling`: compare ways to train, on your own model or on those of the library.

This module parses the arguments and writes the results. The package `comparison` trains the models.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from importance_sampling.comparison import Data, compare, registry
from importance_sampling.models import get
from importance_sampling.models.registry import BUILDERS

COMPARE = """\
Train each task in every way, with the same initial weights and the same budget: seconds of training, without evaluation
and compilation, epochs or cost. Print a table and the verdict, and write them, all measurements (CSV) and a plot (PNG).
"""
EPILOG = f"""\
A TASK is MODULE:FUNCTION or DATASET:MODEL.

MODULE:FUNCTION is your own model: a function without arguments that returns a compiled model, in a module that Python
can import from the current folder. Set --data to its data:
  my_project.train:build_model --data my_project.train:load_data
  my_project.train:build_model --data arrays.npz
A function of --data returns (x, y), (x_validation, y_validation), as Keras's load_data functions do. A file has the
arrays x_train, y_train, x_test and y_test.

DATASET:MODEL is a task of the library, such as mnist:small_nn or cifar10:wide_resnet_28_2. Append options to the name
of a dataset with commas, and views of the dataset with a plus sign:
  canevet,N=512:small_nn
  cifar10+augmented,horizontal_flip=True,width_shift_range=0.1:wide_resnet_28_2

The options of each name are listed below it, with their defaults.

datasets:
{registry.describe(registry.DATASETS)}
views of a dataset:
{registry.describe(registry.VIEWS, 1)}
models:
{registry.describe(BUILDERS, 2)}

A WAY is a trainer with its options (score=, layer=, alpha=, ...), or a sampler with its options and score=, layer=,
tau_th= (a gate), k= (exponent of the importance weights: 1 is unbiased, lower values favour samples with high scores,
None means no weights). Append decorators of a sampler with a plus sign:
  importance,presample=5,score=loss
  reshuffle,alpha=0.2
  history-sampler,recompute=1,score=full_gnorm+power,power=0.5

trainers:
  {registry.UNIFORM}
      `fit` of the Keras model.
{registry.describe(registry.TRAINERS, 1)}
samplers:
{registry.describe(registry.SAMPLERS, 2)}
decorators of a sampler that smooth the scores:
{registry.describe(registry.SMOOTHING, 1)}
decorators of a sampler that start importance sampling:
{registry.describe(registry.CONDITIONS)}
"""


class Task(NamedTuple):
    """A model and its data, by the name on the command line."""

    name: str
    build: Callable[[], keras.Model]
    data: Data


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: the command-line arguments; None (default) means those of the process.

    Returns:
        The exit status: 0, or 1 if a task failed. Invalid arguments exit the process with status 2.
    """
    parser, options = parse(arguments)
    try:
        ways = {way: registry.way(way) for way in options.ways}
        tasks = [make_task(text, options) for text in options.tasks]
        for task in tasks:
            check(task, ways)
        options.out.mkdir(parents=True, exist_ok=True)
    except Exception as error:
        # Keras raises an Exception, and not a subclass, if a download fails.
        remedy = "\nRead the dataset from a local file with --data." if type(error) is Exception else ""
        parser.error(f"{error}{remedy}")
    return max([run(task, ways, options) for task in tasks])


def parse(arguments: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Parse the arguments. Return the parser, for error messages, and the options."""
    parser = argparse.ArgumentParser("importance-sampling", description="Importance sampling for Keras models.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    command = commands.add_parser(
        "compare",
        help="compare several ways to train with the same budget",
        description=COMPARE,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("tasks", nargs="+", metavar="TASK", help="MODULE:FUNCTION or DATASET:MODEL, see below")
    command.add_argument(
        "--ways", nargs="+", default=[registry.UNIFORM, "importance"], metavar="WAY", help="default: uniform importance"
    )
    budget = command.add_mutually_exclusive_group()
    budget.add_argument("--seconds", type=positive(float), metavar="S", help="budget of each way; default: 30")
    budget.add_argument("--epochs", type=positive(int), metavar="N", help="budget of each way in epochs")
    budget.add_argument(
        "--cost", type=positive(float), metavar="C", help="budget in forward passes of a batch; a uniform step costs 3"
    )
    command.add_argument("--batch-size", type=positive(int), default=128, metavar="N", help="default: 128")
    command.add_argument(
        "--seeds", type=positive(int), default=3, metavar="N", help="number of runs of each way; default: 3"
    )
    command.add_argument(
        "--data",
        metavar="PATH",
        help="the data of your own model, see below; or the path to read datasets from, instead of downloading them "
        "with Keras (the option path= of a dataset overrides it)",
    )
    command.add_argument(
        "--out", type=Path, default=Path("comparison"), metavar="DIR", help="output folder; default: comparison"
    )
    return command, parser.parse_args(arguments)


def positive(number_type: type) -> Callable[[str], float]:
    """Return an argparse type: a finite number above 0."""

    def read(text: str) -> float:
        value = number_type(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be above 0. Received: {text}")
        return value

    read.__name__ = number_type.__name__  # argparse uses it in error messages
    return read


def make_task(text: str, options: argparse.Namespace) -> Task:
    """Create a task from its specification MODULE:FUNCTION or DATASET:MODEL.

    Raises:
        ValueError: the specification is invalid.
    """
    first, colon, second = text.rpartition(":")
    if not colon or not first:
        raise ValueError(f"A task must be MODULE:FUNCTION, or DATASET:MODEL such as mnist:small_nn. Received: {text!r}")
    if re.split(r"[,+]", first)[0] in registry.DATASETS:
        builder = get(second)
        dataset = registry.dataset(first, options.data)
        return Task(text, lambda: builder(dataset.shape, dataset.output_size), Data.of(dataset))
    build = imported(text, f"a function, or a dataset of {', '.join(registry.DATASETS)}")
    return Task(text, build, user_data(options.data))


def user_data(place: str | None) -> Data:
    """Return the data of the user's own model.

    Args:
        place: path of an npz file, or MODULE:FUNCTION.

    Raises:
        ValueError: `place` is None, or doesn't name data.
    """
    if place is None:
        raise ValueError("Your own model needs --data: MODULE:FUNCTION, or an npz file. Received: no --data")
    if not place.endswith(".npz"):
        (x, y), (x_test, y_test) = imported(place, "a function that returns (x, y), (x_validation, y_validation)")()
        return Data(x, y, x_test, y_test)
    with np.load(place) as file:
        missing = [name for name in Data._fields if name not in file]
        if missing:
            raise ValueError(f"The file must have the arrays {', '.join(Data._fields)}. Received: {place} without them")
        return Data(*(file[name] for name in Data._fields))


def imported(text: str, kind: str) -> Callable:
    """Return the function that MODULE:FUNCTION names.

    Raises:
        ValueError: there is no such function. An error inside the module is raised as it is.
    """
    module_name, _, function_name = text.rpartition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module_name), function_name, None)
    except ModuleNotFoundError as error:
        if error.name != module_name.partition(".")[0] and error.name != module_name:
            raise
        function = None
    if not callable(function):
        raise ValueError(f"MODULE:FUNCTION must name {kind}. Received: {text!r}")
    return function


def check(task: Task, ways: dict[str, registry.Way]) -> None:
    """Check a task before training: build the model and all trainers, and evaluate the model on two samples.

    Raises:
        ValueError: an option of a way is unknown or out of range, there is no test set, or the model doesn't match the
            data.
    """
    x, y = task.data.x_test, task.data.y_test
    if not len(x):
        raise ValueError(
            f"A comparison needs a test set: use a dataset with test samples. Received: {task.name} with 0 test samples"
        )
    model = task.build()
    for way in ways.values():
        way(model, 0)
    model.evaluate(x[:2], y[:2], batch_size=2, verbose=0)


def run(task: Task, ways: dict[str, registry.Way], options: argparse.Namespace) -> int:
    """Compare the ways on a task and write the results.

    Returns:
        The exit status: 0, or 1 if an error occurred.
    """
    sys.stdout.write(f"{task.name}\n")
    try:
        comparison = compare(
            task.build,
            task.data.x_train,
            task.data.y_train,
            ways={name: follows_global_seed(way) for name, way in ways.items()},
            seconds=options.seconds,
            epochs=options.epochs,
            cost=options.cost,
            seeds=options.seeds,
            batch_size=options.batch_size,
            validation_data=(task.data.x_test, task.data.y_test),
        )
    except Exception as error:
        sys.stderr.write(f"{task.name}: {type(error).__name__}: {error}\n")
        return 1
    paths = comparison.save(options.out, re.sub(r"[^\w.=+-]+", "-", task.name))
    sys.stdout.write(f"{comparison}\n\nWritten: {', '.join(map(str, paths))}\n")
    return 0


def follows_global_seed(way: registry.Way) -> Callable[[keras.Model], Any]:
    """Return a way without a seed of its own."""
    return lambda model: way(model, None)
