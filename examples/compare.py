"""Train examples with and without importance sampling for the same time; write a table, a plot and all measurements.

    python examples/compare.py mnist_mlp imbalanced --data mnist.npz --seconds 20

The models have equal initial weights and are trained in turns of half a second, so a machine that slows down affects
both. Each model is trained by one call of `fit`; a callback counts the seconds, without evaluation and compilation.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from common import add_options, side_by_side

from importance_sampling.comparison import report

NAMES = (
    "mnist_mlp",
    "mnist_cnn",
    "mnist_lstm",
    "mnist_svrg",
    "mnist_svrg_cnn",
    "cifar10_resnet",
    "imbalanced",
)


def main() -> None:
    """Train the examples, print the tables and write the files."""
    examples = {name: import_module(name).EXAMPLE for name in NAMES}
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n    python")[0])
    parser.add_argument("names", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    add_options(parser, "default: 20 seconds of training for each way")
    for example in examples.values():
        example.add_options(parser)
    parser.add_argument("--out", type=Path, default=Path("."), metavar="DIR", help="output folder; default: .")
    options = parser.parse_args()
    if not (options.seconds or options.epochs):
        options.seconds = 20.0
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        example = examples[name]
        runs = side_by_side(example, example.data(options), options)
        print(report.write(runs, options.out, [run["way"] for run in runs], example.unit))


if __name__ == "__main__":
    main()
