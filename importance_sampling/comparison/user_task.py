"""`compare`: train the user's own model in several ways, with equal initial weights and equal budgets."""

from __future__ import annotations

import copy
import difflib
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from importance_sampling.comparison.clock import UNITS, Clock
from importance_sampling.comparison.equal_budget import identical_models, train
from importance_sampling.comparison.result import BASELINE, Comparison
from importance_sampling.training import ImportanceTraining
from importance_sampling.utils.validation import is_int, is_real

WAYS: dict[str, Callable[[keras.Model], Any]] = {
    BASELINE: lambda model: model,
    "importance": ImportanceTraining,
}
DEFAULT_SECONDS = 30.0
MEASUREMENTS = 20
MAX_ROWS = 10000  # training samples in the judgement without validation data
OWN_ARGUMENTS = ("self", "x", "y", "epochs", "verbose", "initial_epoch")


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
    verbose: bool | None = None,
    **fit_arguments: Any,
) -> Comparison:
    """Train a model in several ways, and say whether importance sampling pays off.

    For each seed, all ways start from the same weights and have the same budget. They take turns of half a second, so a
    machine that slows down affects all of them. Evaluation and compilation don't count. The ways are compared by the
    loss on the validation data, or on the first 10,000 training samples if there are no validation data, which is
    evaluated 20 times during training.

    Args:
        build_model: function without arguments that returns a compiled `keras.Model`.
        x, y: as for `model.fit`. Generators are rejected, because they can be read only once.
        ways: mapping from the name of a way to a function that takes a model and returns an object with Keras's `fit`.
            None (default): `{"uniform": lambda model: model, "importance": ImportanceTraining}`. The first way is the
            baseline, and the verdict is about the second one.
        seconds: float > 0, seconds of training for each way and seed; default 30.
        epochs: int >= 1, a budget in epochs instead of seconds. Use it if the learning rate follows a schedule.
        cost: float > 0, a budget in forward passes of a batch instead of seconds; a uniform step costs 3.
        seeds: int >= 1, default 3; the number of runs of each way.
        verbose: True: show a progress bar. None (default): on a terminal and in notebooks. False: never.
        **fit_arguments: further arguments of `model.fit`, such as `batch_size`, `validation_data`, `validation_split`,
            `class_weight` and `callbacks`. Each run has its own copies of the callbacks.

    Returns:
        `Comparison`, with a table, a plot and the verdict.

    Raises:
        ValueError: an argument is out of its range, or the data can be read only once.
        TypeError: `model.fit` has no argument with this name.

    Example:
        >>> comparison = importance_sampling.compare(
        ...     build_model, x_train, y_train, batch_size=128, validation_data=(x_val, y_val), seconds=60
        ... )
        >>> print(comparison)
        >>> comparison.plot("comparison.png")
    """
    by, budget = budget_of(dict(seconds=seconds, cost=cost, epochs=epochs))
    ways = _ways(WAYS if ways is None else ways)
    if not is_int(seeds) or seeds < 1:
        raise ValueError(f"`seeds` must be an int of at least 1, the number of runs. Received: seeds={seeds!r}")
    arguments = with_split(_checked(dict(fit_arguments, x=x, y=y)))
    evaluation = Evaluation(arguments)
    result = Comparison(budget, by, evaluation.loss_name, tuple(ways))
    progress = Progress(list(ways), seeds, budget, is_shown() if verbose is None else bool(verbose))
    for seed in range(1, seeds + 1):
        models = models_of(build_model, len(ways), seed, evaluation)
        trainers = [way(model) for way, model in zip(ways.values(), models, strict=True)]
        _check_trainers(ways, trainers)

        def done(index: int, clock: Clock, trainers: list = trainers, seed: int = seed) -> None:
            result.add(list(ways)[index], seed, clock.record(), trainers[index])

        def measured(clock: Clock, trainers: list = trainers, seed: int = seed) -> None:
            progress.update(list(ways)[trainers.index(clock.trainer)], seed, clock)

        train(trainers, arguments, evaluation, budget, by, done, measurements=MEASUREMENTS, measured=measured)
    return result


class Evaluation:
    """The judge of a comparison: evaluates a model on the validation data, otherwise on training samples.

    Args:
        arguments: the arguments of `fit`, by name.

    Attributes:
        loss_name: str, "validation loss" or "training loss".
    """

    def __init__(self, arguments: Mapping[str, Any]):
        validation = arguments.get("validation_data")
        self.loss_name = "training loss" if validation is None else "validation loss"
        size = arguments.get("validation_batch_size") or arguments.get("batch_size")
        steps = arguments.get("validation_steps")
        if validation is None:
            names = ("x", "y") if _is_stream(arguments["x"]) else ("x", "y", "sample_weight")
            data = [arguments.get(name) for name in names]
            steps = arguments.get("steps_per_epoch")
            if not _is_stream(arguments["x"]):
                data, steps = [_rows(part, 0, MAX_ROWS) for part in data], None
        else:
            data = list(validation) if isinstance(validation, (tuple, list)) else [validation]
        self._arguments = dict(zip(("x", "y", "sample_weight"), data, strict=False), batch_size=size, steps=steps)

    def __call__(self, model: keras.Model) -> dict[str, float]:
        """Return the loss and the metrics. The metrics of a running `fit` aren't changed."""
        variables = [variable for metric in model.metrics for variable in metric.variables]
        values = [keras.ops.convert_to_numpy(variable) for variable in variables]
        results = model.evaluate(**self._arguments, verbose=0, return_dict=True)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return {name: float(value) for name, value in results.items() if np.ndim(value) == 0}


class Progress:
    """Shows the progress of all runs in Keras's progress bar, with the latest loss of each way.

    Args:
        ways: the names of the ways.
        seeds: int, the number of seeds.
        budget: float, of each run.
        is_shown: bool.
    """

    def __init__(self, ways: list[str], seeds: int, budget: float, is_shown: bool):
        self._ways, self._budget = ways, budget
        self._spent = dict.fromkeys(ways, 0.0)
        self._bar = keras.utils.Progbar(100, stateful_metrics=ways, unit_name="percent") if is_shown else None
        self._runs = seeds * len(ways)

    def update(self, way: str, seed: int, clock: Clock) -> None:
        """Show the latest measurement of a run."""
        self._spent[way] = seed - 1 + min(clock.spent / self._budget, 1.0)
        if self._bar is not None:
            percent = math.floor(100 * sum(self._spent.values()) / self._runs)
            self._bar.update(max(percent, 1), [(way, clock.points[-1]["loss"])])


def is_shown() -> bool:
    """Return True on a terminal and in notebooks."""
    return sys.stdout.isatty() or "ipykernel" in sys.modules


def budget_of(amounts: Mapping[str, Any]) -> tuple[str, float]:
    """Return the unit and the amount of the budget."""
    used = {by: amount for by, amount in amounts.items() if amount is not None}
    received = ", ".join(f"{by}={amount!r}" for by, amount in used.items())
    if len(used) > 1:
        raise ValueError(f"Set only one of `{'`, `'.join(UNITS)}`: the budget of each way. Received: {received}")
    by, amount = next(iter(used.items()), ("seconds", DEFAULT_SECONDS))
    valid = is_int(amount) if by == "epochs" else is_real(amount) and math.isfinite(amount)
    if not valid or amount <= 0:
        kind = "an int" if by == "epochs" else "a number"
        raise ValueError(f"`{by}` must be {kind} above 0, the budget of each way. Received: {received}")
    return by, amount


def _ways(ways: Any) -> dict[str, Callable[[keras.Model], Any]]:
    if not isinstance(ways, Mapping) or len(ways) < 2 or not all(map(callable, ways.values())):
        raise ValueError(
            "`ways` must be a dict of at least two functions of a model, the baseline first, such as "
            '{"uniform": lambda model: model, "importance": ImportanceTraining}. '
            f"Received: ways={ways!r}"
        )
    return dict(ways)


def _checked(arguments: dict[str, Any]) -> dict[str, Any]:
    """Check the arguments of `fit` that a comparison can't pass on as they are."""
    names = [name for name in inspect.signature(keras.Model.fit).parameters if name not in OWN_ARGUMENTS]
    for name in arguments:
        if name not in (*names, "x", "y"):
            close = difflib.get_close_matches(name, names, 1)
            hint = f" Did you mean `{close[0]}`?" if close else f" Its arguments: {', '.join(names)}."
            raise TypeError(f"`model.fit` in a comparison has no argument `{name}`.{hint}")
    for name in ("x", "validation_data"):
        if hasattr(arguments.get(name), "__next__"):
            raise ValueError(
                f"`{name}` must be data that can be read several times, because every way trains on it. Use arrays, a "
                f"`tf.data.Dataset` or a `keras.utils.PyDataset`. Received: {name}={arguments[name]!r}"
            )
    callbacks = arguments.get("callbacks")
    if callbacks is not None and not isinstance(callbacks, (list, tuple)):
        arguments["callbacks"] = [callbacks]
    try:
        copy.deepcopy(arguments.get("callbacks"))
    except Exception as error:
        raise ValueError(
            "`callbacks` must be a list of callbacks that `copy.deepcopy` can copy: every run has its own. "
            f"Received: callbacks={callbacks!r} ({type(error).__name__}: {error})"
        ) from error
    return arguments


def with_split(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with validation data in place of `validation_split`."""
    split = arguments.pop("validation_split", 0.0)
    if not split or arguments.get("validation_data") is not None:
        return arguments
    if not is_real(split) or not 0 < split < 1 or _is_stream(arguments["x"]):
        raise ValueError(
            "`validation_split` must be a number in (0, 1), and the data arrays. Pass `validation_data` otherwise. "
            f"Received: validation_split={split!r}, x of type {type(arguments['x']).__name__}"
        )
    names = [name for name in ("x", "y", "sample_weight") if arguments.get(name) is not None]
    rows = int(keras.tree.flatten(arguments["x"])[0].shape[0])
    first = math.floor(rows * (1.0 - split))
    validation = tuple(_rows(arguments[name], first, rows) for name in names)
    return arguments | {name: _rows(arguments[name], 0, first) for name in names} | {"validation_data": validation}


def _rows(data: Any, start: int, stop: int) -> Any:
    """Return rows of all arrays in a structure."""
    return keras.tree.map_structure(lambda part: None if part is None else part[start:stop], data)


def _is_stream(x: Any) -> bool:
    """Return True if x yields batches: a dataset or loader, and not arrays."""
    return not all(hasattr(part, "shape") for part in keras.tree.flatten(x))


def models_of(build_model: Callable[[], keras.Model], count: int, seed: int, judge: Evaluation) -> list[keras.Model]:
    """Return compiled models with equal weights."""
    if not callable(build_model):
        raise ValueError(
            "`build_model` must be a function without arguments that returns a compiled model, because every run needs "
            f"a new one. Received: build_model={build_model!r}"
        )
    models = identical_models(build_model, count, seed)
    for model in models:
        if not isinstance(model, keras.Model) or not model.compiled:
            raise ValueError(f"`build_model` must return a compiled `keras.Model`. Received: {model!r}")
        if not model.built:
            judge(model)  # builds it
            model.set_weights(models[0].get_weights())
    return models


def _check_trainers(ways: Mapping[str, Any], trainers: list[Any]) -> None:
    for name, trainer in zip(ways, trainers, strict=True):
        if not callable(getattr(trainer, "fit", None)):
            raise ValueError(f"`ways` must return objects with `fit`. Received: {trainer!r} of {name!r}")
