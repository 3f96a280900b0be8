"""The command `importance-sampling`: compare ways to train on the library's data sets and models.

It reads what is asked for and writes what came of it; the work is done in `comparison`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from importance_sampling.comparison import Budget, Data, Task, check, compare, report
from importance_sampling.comparison import catalogue as known
from importance_sampling.comparison.progress import Progress
from importance_sampling.models import get
from importance_sampling.models.registry import BUILDERS

COMPARE = """\
Train each task in every way, from the same weights, by turns, for the same seconds of training (evaluation and
compilation don't count) or steps. Writes a table (Markdown), all measurements (CSV) and a picture (PNG) a task.
"""
EPILOG = f"""\
a TASK is DATASET:MODEL, such as mnist:small_nn or cifar10:wide_resnet_28_2. Options of a data set follow its name
after commas, and what is to be made of it after a plus:
  canevet,N=512:small_nn
  cifar10+augmented,horizontal_flip=True,width_shift_range=0.1:wide_resnet_28_2

Under each name are its options, with their defaults.

data sets:
{known.described(known.DATASETS)}
to be made of them:
{known.described(known.VIEWS, 1)}
models:
{known.described(BUILDERS, 2)}

a WAY is a trainer, with any of its options (score=, layer=, alpha=, ...), or a sampler by itself, with its options,
score=, layer=, tau_th= (a gate) and k= (of its weights: 1 unbiased, less leans towards hard samples, None unweighted):
  importance,presample=5,score=loss
  reshuffle,alpha=0.2
  history-sampler,recompute=1,score=full_gnorm+power,power=0.5

trainers:
  {known.UNIFORM}
      Keras's own `fit`.
{known.described(known.TRAINERS, 1)}
samplers:
{known.described(known.SAMPLERS, 2)}
around a sampler, smoothed scores:
{known.described(known.SMOOTHING, 1)}
around a sampler, when to start:
{known.described(known.CONDITIONS)}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: None: the process's.

    Returns:
        The exit status: 0, or 1 where a way failed. What is asked for wrongly exits with 2.
    """
    parser, options = parse(arguments)
    try:
        tasks = [task(text, options) for text in options.tasks]
        for one in tasks:
            check(one)
        options.out.mkdir(parents=True, exist_ok=True)
    except Exception as error:
        # Keras raises a plain Exception where it can't download.
        remedy = "\nRead the data set from a local file by --data." if type(error) is Exception else ""
        parser.error(f"{error}{remedy}")
    return max([run(one, options) for one in tasks])


def parse(arguments: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The options, and the parser to complain with."""
    parser = argparse.ArgumentParser("importance-sampling", description="Importance sampling for Keras models.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    command = commands.add_parser(
        "compare",
        help="train in several ways for the same time, and see how far each gets",
        description=COMPARE,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("tasks", nargs="+", metavar="TASK", help="DATASET:MODEL, see below")
    command.add_argument(
        "--ways", nargs="+", default=[known.UNIFORM, "importance"], metavar="WAY", help="default: uniform importance"
    )
    budget = command.add_mutually_exclusive_group()
    budget.add_argument("--seconds", type=positive(float), default=20.0, metavar="S", help="each way; default: 20")
    budget.add_argument("--steps", type=positive(int), metavar="N", help="each way, in place of seconds")
    command.add_argument("--batch-size", type=positive(int), default=128, metavar="N", help="default: 128")
    command.add_argument("--seeds", type=positive(int), default=1, metavar="N", help="runs of every way; default: 1")
    command.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="read the data sets from here, in place of the copy that Keras downloads and keeps; one data set of "
        "several is given its own by the option path=",
    )
    command.add_argument(
        "--out", type=Path, default=Path("comparison"), metavar="DIR", help="of what is written; default: comparison"
    )
    return command, parser.parse_args(arguments)


def positive(kind: type) -> Callable[[str], float]:
    """A type of argument: a finite number above 0."""

    def read(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be above 0. Received: {text}")
        return value

    read.__name__ = kind.__name__  # for argparse's own message
    return read


def task(text: str, options: argparse.Namespace) -> Task:
    """A task as written.

    Raises:
        ValueError: it, or a way, can't be made out.
    """
    dataset, colon, model = text.rpartition(":")
    if not colon or not dataset:
        raise ValueError(f"A task must be DATASET:MODEL, such as mnist:small_nn. Received: {text!r}")
    builder = get(model)
    ways = {way: known.way(way) for way in options.ways}
    rows = known.dataset(dataset, options.data)
    return Task(text, Data.of(rows), lambda: builder(rows.shape, rows.output_size), ways, options.batch_size)


def run(one: Task, options: argparse.Namespace) -> int:
    """Train a task in all ways, and write what came of it.

    Returns:
        0, or 1 where a way failed.
    """
    progress, runs, status = Progress(one.name), [], 0

    def done(run: dict, trainer: object) -> None:
        runs.append(run)
        progress.done(run)

    budget = Budget(options.steps, "steps") if options.steps else Budget(options.seconds)
    try:
        compare(one, budget, range(1, options.seeds + 1), done, progress.measured)
    except Exception as error:
        sys.stderr.write(f"{one.name}: {type(error).__name__}: {error}\n")
        status = 1
    if runs:
        sys.stdout.write(report.write(runs, options.out, list(one.ways)) + "\n")
    return status
