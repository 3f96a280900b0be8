"""The command `importance-sampling`: compare ways to train, on your own model or on those of the library.

This module parses the arguments. Keras is imported only after that, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from importance_sampling import __version__

COMPARE = """\
Train each task in every way, with the same initial weights and the same budget: seconds of training, without evaluation
and compilation, epochs or cost. Print a table and the verdict, and write them, all measurements (CSV) and a plot (PNG).
"""
EPILOG = """\
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

A WAY is a trainer with its options (score=, layer=, alpha=, ...), or a sampler with its options and score=, layer=,
tau_th= (a gate), k= (exponent of the importance weights: 1 is unbiased, lower values favour samples with high scores,
None means no weights). Append decorators of a sampler with a plus sign:
  importance,presample=5,score=loss
  reshuffle,alpha=0.2
  history-sampler,recompute=1,score=full_gnorm+power,power=0.5

`importance-sampling names` lists all datasets, models, trainers and samplers, with their options and defaults.
"""


class Parser(argparse.ArgumentParser):
    """Suggests the closest option in place of an unknown one, and refuses abbreviated options."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def parse_known_args(self, args=None, namespace=None):
        """Parse the arguments; an unknown option is an error with the name of the closest option."""
        options, unknown = super().parse_known_args(args, namespace)
        for text in unknown:
            known = [option[2:] for option in self._option_string_actions if option.startswith("--")]
            close = difflib.get_close_matches(text.partition("=")[0].lstrip("-"), known, 1)
            if close:
                self.error(f"unknown option {text}. Did you mean --{close[0]}?")
        return options, unknown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: the command-line arguments; None (default) means those of the process.

    Returns:
        The exit status: 0, or 1 if a task failed. Invalid arguments exit the process with status 2.
    """
    parser, options = parse(arguments)
    from importance_sampling.comparison import command

    if options.command == "names":
        sys.stdout.write(f"{command.names()}\n")
        return 0
    try:
        tasks, ways = command.prepare(options)
    except Exception as error:
        parser.error(str(error))
    return max([command.run(task, ways, options) for task in tasks])


def parse(arguments: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Parse the arguments. Return the parser of `compare`, for error messages, and the options."""
    parser = Parser("importance-sampling", description="Importance sampling for Keras models.")
    parser.add_argument("--version", action="version", version=f"keras-importance-sampling {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")
    commands.add_parser("names", help="list the datasets, models, trainers and samplers, with their options")
    command = commands.add_parser(
        "compare", help="compare several ways to train with the same budget", description=COMPARE, epilog=EPILOG
    )
    command.add_argument("tasks", nargs="+", metavar="TASK", help="MODULE:FUNCTION or DATASET:MODEL, see below")
    command.add_argument(
        "--ways", nargs="+", default=["uniform", "importance"], metavar="WAY", help="default: uniform importance"
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
        "--monitor",
        metavar="NAME",
        help="the figure by which the ways are compared, such as val_accuracy; default: the validation loss",
    )
    command.add_argument(
        "--mode",
        choices=["auto", "min", "max"],
        default="auto",
        help="whether lower or higher values of --monitor are better; default: auto, as Keras infers it",
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
