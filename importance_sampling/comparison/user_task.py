"""`compare`: train the user's own model in several ways, with equal initial weights and equal budgets."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from importance_sampling.comparison.arguments import (
    budget_of,
    check_builder,
    check_data,
    checked,
    checked_ways,
    with_split,
)
from importance_sampling.comparison.clock import Clock
from importance_sampling.comparison.equal_budget import identical_models, train
from importance_sampling.comparison.evaluation import Evaluation
from importance_sampling.comparison.figure import Figure, check_mode, figure_of, loss_figure
from importance_sampling.comparison.progress import Progress, is_shown
from importance_sampling.comparison.result import BASELINE, Comparison
from importance_sampling.training import ImportanceTraining
from importance_sampling.utils.validation import is_flag, is_int, is_one_of

WAYS: dict[str, Callable[[keras.Model], Any]] = {
    BASELINE: lambda model: model,
    "importance": ImportanceTraining,
}
MEASUREMENTS = 20
SAME_START = 1e-3  # losses of the untrained models that differ by a smaller fraction are equal


def compare(
    build_model: Callable[[], keras.Model],
    x: Any,
    y: Any = None,
    *,
    ways: Mapping[str, Callable[[keras.Model], Any]] | None = None,
    seconds: float | None = None,
    epochs: int | None = None,
    cost: float | None = None,
    seeds: int = 3,
    monitor: str | None = None,
    mode: str = "auto",
    verbose: bool | int | str | None = None,
    **fit_arguments: Any,
) -> Comparison:
    """Train a model in several ways, and say whether importance sampling pays off.

    For each seed, all ways start from the same weights and have the same budget. They take turns of half a second, so a
    machine that slows down affects all of them. Evaluation and compilation don't count. The ways are compared by the
    loss on the validation data, or on the first 10,000 training samples if there are no validation data, which is
    evaluated 20 times during training. With `monitor` they are compared by a metric instead.

    Args:
        build_model: function without arguments that returns a compiled `keras.Model`.
        x, y: as for `model.fit`. Generators are rejected, because they can be read only once.
        ways: mapping from the name of a way to a function that takes a model and returns an object with Keras's `fit`.
            None (default): `{"uniform": lambda model: model, "importance": ImportanceTraining}`. The first way is the
            baseline, and the verdict is about the second one.
        seconds: float > 0, seconds of training for each way and seed; default 30.
        epochs: int >= 1, a budget in epochs instead of seconds. Use it if the learning rate follows a schedule.
        cost: float > 0, a budget in forward passes of a batch instead of seconds. A uniform step costs 3, so the cost
            of N epochs is N * (steps per epoch) * 3.
        seeds: int >= 1, default 3; the number of runs of each way.
        monitor: str, the figure by which the ways are compared, by its name in Keras's logs, such as "val_auc". None
            (default): the loss.
        mode: "min" or "max": whether lower or higher values of `monitor` are better. "auto" (default): as Keras's
            `EarlyStopping` infers it; also "max" if the name contains acc, auc, precision, recall or f1.
        verbose: True, 1 or 2: show a progress bar. None (default) or "auto": on a terminal and in notebooks. False or
            0: never. The logger `importance_sampling` has a line per run, of level INFO, in any case.
        **fit_arguments: further arguments of `model.fit`, such as `batch_size`, `validation_data`, `validation_split`,
            `class_weight` and `callbacks`. Each run has its own copies of the callbacks. Those of Keras that write
            files write into a temporary folder of their run.

    Returns:
        `Comparison`, with a table, a plot and the verdict.

    Raises:
        ValueError: an argument is out of its range, or the data can be read only once.
        TypeError: neither `compare` nor `model.fit` has an argument with this name.

    Example:
        >>> comparison = importance_sampling.compare(
        ...     build_model, x_train, y_train, batch_size=128, validation_data=(x_val, y_val), seconds=60
        ... )
        >>> print(comparison)
        >>> figure = comparison.plot("comparison.png")
    """
    check_builder(build_model)
    by, budget = budget_of(dict(seconds=seconds, cost=cost, epochs=epochs))
    ways = checked_ways(WAYS if ways is None else ways)
    if not is_int(seeds) or seeds < 1:
        raise ValueError(f"`seeds` must be an int of at least 1, the number of runs. Received: seeds={seeds!r}")
    check_mode(monitor, mode)
    if is_one_of(verbose, ("auto",)):
        verbose = None
    if not (verbose is None or is_flag(verbose) or (is_int(verbose) and verbose == 2)):
        raise ValueError(
            f'`verbose` must be True, False, None, or Keras\'s "auto", 0, 1 or 2. Received: verbose={verbose!r}'
        )
    arguments = with_split(checked(dict(fit_arguments, x=x, y=y), own_arguments()))
    evaluation = Evaluation(arguments)
    figure = _figure(build_model, monitor, mode, evaluation)
    result = Comparison(budget, by, loss_figure(evaluation.prefix).name, tuple(ways), figure)
    progress = Progress(list(ways), seeds, budget, is_shown() if verbose is None else bool(verbose), by, figure)
    for seed in range(1, seeds + 1):
        models = models_of(build_model, len(ways), seed, evaluation)
        check_data(arguments, models[0])
        trainers = [way(model) for way, model in zip(ways.values(), models, strict=True)]
        _check_trainers(ways, trainers)
        _train_ways(trainers, seed, arguments, evaluation, result, progress)
    return result


def own_arguments() -> list[str]:
    """Return the names of the arguments that `compare` has besides those of `model.fit`."""
    return [name for name, one in inspect.signature(compare).parameters.items() if one.kind is one.KEYWORD_ONLY]


def _figure(build_model: Callable[[], keras.Model], monitor: Any, mode: str, evaluation: Evaluation) -> Figure:
    if monitor is None or monitor == f"{evaluation.prefix}loss":
        return loss_figure(evaluation.prefix, mode)
    [model] = models_of(build_model, 1, 1, evaluation)
    return figure_of(monitor, mode, evaluation.prefix, evaluation(model), model)


def _train_ways(
    trainers: list[Any], seed: int, arguments: dict, evaluation: Evaluation, result: Comparison, progress: Progress
) -> None:
    """Train one model in each way; add the runs to the result, and show their progress.

    Args:
        trainers: one for each of the result's ways, in their order.
        seed: int, the number of the runs.
        arguments: those of `model.fit`, by name.
        evaluation: measures the loss.
        result: `Comparison`, with the budget of a run.
        progress: `Progress` of all runs.
    """
    starts: dict[str, float] = {}

    def done(index: int, clock: Clock) -> None:
        result.add(result.ways[index], seed, clock.record(), trainers[index])
        progress.finish(result.ways[index], seed, clock)

    def measured(clock: Clock) -> None:
        way = result.ways[trainers.index(clock.trainer)]
        if way not in starts:
            starts[way] = clock.points[0]["loss"]
            check_starts(starts, seed)
        progress.update(way, seed, clock)

    budget, by = result.budget, result.by
    train(trainers, arguments, evaluation, budget, by, done, measurements=MEASUREMENTS, measured=measured)


def models_of(build_model: Callable[[], keras.Model], count: int, seed: int, judge: Evaluation) -> list[keras.Model]:
    """Return compiled models with equal weights."""
    models = identical_models(build_model, count, seed)
    for model in models:
        if not isinstance(model, keras.Model) or not model.compiled:
            raise ValueError(f"`build_model` must return a compiled `keras.Model`. Received: {model!r}")
        if not model.built:
            judge(model)  # builds it
            model.set_weights(models[0].get_weights())
    return models


def check_starts(losses: Mapping[str, float], seed: int) -> None:
    """Warn if the last of several losses before the first step isn't equal to the first.

    Args:
        losses: mapping from the name of a way to its loss, the latest one last.
        seed: int, for the message.
    """
    (first, expected), (last, loss) = [list(losses.items())[index] for index in (0, -1)]
    if not np.isclose(loss, expected, rtol=SAME_START, atol=0.0, equal_nan=True):
        warnings.warn(
            "All ways of a comparison must start from the same weights, otherwise the verdict is of no use: leave out "
            "the callback, or the part of a way, that changes the weights or the loss when training begins, for "
            f"instance by loading a file. Received: a loss of {expected:.4g} for {first!r} and of {loss:.4g} for "
            f"{last!r} before the first step, with seed {seed}",
            stacklevel=2,
        )


def _check_trainers(ways: Mapping[str, Any], trainers: list[Any]) -> None:
    for name, trainer in zip(ways, trainers, strict=True):
        if not callable(getattr(trainer, "fit", None)):
            raise ValueError(f"`ways` must return objects with `fit`. Received: {trainer!r} of {name!r}")
