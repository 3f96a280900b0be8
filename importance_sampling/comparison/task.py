"""Train a task in several ways, from the same weights and by turns, once a seed, and keep what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import keras

from importance_sampling.comparison.clock import Clock, Evaluation
from importance_sampling.comparison.data import Data
from importance_sampling.comparison.training import alike, train


class Budget(NamedTuple):
    """How long each way trains."""

    amount: float
    by: str = "seconds"  # or "cost" or "steps"


class Task(NamedTuple):
    """What is trained.

    Attributes:
        name: str, for tables and pictures.
        data: `Data`.
        build: makes the compiled model, its variables built.
        ways: from a name to what makes, of a model and a seed, whatever has Keras's `fit`.
        batch_size: int.
        error: from what `evaluate` returns for the test set to the test error; None: 100 (1 - accuracy).
        unit: of the error.
        decay: None, or from the spent share of the budget to what the learning rate is multiplied by.
    """

    name: str
    data: Data
    build: Callable[[], keras.Model]
    ways: Mapping[str, Callable[[keras.Model, int], Any]]
    batch_size: int = 128
    error: Callable[[dict], float] | None = None
    unit: str = "%"
    decay: Callable[[float], float] | None = None


def check(task: Task) -> None:
    """Find out, ahead of training, what can't be trained: make everything once, and try the model on two rows.

    Raises:
        ValueError: an option of a way is unknown or out of its range, or model and data don't fit.
    """
    data = task.data
    if not len(data.x_test):
        raise ValueError(f"A comparison needs test rows. Received: {task.name} without any")
    model = task.build()
    for make in task.ways.values():
        make(model, 0)
    model.evaluate(data.x_test[:2], data.y_test[:2], verbose=0)


def compare(
    task: Task,
    budget: Budget,
    seeds: Iterable[int],
    done: Callable[[dict, Any], None],
    measured: Callable[[str, int, Clock], None] = lambda way, seed, clock: None,
    measurements: int = 20,
) -> None:
    """Train a task in all its ways.

    Args:
        task: `Task`.
        budget: `Budget`, of each way.
        seeds: ints.
        done: called with the run, a dict as `figures` reads them, and the trainer of whoever has just finished.
        measured: called with the way, the seed and the clock after every measurement.
        measurements: int >= 1, how many after the first, which is of the untrained model.

    Raises:
        Exception: what one of the ways raised, once the others of its seed have finished.
    """
    data, names = task.data.resident(), list(task.ways)
    protocol = "budget" if task.decay else "anytime"
    for seed in seeds:
        models = alike(task.build, len(names), seed)
        trainers = [make(model, seed) for make, model in zip(task.ways.values(), models, strict=True)]
        asked = dict(task=task.name, protocol=protocol, seed=seed, by=budget.by, budget=budget.amount)
        asked |= dict(rate=float(models[0].optimizer.learning_rate), measurements=measurements)

        def finished(number: int, clock: Clock, trainers=trainers, asked=asked) -> None:
            done(asked | {"way": names[number]} | clock.record(), trainers[number])

        def looked(clock: Clock, models=models, seed=seed) -> None:
            measured(names[models.index(clock.model)], seed, clock)

        train(
            trainers,
            data,
            Evaluation(task.data, task.error),
            budget.amount,
            budget.by,
            task.batch_size,
            finished,
            measured=looked,
            measurements=measurements,
            decay=task.decay,
        )
        keras.utils.clear_session()
