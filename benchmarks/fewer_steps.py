"""Can importance sampling replace steps? Train with fewer steps, at the usual learning rate and at a higher one.

    python benchmarks/fewer_steps.py --quick --data DIR
    python benchmarks/fewer_steps.py --data DIR --out OUT

The learning rate follows a cosine to zero over the steps of a run. `uniform` is `model.fit`, `reshuffle` is
`ReshuffleTraining`, whose steps cost as much. A gain that `uniform` has as well, with as few steps or at the same
rate, isn't due to importance sampling. Results are appended to OUT/results.jsonl and aren't repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import tasks
from analysis import LOSSES, markdown_table, own_spread, summarise_ways
from budget_runs import make_parser, sampled, settings, train_runs
from report import write_tables
from results import Results

from importance_sampling.comparison import identical_models
from importance_sampling.comparison.registry import way

TASKS = ("satellite", "shuttle", "ratings", "flights", "late_flights", "mnist_mlp")
EPOCHS, FEWER = 16, 10
BASELINE = "uniform"


class Plan(NamedTuple):
    """A way to train: the trainer, the epochs whose cost is the budget, and the learning rate as a multiple."""

    trainer: str
    epochs: int
    factor: float = 1.0

    @property
    def name(self) -> str:
        """The name in tables."""
        steps = "" if self.epochs == EPOCHS else f", {self.epochs} of {EPOCHS} epochs"
        rate = "" if self.factor == 1 else f", {self.factor:g} times the rate"
        return f"{self.trainer}{steps}{rate}"


PLANS = [Plan(BASELINE, EPOCHS), Plan(BASELINE, EPOCHS, 2.0)]
PLANS += [Plan(trainer, FEWER, factor) for trainer in (BASELINE, "reshuffle") for factor in (1.0, 2.0)]


def main() -> None:
    """Run the missing runs and write the table."""
    parser = make_parser("fewer_steps", __doc__, TASKS)
    options = parser.parse_args()
    if options.quick:
        options.tasks, options.seeds = options.tasks[:1], 1
    results = Results(options.out / "results.jsonl")
    plans = {
        (task, plan.name, seed): plan
        for seed in range(1, options.seeds + 1)
        for task in options.tasks
        for plan in PLANS
    }
    wanted = [wanted_run(plan, task, seed) for (task, _, seed), plan in plans.items()]
    for run in results.missing(wanted):
        plan = plans[run["task"], run["way"], run["seed"]]
        task = tasks.get(run["task"])
        data = sampled(task.load(options.data), options.rows).as_tensors()
        (model,) = identical_models(task.builder(options.data), 1, run["seed"])
        train_runs([run], [way(plan.trainer)(model, run["seed"])], data, results)
    print(write_report(results.of(wanted), options.out))


def wanted_run(plan: Plan, task: str, seed: int) -> dict:
    """Return the settings of a run: the budget of the plan, and its multiple of the task's tuned learning rate."""
    run = settings(task, plan.name, seed, plan.epochs)
    return run | dict(rate=plan.factor * run["rate"])


def write_report(runs: Sequence[dict], out: Path) -> str:
    """Write the table, and return it."""
    groups, rows = [], []
    for name in dict.fromkeys(run["task"] for run in runs):
        ways = summarise_ways([run for run in runs if run["task"] == name], (BASELINE,))
        groups.append(dict(task=name, unit=tasks.get(name).unit, ways=ways))
        rows += [dict(row, way=f"`{name}`, {row['way']}") for row in own_spread(ways, BASELINE)]
    return write_tables(out, groups, table=markdown_table(rows, LOSSES, "task, way"))


if __name__ == "__main__":
    main()
