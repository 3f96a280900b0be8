"""Is it faster by the clock? Every way to train, on every task, from the same weights for the same seconds.

    python benchmarks/equal_time.py --quick [--data mnist.npz]
    python benchmarks/equal_time.py --tasks mnist_mlp flights --ways plain fast-uniform default --seeds 5 --out DIR

Two protocols. `anytime`: the learning rate that a user starts with, held constant; read along the way. `budget`: the
learning rate that is best for plain training, decayed to zero over the budget by a cosine; read at the end, once for a
budget of a quarter of the task's and once for all of it. The budget is seconds of training, or with `--by cost` forward
passes of a batch, a backward pass counted as two, which no noisy machine can bend. All ways of a seed run interleaved,
in short turns; ways that are added to results later run by themselves. Results are appended to DIR/results.jsonl as
they come, and what is there isn't run again; tables (table.md, table.json) and pictures are made of all that was asked
for.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import tasks
from results import Results
from ways import WAYS, YARDSTICKS

from importance_sampling.comparison import Clock, Evaluation, alike, forward_equivalents, report, train
from importance_sampling.comparison.figures import SHARES, compared, promise, table

PROTOCOLS = {  # shares of a task's budget, and how many measurements on the way
    "anytime": ((1.0,), 10),
    "budget": ((0.25, 1.0), 4),
}
GRID = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # times a task's rate, to tune among


def main() -> None:
    """Run what is missing, and report."""
    options = parse()
    if options.tune:
        tune(options)
        return
    results = Results(options.out / "results.jsonl")
    wanted = list(itertools.chain.from_iterable(plan(options, name) for name in options.tasks))
    for (*of, _), runs in grouped(wanted, "task", "protocol", "budget", "seed"):
        if train_missing(runs, results, options):
            write_report(wanted, results, options.out, of)
    write_report(wanted, results, options.out)
    print((options.out / "table.md").read_text(encoding="utf-8"))
    missing = results.missing(wanted)
    if missing:
        sys.exit(f"{len(missing)} of {len(wanted)} runs failed; see above.")


def parse() -> argparse.Namespace:
    """The options, completed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=tasks.NAMES, default=None)
    parser.add_argument("--ways", nargs="+", choices=[*WAYS, "all"], default=None)
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=None)
    parser.add_argument("--seeds", type=int, metavar="N", help="how many; default 5")
    parser.add_argument("--by", choices=("seconds", "cost"), default="seconds", help="what the budget is of")
    parser.add_argument("--seconds", type=float, nargs="+", metavar="S", help="budgets; default: the task's own")
    parser.add_argument("--cost", type=float, nargs="+", metavar="C", help="budgets in forward passes, with --by cost")
    parser.add_argument("--quick", action="store_true", help="a minute's look")
    parser.add_argument("--trainers", action="store_true", help="every trainer on three tasks, 15 seconds, three seeds")
    parser.add_argument("--tune", action="store_true", help="tune plain training, and write the rates to the tasks")
    parser.add_argument("--data", type=Path, metavar="FILE", help="a local npz in the layout of Keras's mnist.npz")
    parser.add_argument("--out", type=Path, default=Path("equal_time"), metavar="DIR")
    options = parser.parse_args()
    if options.quick and options.trainers:
        parser.error("--quick and --trainers are two ways to set the other options; give one")
    preset = dict(tasks=tasks.NAMES, ways=[*YARDSTICKS, "default"], protocols=PROTOCOLS, seeds=5)
    if options.quick:
        preset.update(tasks=["mnist_mlp"], seeds=1, seconds=[5.0], cost=[3000.0])
    if options.trainers:
        three = ["mnist_mlp", "mnist_cnn", "mnist_eight"]
        preset.update(tasks=three, ways=["all"], protocols=["anytime"], seeds=3, seconds=[15.0])
    for name, value in preset.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if "all" in options.ways:
        options.ways = list(WAYS)
    return options


def plan(options: argparse.Namespace, name: str) -> list[dict]:
    """The runs of a task."""
    task = tasks.get(name)
    return [
        dict(
            task=name,
            protocol=protocol,
            way=way,
            seed=seed,
            by=options.by,
            budget=budget,
            rate=task.tuned if protocol == "budget" else task.rate,
            measurements=PROTOCOLS[protocol][1],
        )
        for protocol in options.protocols
        for budget in budgets(options, task, protocol)
        for seed in range(1, options.seeds + 1)
        for way in options.ways
    ]


def budgets(options: argparse.Namespace, task: tasks.Task, protocol: str) -> list[float]:
    """Those given, or the task's own."""
    given, own = options.seconds, task.seconds
    if options.by == "cost":
        given, own = options.cost, forward_equivalents(None, task.steps)
    return given or [share * own for share in PROTOCOLS[protocol][0]]


def grouped(runs: Sequence[Mapping], *names: str) -> list[tuple[tuple, list[Mapping]]]:
    """Runs that agree in what is named, in their order."""
    groups: dict[tuple, list] = {}
    for run in runs:
        groups.setdefault(tuple(run[name] for name in names), []).append(run)
    return list(groups.items())


def train_missing(runs: Sequence[Mapping], results: Results, options: argparse.Namespace) -> bool:
    """Train by turns whichever of the runs, all of one task, protocol, budget and seed, are not there yet.

    Returns:
        Whether there were any.
    """
    missing = results.missing(runs)
    if not missing:
        return False
    one = missing[0]
    turn = one["seed"] % len(missing)
    missing = [*missing[turn:], *missing[:turn]]  # so that nobody always comes first
    task = tasks.get(one["task"])
    data = task.load(options.data).resident()
    trainers, runs = [], []
    for model, run in zip(alike(task.build, len(missing), one["seed"]), missing, strict=True):
        model.optimizer.learning_rate = run["rate"]
        try:
            trainers.append(WAYS[run["way"]](model, run["seed"]))
        except Exception:
            traceback.print_exc()  # the others go on
        else:
            runs.append(run)

    def done(number: int, clock: Clock) -> None:
        run = runs[number] | clock.record()
        results.add(run)
        last = clock.points[-1]
        print(
            f"{title(run)}, seed {run['seed']}, rate {run['rate']:g}, {run['way']}: training loss "
            f"{last.train_loss:.4g}, test loss {last.test_loss:.4g}, error {last.test_error:.2f} {task.unit}, "
            f"{clock.steps} steps, {clock.seconds:.1f} s",
            flush=True,
        )

    try:
        train(
            trainers,
            data,
            Evaluation(data, task.error, task.loss_rows),
            one["budget"],
            one["by"],
            task.batch_size,
            done,
            measurements=one["measurements"],
            decay=cosine if one["protocol"] == "budget" else None,
        )
    except Exception:
        traceback.print_exc()  # the others go on
    keras.utils.clear_session()
    return True


def cosine(share: float) -> float:
    """From 1 to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * share))


def write_report(wanted: Sequence[Mapping], results: Results, out: Path, of: Sequence | None = None) -> None:
    """Write the tables, and a picture for each task, protocol and budget, or for the one given."""
    texts, figures = [], []
    for (name, protocol, budget), group in grouped(results.of(wanted), "task", "protocol", "budget"):
        unit, by = tasks.get(name).unit, group[0]["by"]
        rows = compared(group, YARDSTICKS)
        figures.append(dict(task=name, protocol=protocol, by=by, budget=budget, unit=unit, ways=rows))
        texts.append(f"## {title(group[0])}\n\nTest error in {unit}.\n\n{table(rows, report.COLUMNS)}\n")
        texts.extend(ratios(rows, yardstick, protocol) for yardstick in YARDSTICKS)
        if of is None or of == [name, protocol, budget]:
            report.picture(group, out / f"{name}-{protocol}-{budget:g}-{by}.png", unit, title(group[0]))
    texts.append(promise(figures) + "\n")
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text("\n".join(texts), encoding="utf-8")
    (out / "table.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")


def ratios(rows: Sequence[Mapping], yardstick: str, protocol: str) -> str:
    """The table of what the ways are over a yardstick; "" where there is nothing to compare."""
    columns = {f"{name} over {yardstick}": report.COLUMNS[name] for name in ("train_loss", "test_loss", "test_error")}
    if protocol == "anytime":
        columns |= {f"loss over {yardstick}, {share:.0%}": (f"loss at {share:.0%}", "") for share in SHARES}
        columns |= {f"times sooner than {yardstick}, {share:.0%}": (f"sooner at {share:.0%}", "") for share in SHARES}
    others = [row for row in rows if any(column in row for column in columns)]
    if not others:
        return ""
    text = f"Over {yardstick}, seed by seed: what is at the end"
    if protocol == "anytime":
        text += (
            f"; the training loss after a share of the budget; and how many times sooner the least training loss that "
            f"{yardstick} had until then was reached (0: never)"
        )
    return f"{text}.\n\n{table(others, {name: (heading, '.2f') for name, (heading, _) in columns.items()})}\n"


def title(run: Mapping) -> str:
    """What a run has in common with those that it is compared with."""
    return f"{run['task']}, {run['protocol']}, {run['budget']:g} {run['by']}"


def tune(options: argparse.Namespace) -> None:
    """Find the rate at which plain training ends best, decayed over the whole budget; write it to the task."""
    results = Results(options.out / "tuning.jsonl")
    for name in options.tasks:
        task = tasks.get(name)
        changes = {"protocols": ["budget"], "ways": ["plain"], options.by: budgets(options, task, "anytime")}
        plain = argparse.Namespace(**vars(options) | changes)
        wanted = [dict(run, rate=task.rate * factor) for run in plan(plain, name) for factor in GRID]
        for _, runs in grouped(wanted, "budget", "seed"):
            train_missing(runs, results, options)
        labelled = [dict(run, way=f"plain, rate {run['rate']:g}") for run in results.of(wanted)]
        for _, group in grouped(labelled, "budget"):
            rows = compared(group, ())
            print(f"## {title(group[0])}\n\n{table(rows, report.COLUMNS)}\n")
        best = best_of(rows)["way"].rsplit(" ", 1)[1]
        edge = ", at the edge of the grid" if best in (f"{task.rate * GRID[0]:g}", f"{task.rate * GRID[-1]:g}") else ""
        print(f"{name}: the best rate for the last budget is {best}{edge}.\n")
        path = Path(tasks.__file__).with_name(f"{name}.py")
        path.write_text(re.sub(r"\btuned=[0-9.e-]+", f"tuned={best}", path.read_text(encoding="utf-8")), "utf-8")


def best_of(rows: Sequence[Mapping]) -> Mapping:
    """The row of the least median test error, or test loss if several have that.

    Not of the least test loss: where that rises as training goes on, it is least at a rate that never gets there.
    """
    return min(rows, key=lambda row: [row[name]["median"] for name in ("test_error", "test_loss")])


if __name__ == "__main__":
    main()
