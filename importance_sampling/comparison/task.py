"""Comparison of several ways to train a model, with the same initial weights and equal budgets, for several seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import keras

from importance_sampling.comparison.clock import Clock, Evaluation
from importance_sampling.comparison.data import Data
from importance_sampling.comparison.equal_budget import identical_models, train


class Budget(NamedTuple):
    """The training budget of each way."""

    amount: float
    by: str = "seconds"  # the unit: "seconds" of training, "cost" in forward passes of a batch, or "steps"


class Task(NamedTuple):
    """Data, a model, and the ways to train it.

    Attributes:
        name: str, the name in tables and plots.
        data: `Data`.
        build: function that returns a compiled and built model.
        ways: mapping from the name of a way to a function of a model and a seed. The function returns a trainer, or
            another object with Keras's `fit`.
        batch_size: int, default 128.
        error: function from the dict that `evaluate` returns for the test set to the test error. None (default) means
            100 (1 - accuracy).
        unit: str, the unit of the test error, default "%".
        decay: function from the spent fraction of the budget, in [0, 1], to a factor of the learning rate. None
            (default) means a constant learning rate.
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
    """Check a task before training: build the model and all trainers, and evaluate the model on two samples.

    Raises:
        ValueError: an option of a way is unknown or out of range, there is no test set, or the model doesn't match the
            data.
    """
    data = task.data
    if not len(data.x_test):
        raise ValueError(
            f"A comparison needs a test set: use a dataset with test samples. Received: {task.name} with 0 test samples"
        )
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
        budget: `Budget` of each way.
        seeds: ints; all ways are trained once per seed.
        done: called with the run and the trainer after a way has finished. A run is a dict of settings and
            measurements, as described in `analysis`.
        measured: called with the name of the way, the seed and the `Clock` after every measurement.
        measurements: int >= 1, default 20; the number of measurements after that of the untrained model.

    Raises:
        Exception: the error of a way, after the other ways of the same seed have finished.
    """
    data, names = task.data.as_tensors(), list(task.ways)
    protocol = "budget" if task.decay else "anytime"
    for seed in seeds:
        models = identical_models(task.build, len(names), seed)
        trainers = [make(model, seed) for make, model in zip(task.ways.values(), models, strict=True)]
        settings = dict(task=task.name, protocol=protocol, seed=seed, by=budget.by, budget=budget.amount)
        settings |= dict(rate=float(models[0].optimizer.learning_rate), measurements=measurements)

        def on_finish(index: int, clock: Clock, trainers=trainers, settings=settings) -> None:
            done(settings | {"way": names[index]} | clock.record(), trainers[index])

        def on_measurement(clock: Clock, models=models, seed=seed) -> None:
            measured(names[models.index(clock.model)], seed, clock)

        train(
            trainers,
            data,
            Evaluation(task.data, task.error),
            budget.amount,
            budget.by,
            task.batch_size,
            on_finish,
            measured=on_measurement,
            measurements=measurements,
            decay=task.decay,
        )
        keras.utils.clear_session()
