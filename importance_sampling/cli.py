"""The command `importance-sampling`: compare ways to train on the datasets and models of the library.

This module parses the arguments and writes the results. The package `comparison` trains the models.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from importance_sampling.comparison import Budget, Data, Task, check, compare, registry, report
from importance_sampling.comparison.progress import Progress
from importance_sampling.models import get
from importance_sampling.models.registry import BUILDERS

COMPARE = """\
Train each task in every way, with the same initial weights and the same budget: seconds of training, without evaluation
and compilation, or steps. For each task, write a table (Markdown), all measurements (CSV) and a plot (PNG).
"""
EPILOG = f"""\
A TASK is DATASET:MODEL, such as mnist:small_nn or cifar10:wide_resnet_28_2. Append options to the name of a dataset
with commas, and views of the dataset with a plus sign:
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: the command-line arguments; None (default) means those of the process.

    Returns:
        The exit status: 0, or 1 if a way failed. Invalid arguments exit the process with status 2.
    """
    parser, options = parse(arguments)
    try:
        tasks = [make_task(text, options) for text in options.tasks]
        for task in tasks:
            check(task)
        options.out.mkdir(parents=True, exist_ok=True)
    except Exception as error:
        # Keras raises an Exception, and not a subclass, if a download fails.
        remedy = "\nRead the dataset from a local file with --data." if type(error) is Exception else ""
        parser.error(f"{error}{remedy}")
    return max([run(task, options) for task in tasks])


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
    command.add_argument("tasks", nargs="+", metavar="TASK", help="DATASET:MODEL, see below")
    command.add_argument(
        "--ways", nargs="+", default=[registry.UNIFORM, "importance"], metavar="WAY", help="default: uniform importance"
    )
    budget = command.add_mutually_exclusive_group()
    budget.add_argument(
        "--seconds", type=positive(float), default=20.0, metavar="S", help="budget of each way; default: 20"
    )
    budget.add_argument(
        "--steps", type=positive(int), metavar="N", help="budget of each way in steps instead of seconds"
    )
    command.add_argument("--batch-size", type=positive(int), default=128, metavar="N", help="default: 128")
    command.add_argument(
        "--seeds", type=positive(int), default=1, metavar="N", help="number of runs of each way; default: 1"
    )
    command.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="read the datasets from this path instead of downloading them with Keras; the option path= of a dataset "
        "overrides it",
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
    """Create a task from its specification DATASET:MODEL.

    Raises:
        ValueError: the specification of the task or of a way is invalid.
    """
    dataset_spec, colon, model_name = text.rpartition(":")
    if not colon or not dataset_spec:
        raise ValueError(f"A task must be DATASET:MODEL, such as mnist:small_nn. Received: {text!r}")
    builder = get(model_name)
    ways = {way: registry.way(way) for way in options.ways}
    dataset = registry.dataset(dataset_spec, options.data)
    return Task(text, Data.of(dataset), lambda: builder(dataset.shape, dataset.output_size), ways, options.batch_size)


def run(task: Task, options: argparse.Namespace) -> int:
    """Train a task in all ways and write the results.

    Returns:
        The exit status: 0, or 1 if a way failed.
    """
    progress, runs, status = Progress(task.name), [], 0

    def done(run: dict, trainer: object) -> None:
        runs.append(run)
        progress.show_result(run)

    budget = Budget(options.steps, "steps") if options.steps else Budget(options.seconds)
    try:
        compare(task, budget, range(1, options.seeds + 1), done, progress.show_measurement)
    except Exception as error:
        sys.stderr.write(f"{task.name}: {type(error).__name__}: {error}\n")
        status = 1
    if runs:
        sys.stdout.write(report.write(runs, options.out, list(task.ways)) + "\n")
    return status
