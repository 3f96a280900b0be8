"""The implementation of `importance-sampling compare`: create the tasks, check them, train and write the results."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TextIO

import keras
import numpy as np

from importance_sampling.comparison import registry
from importance_sampling.comparison.arguments import rows_of
from importance_sampling.comparison.data import Data
from importance_sampling.comparison.figure import check_mode, figure_of
from importance_sampling.comparison.progress import is_shown, logger
from importance_sampling.comparison.result import Comparison
from importance_sampling.comparison.user_task import compare
from importance_sampling.models import get
from importance_sampling.models.registry import BUILDERS

Ways = dict[str, registry.Way]


class Task(NamedTuple):
    """A model and its data, by the name on the command line."""

    name: str
    build: Callable[[], keras.Model]
    data: Data


def names() -> str:
    """Return all names that a command can use, with their options and defaults, as text."""
    return f"""\
DATASETS
{registry.describe(registry.DATASETS)}
VIEWS OF A DATASET
{registry.describe(registry.VIEWS, 1)}
MODELS
{registry.describe(BUILDERS, 2)}
TRAINERS
  {registry.UNIFORM}
      `fit` of the Keras model.
{registry.describe(registry.TRAINERS, 1)}
SAMPLERS
{registry.describe(registry.SAMPLERS, 2)}
DECORATORS OF A SAMPLER THAT SMOOTH THE SCORES
{registry.describe(registry.SMOOTHING, 1)}
DECORATORS OF A SAMPLER THAT START IMPORTANCE SAMPLING
{registry.describe(registry.CONDITIONS)}"""


def prepare(options: argparse.Namespace) -> tuple[list[Task], Ways]:
    """Return the tasks and the ways to train, after checking them.

    Raises:
        ValueError: a name or an option is unknown or out of range, or a model doesn't match its data.
        Exception: a dataset could not be downloaded. The remedy is part of the message.
    """
    ways = {way: registry.way(way) for way in options.ways}
    try:
        tasks = [make_task(text, options.data) for text in options.tasks]
    except Exception as error:
        if type(error) is Exception:  # what Keras raises if a download fails
            raise Exception(f"{error}\nRead the dataset from a local file with --data.") from error
        raise
    for task in tasks:
        check(task, ways, options.monitor, options.mode)
    options.out.mkdir(parents=True, exist_ok=True)
    return tasks, ways


def make_task(text: str, place: str | None) -> Task:
    """Create a task from its specification MODULE:FUNCTION or DATASET:MODEL.

    Raises:
        ValueError: the specification is invalid.
    """
    first, colon, second = text.rpartition(":")
    if not colon or not first:
        raise ValueError(f"A task must be MODULE:FUNCTION, or DATASET:MODEL such as mnist:small_nn. Received: {text!r}")
    if re.split(r"[,+]", first)[0] in registry.DATASETS:
        builder = get(second)
        dataset = registry.dataset(first, place)
        return Task(text, lambda: builder(dataset.shape, dataset.output_size), Data.of(dataset))
    build = imported(text, f"a function, or a dataset of {', '.join(registry.DATASETS)}")
    return Task(text, build, user_data(place))


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


def check(task: Task, ways: Ways, monitor: str | None = None, mode: str = "auto") -> None:
    """Check a task before training: build the model and all trainers, and evaluate the model on two samples.

    Raises:
        ValueError: an option of a way is unknown or out of range, there is no test set, the model doesn't match the
            data, or it has no figure of the name `monitor`.
    """
    x, y = task.data.x_test, task.data.y_test
    if not keras.tree.flatten(x)[0].shape[0]:
        raise ValueError(
            f"A comparison needs a test set: use a dataset with test samples. Received: {task.name} with 0 test samples"
        )
    model = task.build()
    for way in ways.values():
        way(model, 0)
    results = model.evaluate(rows_of(x, 0, 2), rows_of(y, 0, 2), batch_size=2, verbose=0, return_dict=True)
    check_mode(monitor, mode)
    if monitor is not None:
        figure_of(monitor, mode, "val_", results, model)


def run(task: Task, ways: Ways, options: argparse.Namespace) -> int:
    """Compare the ways on a task and write the results.

    Returns:
        The exit status: 0, or 1 if an error occurred.
    """
    sys.stdout.write(f"{task.name}\n")
    try:
        with log_on(sys.stderr):
            comparison = _compare(task, ways, options)
    except Exception as error:
        sys.stderr.write(f"{task.name}: {type(error).__name__}: {error}\n")
        return 1
    paths = comparison.save(options.out, re.sub(r"[^\w.=+-]+", "-", task.name))
    sys.stdout.write(f"{comparison}\n\nWritten: {', '.join(map(str, paths))}\n")
    return 0


def _compare(task: Task, ways: Ways, options: argparse.Namespace) -> Comparison:
    return compare(
        task.build,
        task.data.x_train,
        task.data.y_train,
        ways={name: follows_global_seed(way) for name, way in ways.items()},
        seconds=options.seconds,
        epochs=options.epochs,
        cost=options.cost,
        seeds=options.seeds,
        monitor=options.monitor,
        mode=options.mode,
        batch_size=options.batch_size,
        validation_data=(task.data.x_test, task.data.y_test),
    )


@contextlib.contextmanager
def log_on(stream: TextIO) -> Iterator[None]:
    """Write the log of comparisons to a stream, unless a progress bar is shown."""
    if is_shown():
        yield
        return
    handler, level = logging.StreamHandler(stream), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def follows_global_seed(way: registry.Way) -> Callable[[keras.Model], Any]:
    """Return a way without a seed of its own."""
    return lambda model: way(model, None)
