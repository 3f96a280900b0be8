"""Training for a given cost on few samples, from which the benchmarks of trainers get their results.

The cost is that of a number of epochs of `model.fit`, counted in forward passes of a batch, where a backward pass
counts as two. So results don't depend on the speed of the machine. The learning rate decays along a cosine to zero.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tasks
from evaluation import Evaluation
from results import Results
from schedules import cosine

from importance_sampling.comparison import Clock, Data, train
from importance_sampling.conditions.base import UNIFORM_STEP


def make_parser(script: str, description: str | None, default_tasks: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser of the options that all these benchmarks have.

    Args:
        script: the name of the module, which is the default output folder as well.
        description: of the script.
        default_tasks: names of tasks.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=tasks.NAMES, default=default_tasks)
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--rows", type=int, default=10000, metavar="N", help="training samples, drawn at random")
    parser.add_argument("--quick", action="store_true", help="one task, one seed, few epochs")
    parser.add_argument("--data", type=Path, metavar="PATH", help="folder of the data files, or the path of mnist.npz")
    parser.add_argument("--out", type=Path, default=Path(script), metavar="DIR")
    return parser


def settings(name: str, way: str, seed: int, epochs: int, protocol: str = "budget", measurements: int = 1) -> dict:
    """Return the settings of a run at the tuned learning rate of its task."""
    common = dict(schedule="cosine", by="epochs", measurements=measurements, rate=tasks.get(name).tuned)
    return dict(task=name, protocol=protocol, way=way, seed=seed, budget=epochs) | common


def sampled(data: Data, rows: int) -> Data:
    """Return the data with at most `rows` training samples, drawn at random, the same for every seed."""
    order = np.random.default_rng(0).permutation(len(data.x_train))[:rows]
    return data._replace(x_train=np.asarray(data.x_train)[order], y_train=np.asarray(data.y_train)[order])


def train_runs(
    runs: Sequence[Mapping],
    trainers: Sequence[Any],
    data: Data,
    results: Results,
    figures: Callable[[Any], Mapping[str, Any]] = lambda trainer: {},
    epochs: int | None = None,
) -> None:
    """Train each trainer for the same cost, in turns, and add the results.

    Args:
        runs: the `settings` of the runs, which are of one task and differ in their ways only.
        trainers: models or trainers, one for each run.
        data: `Data`, as tensors.
        results: `Results`.
        figures: function of a trainer; returns further figures of its run.
        epochs: int, the argument of `fit`, for trainers with a schedule by epochs; at least as many as the budget is
            enough for. None (default): no limit.
    """
    task = tasks.get(runs[0]["task"])
    for trainer in trainers:
        getattr(trainer, "model", trainer).optimizer.learning_rate = runs[0]["rate"]

    def done(index: int, clock: Clock) -> None:
        run, more = runs[index], figures(trainers[index])
        results.add(dict(run) | clock.record() | more)
        print(
            f"{run['task']}, {run['protocol']}, seed {run['seed']}, {run['way']}: {clock.points[-1]} {more}", flush=True
        )

    train(
        trainers,
        dict(x=data.x_train, y=data.y_train, batch_size=task.batch_size, epochs=epochs),
        Evaluation(data, task.error, task.loss_rows, task.has_rare_classes),
        UNIFORM_STEP * runs[0]["budget"] * -(-len(data.x_train) // task.batch_size),
        by="cost",
        done=done,
        measurements=runs[0]["measurements"],
        decay=cosine,
    )
    keras.utils.clear_session()
