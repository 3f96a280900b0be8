"""Compare trainers with `model.fit` at equal cost, on small training sets, at a learning rate that decays.

    python benchmarks/equal_cost.py --quick --data DIR
    python benchmarks/equal_cost.py --tasks satellite shuttle --seeds 5 --data DIR --out OUT

All ways of a seed have the same initial weights, and are trained for the cost of a number of epochs of `model.fit`,
counted in forward passes of a batch, where a backward pass counts as two. The learning rate follows a cosine to zero.
`uniform` is `model.fit`, `default` is `ImportanceTraining`; the other names are those of the trainers.
`selective-backprop, 90%` selects samples in all steps of the first 90 % of the epochs; by default it does so in a fifth
of the steps. On tasks with rare classes there are also `quota`, `quota balanced` (with `balanced=True`) and `class
weights`, which is `model.fit` with class weights by which all classes count equally; and the balanced error, the mean
of the errors of the classes.

Results are appended to OUT/results.jsonl and aren't repeated.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tasks
from analysis import LOSSES, markdown_table, own_spread, summarise_ways
from budget_runs import make_parser, sampled, settings, train_runs
from report import write_tables
from results import Results

from importance_sampling.comparison import identical_models
from importance_sampling.comparison.registry import way
from importance_sampling.utils.classes import parse_classes

TASKS = ("satellite", "shuttle", "ratings", "flights", "late_flights", "mnist_mlp", "mnist_two_rare")
WAYS: dict[str, Callable[[keras.Model, int], Any]] = {
    "uniform": way("uniform"),
    "default": way("importance"),
    "reshuffle": way("reshuffle"),
    "robust": way("robust"),
    "robust, width 0": way("robust,width=0"),
    "selective-backprop": way("selective-backprop"),
    "selective-backprop, 90%": way("selective-backprop,start=0.0,interrupt=0"),
    "hard-examples": way("hard-examples"),
}
FOR_RARE_CLASSES: dict[str, Callable[[keras.Model, int], Any]] = {
    "quota": way("quota"),
    "quota balanced": way("quota,balanced=True"),
    "class weights": lambda model, seed: ClassWeights(model),
}
EPOCH_COSTS = {  # uniform epoch = 1; of the ways whose schedule depends on the number of epochs
    "selective-backprop": 1 - 0.4 / 2 / 6,  # of 40 % of the epochs every other step costs 1/3 + 1/2
    "selective-backprop, 90%": 1 - 0.9 / 6,
}
BALANCED = {
    "balanced_error": ("balanced error, %", ".1f"),
    "balanced_error over uniform": ("balanced error / uniform", ".3f"),
}
QUICK_EPOCHS = 2


class ClassWeights:
    """`model.fit` with class weights by which all classes count equally.

    Args:
        model: a compiled model.
    """

    def __init__(self, model: keras.Model):
        self.model = model

    def fit(self, x: Any, y: Any, **arguments: Any) -> keras.callbacks.History:
        """Train with Keras's arguments."""
        counts = np.bincount(parse_classes(np.asarray(y))[0])
        occurring = np.flatnonzero(counts)
        weights = {int(label): counts.sum() / (len(occurring) * counts[label]) for label in occurring}
        return self.model.fit(x, y, class_weight=weights, **arguments)


def main() -> None:
    """Run the missing runs and write the tables."""
    parser = make_parser("equal_cost", __doc__, TASKS)
    parser.add_argument("--ways", nargs="+", choices=[*WAYS, *FOR_RARE_CLASSES], default=[*WAYS, *FOR_RARE_CLASSES])
    parser.add_argument("--epochs", type=int, default=16, metavar="N", help="whose cost is the budget")
    options = parser.parse_args()
    if options.quick:
        options.tasks, options.seeds, options.epochs = options.tasks[:1], 1, QUICK_EPOCHS
    results = Results(options.out / "results.jsonl")
    wanted = [
        settings(name, way, seed, options.epochs)
        for seed in range(1, options.seeds + 1)
        for name in options.tasks
        for way in ways_of(tasks.get(name))
        if way in options.ways
    ]
    for run in results.missing(wanted):  # one by one, so that the result doesn't depend on the other ways
        train_one(run, results, options)
    print(write_report(results.of(wanted), options.out))


def ways_of(task: tasks.Task) -> dict[str, Callable[[keras.Model, int], Any]]:
    """Return the ways to train for a task, by name."""
    return WAYS | FOR_RARE_CLASSES if task.has_rare_classes else WAYS


def train_one(run: Mapping, results: Results, options: argparse.Namespace) -> None:
    """Train in one way, and add the result."""
    task = tasks.get(run["task"])
    data = sampled(task.load(options.data), options.rows).as_tensors()
    (model,) = identical_models(task.builder(options.data), 1, run["seed"])
    cost = EPOCH_COSTS.get(run["way"])
    epochs = None if cost is None else math.ceil(run["budget"] / cost)
    train_runs([run], [ways_of(task)[run["way"]](model, run["seed"])], data, results, epochs=epochs)


def write_report(runs: Sequence[Mapping], out: Path) -> str:
    """Write the tables, and return them."""
    groups, rows, with_rare_classes = [], [], []
    for name in dict.fromkeys(run["task"] for run in runs):
        of_task = [run for run in runs if run["task"] == name]
        ways = summarise_ways(of_task, ("uniform",))
        groups.append(dict(task=name, unit=tasks.get(name).unit, ways=ways))
        compared = own_spread(ways, "uniform")
        named = [dict(row, way=f"`{name}`, {row['way']}") for row in compared]
        rows += [row for row, original in zip(named, compared, strict=True) if original["way"] in WAYS]
        with_rare_classes += named if tasks.get(name).has_rare_classes else []
    table = markdown_table(rows, LOSSES, "task, way")
    rare = markdown_table(with_rare_classes, BALANCED | LOSSES, "task, way")
    return write_tables(out, groups, table=table, rare_classes=rare)


if __name__ == "__main__":
    main()
