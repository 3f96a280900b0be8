"""Compare ways to train in equal time: every way on every task, with equal initial weights and equal budgets.

    python benchmarks/equal_time.py --quick [--data mnist.npz]
    python benchmarks/equal_time.py --tasks mnist_mlp flights --ways uniform fast-uniform default --seeds 5 --out DIR

There are two protocols. `anytime`: a constant learning rate, the usual default of the task; results are compared during
training. `budget`: the learning rate that is best for uniform training, with a cosine decay to zero over the budget, or
with the other schedules that `--schedules` names; results are compared at the end, for a quarter of the task's budget
and for the whole budget.

A budget is in seconds of training or, with `--by cost`, in forward passes of a batch, where a backward pass counts as
two; this doesn't depend on the machine. The ways of a seed are trained in short turns. Each result is appended to
DIR/results.jsonl when it is available, and existing results aren't repeated. The tables (table.md, table.json) and
plots contain all requested runs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import report
import schedules
import tasks
from analysis import (
    FRACTIONS,
    USUAL_SCHEDULES,
    markdown_table,
    protocol_name,
    summarise_test_loss,
    summarise_ways,
)
from compared_ways import BASELINES, WAYS, Isolated
from evaluation import Evaluation
from results import Results

from importance_sampling.comparison import Clock, forward_equivalents, identical_models, train

PROTOCOLS = {  # fractions of the budget of a task, and the number of measurements
    "anytime": ((1.0,), 10),
    "budget": ((0.25, 1.0), 4),
}
GRID = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # factors of the learning rate of a task, for tuning


def main() -> None:
    """Run the missing runs and write the reports."""
    options = parse()
    if options.tune:
        tune(options)
        return
    results = Results(options.out / "results.jsonl")
    wanted = list(itertools.chain.from_iterable(plan(options, name) for name in options.tasks))
    for (*group, _), runs in grouped(wanted, "task", "protocol", "schedule", "budget", "seed"):
        if train_missing(runs, results, options):
            write_report(wanted, results, options.out, group)
    write_report(wanted, results, options.out)
    print((options.out / "table.md").read_text(encoding="utf-8"))
    missing = results.missing(wanted)
    if missing:
        sys.exit(f"{len(missing)} of {len(wanted)} runs failed; see above.")


def parse() -> argparse.Namespace:
    """Parse the options and fill in their defaults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=tasks.NAMES, default=None)
    parser.add_argument("--ways", nargs="+", choices=[*WAYS, "all"], default=None)
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=None)
    parser.add_argument(
        "--schedules", nargs="+", choices=schedules.NAMES, help="of the protocol `budget`; default: cosine"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="number of seeds; default: 5")
    parser.add_argument("--by", choices=("seconds", "cost"), default="seconds", help="unit of the budget")
    parser.add_argument("--seconds", type=float, nargs="+", metavar="S", help="budgets; default: those of the task")
    parser.add_argument(
        "--cost", type=float, nargs="+", metavar="C", help="budgets in forward passes of a batch, for --by cost"
    )
    presets = parser.add_mutually_exclusive_group()
    presets.add_argument("--quick", action="store_true", help="about a minute: one task and one seed")
    presets.add_argument("--trainers", action="store_true", help="all trainers on three tasks, 15 seconds, three seeds")
    presets.add_argument(
        "--decaying", action="store_true", help="ten tasks at a learning rate that decays; uniform and default, 5 seeds"
    )
    parser.add_argument(
        "--tune", action="store_true", help="tune uniform training and write the learning rates to the tasks"
    )
    parser.add_argument("--data", type=Path, metavar="PATH", help="folder of the data files, or the path of mnist.npz")
    parser.add_argument("--out", type=Path, default=Path("equal_time"), metavar="DIR")
    options = parser.parse_args()
    preset = dict(
        tasks=tasks.STANDARD, ways=[*BASELINES, "default"], protocols=PROTOCOLS, schedules=["cosine"], seeds=5
    )
    if options.quick:
        preset.update(tasks=["mnist_mlp"], seeds=1, seconds=[5.0], cost=[3000.0])
    if options.trainers:
        three = ["mnist_mlp", "mnist_cnn", "mnist_eight"]
        preset.update(tasks=three, ways=["all"], protocols=["anytime"], seeds=3, seconds=[15.0])
    if options.decaying:
        preset.update(tasks=tasks.DECAYING, ways=["uniform", "default"], protocols=["budget"])
    for name, value in preset.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if "all" in options.ways:
        options.ways = list(WAYS)
    return options


def plan(options: argparse.Namespace, name: str) -> list[dict]:
    """Return the settings of all runs of a task."""
    task = tasks.get(name)
    return [
        dict(
            task=name,
            protocol=protocol,
            schedule=schedule,
            way=way,
            seed=seed,
            by=options.by,
            budget=budget,
            rate=task.tuned if protocol == "budget" else task.rate,
            measurements=schedules.PLATEAU_MEASUREMENTS if schedule == "plateau" else PROTOCOLS[protocol][1],
        )
        for protocol in options.protocols
        for schedule in (options.schedules if protocol == "budget" else [USUAL_SCHEDULES[protocol]])
        for budget in budgets(options, task, protocol)
        for seed in range(1, options.seeds + 1)
        for way in options.ways
    ]


def budgets(options: argparse.Namespace, task: tasks.Task, protocol: str) -> list[float]:
    """Return the budgets of the options, or the default budgets of the task."""
    requested, default = options.seconds, task.seconds
    if options.by == "cost":
        requested, default = options.cost, forward_equivalents(None, task.steps)
    return requested or [fraction * default for fraction in PROTOCOLS[protocol][0]]


def grouped(runs: Sequence[Mapping], *names: str) -> list[tuple[tuple, list[Mapping]]]:
    """Group runs by the values of the named settings, in their order."""
    groups: dict[tuple, list] = {}
    for run in runs:
        groups.setdefault(tuple(run[name] for name in names), []).append(run)
    return list(groups.items())


def train_missing(runs: Sequence[Mapping], results: Results, options: argparse.Namespace) -> bool:
    """Train the runs that have no results yet, in turns.

    Args:
        runs: settings of runs with the same task, protocol, schedule, budget and seed.
        results: `Results`, to which the new results are added.
        options: the options of the command line.

    Returns:
        True if there were runs without results.
    """
    missing = results.missing(runs)
    if not missing:
        return False
    settings = missing[0]
    start = settings["seed"] % len(missing)
    missing = [*missing[start:], *missing[:start]]  # every seed starts with another way
    task = tasks.get(settings["task"])
    data = task.load(options.data).as_tensors()
    trainers, runs, build = [], [], task.builder(options.data)
    for model, run in zip(identical_models(build, len(missing), settings["seed"]), missing, strict=True):
        model.optimizer.learning_rate = run["rate"]
        try:
            trainers.append(Isolated(WAYS[run["way"]](model, run["seed"])))
        except Exception:
            traceback.print_exc()  # continue with the other ways
        else:
            runs.append(run)

    def done(index: int, clock: Clock) -> None:
        if trainers[index].has_failed:
            return
        run = runs[index] | clock.record()
        results.add(run)
        last = clock.points[-1]
        print(
            f"{title(run)}, seed {run['seed']}, rate {run['rate']:g}, {run['way']}: training loss "
            f"{last['train_loss']:.4g}, test loss {last['test_loss']:.4g}, error {last['test_error']:.2f} {task.unit}, "
            f"{clock.steps} steps, {clock.seconds:.1f} s",
            flush=True,
        )

    train(
        trainers,
        dict(x=data.x_train, y=data.y_train, batch_size=task.batch_size),
        Evaluation(data, task.error, task.loss_rows),
        settings["budget"],
        settings["by"],
        done,
        measurements=settings["measurements"],
        **schedules.options(settings["schedule"]),
    )
    keras.utils.clear_session()
    return True


def write_report(wanted: Sequence[Mapping], results: Results, out: Path, updated: Sequence | None = None) -> None:
    """Write the tables and plots.

    Args:
        wanted: settings of all requested runs.
        results: `Results`.
        out: output folder.
        updated: task, protocol, schedule and budget of the plot to write; None (default) writes all plots.
    """
    texts, groups = [], []
    names = ("task", "protocol", "schedule", "budget")
    for settings, group in grouped(results.of(wanted), *names):
        name, protocol, _, budget = settings
        unit, by = tasks.get(name).unit, group[0]["by"]
        rows = summarise_ways(group, BASELINES)
        groups.append(dict(zip(names, settings, strict=True)) | dict(by=by, unit=unit, ways=rows))
        texts.append(f"## {title(group[0])}\n\nTest error in {unit}.\n\n{markdown_table(rows, report.COLUMNS)}\n")
        texts.extend(ratios(rows, baseline, protocol) for baseline in BASELINES)
        if updated is None or updated == list(settings):
            stem = f"{name}-{protocol_name(group[0])}-{budget:g}-{by}".replace(", ", "-")
            report.write_plot(group, out / f"{stem}.png", unit, title(group[0]))
    texts.append(summarise_test_loss(groups) + "\n")
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text("\n".join(texts), encoding="utf-8")
    (out / "table.json").write_text(json.dumps(groups, indent=1), encoding="utf-8")


def ratios(rows: Sequence[Mapping], baseline: str, protocol: str) -> str:
    """Return a table of the ratios to a baseline; "" if there are none."""
    columns = {f"{name} over {baseline}": report.COLUMNS[name] for name in ("train_loss", "test_loss", "test_error")}
    if protocol == "anytime":
        columns |= {f"loss over {baseline}, {part:.0%}": (f"loss at {part:.0%}", "") for part in FRACTIONS}
        columns |= {f"speed-up over {baseline}, {part:.0%}": (f"speed-up at {part:.0%}", "") for part in FRACTIONS}
    others = [row for row in rows if any(name in row for name in columns)]
    if not others:
        return ""
    text = f"Ratios to {baseline}, per seed: final results"
    if protocol == "anytime":
        text += (
            f"; the training loss after a fraction of the budget; and the speed-up, the time in which {baseline} "
            "reached its minimum training loss up to this fraction, divided by the time of the way (0: never reached)"
        )
    headings = {name: (heading, ".2f") for name, (heading, _) in columns.items()}
    return f"{text}.\n\n{markdown_table(others, headings)}\n"


def title(run: Mapping) -> str:
    """Return the settings that a run shares with the runs that it is compared with."""
    return f"{run['task']}, {protocol_name(run)}, {run['budget']:g} {run['by']}"


def tune(options: argparse.Namespace) -> None:
    """Find the best learning rate of uniform training with decay, and write it to the module of the task."""
    results = Results(options.out / "tuning.jsonl")
    for name in options.tasks:
        task = tasks.get(name)
        changes = {"protocols": ["budget"], "schedules": ["cosine"], "ways": ["uniform"]}
        changes[options.by] = budgets(options, task, "anytime")
        uniform = argparse.Namespace(**vars(options) | changes)
        wanted = [dict(run, rate=task.rate * factor) for run in plan(uniform, name) for factor in GRID]
        for _, runs in grouped(wanted, "budget", "seed"):
            train_missing(runs, results, options)
        labelled = [dict(run, way=f"uniform, rate {run['rate']:g}") for run in results.of(wanted)]
        for _, group in grouped(labelled, "budget"):
            rows = summarise_ways(group, ())
            print(f"## {title(group[0])}\n\n{markdown_table(rows, report.COLUMNS)}\n")
        best = best_of(rows)["way"].rsplit(" ", 1)[1]
        edge = ", at the edge of the grid" if best in (f"{task.rate * GRID[0]:g}", f"{task.rate * GRID[-1]:g}") else ""
        print(f"{name}: the best rate for the last budget is {best}{edge}.\n")
        path = Path(tasks.__file__).with_name(f"{name}.py")
        path.write_text(re.sub(r"\btuned=[0-9.e-]+", f"tuned={best}", path.read_text(encoding="utf-8")), "utf-8")


def best_of(rows: Sequence[Mapping]) -> Mapping:
    """Return the row with the lowest median test error; of several, the one with the lowest test loss.

    The test loss alone isn't used: on tasks where it rises during training, it favours learning rates that are too low.
    """
    return min(rows, key=lambda row: [row[name]["median"] for name in ("test_error", "test_loss")])


if __name__ == "__main__":
    main()
