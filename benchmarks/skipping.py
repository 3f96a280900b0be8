"""Compare skipping with uniform training for the same epochs, and with two baselines that take as many steps.

    python benchmarks/skipping.py --quick --data DIR
    python benchmarks/skipping.py --tasks satellite shuttle --seeds 5 --data DIR --out OUT

All ways have the same initial weights, and a learning rate that follows a cosine to zero by epochs. `uniform` is
`model.fit`, `skipping` and `smooth` are `SkippingTraining`. `random` skips as many samples as `skipping` in each epoch,
at random. `compressed` is `model.fit` with as many steps as `skipping`, and `compressed smooth` with as many as
`smooth`: fewer epochs, in which the learning rate decays along the whole cosine. `compressed fast` is `compressed` with
a learning rate that is higher by the factor by which there are fewer steps, as the weights of skipping have it. Results
are appended to OUT/results.jsonl and aren't repeated.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tasks
from analysis import LOSSES, markdown_table, own_spread, summarise, summarise_ways
from budget_runs import make_parser, sampled, settings
from evaluation import Evaluation
from report import write_tables
from results import Results
from skipping_baselines import Compressed, RandomSkipping, cosine

from importance_sampling.comparison import forward_equivalents, identical_models
from importance_sampling.training import SkippingTraining

TASKS = ("satellite", "shuttle", "ratings", "flights", "canevet", "mnist_lr")
WAYS = ("uniform", "skipping", "smooth", "random", "compressed", "compressed fast", "compressed smooth")
COLUMNS = {"saved": ("steps saved", ".0%")} | LOSSES


def main() -> None:
    """Run the missing runs and write the tables."""
    parser = make_parser("skipping", __doc__, TASKS)
    parser.add_argument("--epochs", type=int, default=16, metavar="N")
    options = parser.parse_args()
    if options.quick:
        options.tasks, options.seeds, options.epochs = options.tasks[:1], 1, 4
    results = Results(options.out / "results.jsonl")
    wanted = [
        [settings(name, way, seed, options.epochs) for way in WAYS]
        for seed in range(1, options.seeds + 1)
        for name in options.tasks
    ]
    for runs in wanted:
        missing = results.missing(runs)
        if missing:
            train_missing(missing, results.of(runs), results, options)
    text = write_report([run for runs in wanted for run in results.of(runs)], options.out)
    print(text)


def train_missing(
    missing: Sequence[Mapping], existing: Sequence[Mapping], results: Results, options: argparse.Namespace
) -> None:
    """Train a task and a seed in the ways that have no results yet, and add their results.

    Args:
        missing: the settings of these runs.
        existing: the runs of the same task and seed that have results.
        results: `Results`.
        options: of the command line.
    """
    task, seed = tasks.get(missing[0]["task"]), missing[0]["seed"]
    data = sampled(task.load(options.data), options.rows).as_tensors()
    evaluation = Evaluation(data, task.error, task.loss_rows)
    done = {run["way"]: run for run in existing}
    models = identical_models(task.builder(options.data), len(missing), seed)
    for run, model in zip(missing, models, strict=True):
        trainer, callback = way_of(run, model, done)
        keras.utils.set_random_seed(seed)
        start = time.perf_counter()
        history = trainer.fit(
            data.x_train,
            data.y_train,
            batch_size=task.batch_size,
            epochs=options.epochs,
            verbose=0,
            callbacks=[callback],
        ).history
        seconds, steps = time.perf_counter() - start, int(model.optimizer.iterations.value)
        point = evaluation(model)
        done[run["way"]] = dict(run) | dict(
            steps=steps,
            seconds=seconds,
            cost=forward_equivalents(trainer, steps),
            importance_steps=getattr(trainer, "importance_steps", 0),
            kept=history.get("kept", []),
            points=[point],
        )
        results.add(done[run["way"]])
        print(f"{run['task']}, seed {seed}, {run['way']}: {steps} steps, {point}, {seconds:.1f} s", flush=True)
    keras.utils.clear_session()


def way_of(run: Mapping, model: keras.Model, done: Mapping[str, Mapping]) -> tuple[Any, keras.callbacks.Callback]:
    """Return the object with Keras's `fit`, and the callback that sets the learning rate.

    Args:
        run: the settings of the run.
        model: the compiled model.
        done: the runs with results, by way; those with as many steps must be among them.
    """
    way, epochs, seed = run["way"], run["budget"], run["seed"]
    schedule = cosine(run["rate"], epochs)
    by_epochs = keras.callbacks.LearningRateScheduler(lambda epoch, _: schedule(epoch))
    if way in ("skipping", "smooth"):
        return SkippingTraining(model, smooth=way == "smooth", seed=seed), by_epochs
    if way == "random":
        return RandomSkipping(model, done["skipping"]["kept"], seed), by_epochs
    if way == "uniform":
        return model, by_epochs
    steps = done["smooth" if way == "compressed smooth" else "skipping"]["steps"]
    if way == "compressed fast":
        schedule = cosine(run["rate"] * done["uniform"]["steps"] / steps, epochs)
    return model, Compressed(steps, epochs, schedule)


def write_report(runs: Sequence[Mapping], out: Path) -> str:
    """Write the table, and return it."""
    groups, table = [], []
    for name in dict.fromkeys(run["task"] for run in runs):
        of_task = [run for run in runs if run["task"] == name]
        rows = own_spread(summarise_ways(of_task, ("uniform",)), "uniform")
        uniform = {run["seed"]: run for run in of_task if run["way"] == "uniform"}
        for row in rows:
            own = [run for run in of_task if run["way"] == row["way"]]
            row["saved"] = summarise([1 - run["steps"] / uniform[run["seed"]]["steps"] for run in own])
        groups.append(dict(task=name, unit=tasks.get(name).unit, ways=rows))
        table += [dict(row, way=f"`{name}`, {row['way']}") for row in rows]
    text = markdown_table(table, COLUMNS, "task, way")
    return write_tables(out, groups, table=text)


if __name__ == "__main__":
    main()
