"""Checks of the arguments of `compare`, and the data that `validation_split` makes of them."""

from __future__ import annotations

import copy
import difflib
import inspect
import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from importance_sampling.comparison.clock import UNITS
from importance_sampling.utils.structures import map_leaves
from importance_sampling.utils.validation import is_int, is_real

DEFAULT_SECONDS = 30.0
NOT_OF_FIT = ("self", "x", "y", "epochs", "verbose", "initial_epoch")
# Names of other libraries for arguments of `compare`, which aren't similar to them.
SYNONYMS = {"metric": "monitor", "metrics": "monitor", "time": "seconds", "repeats": "seeds", "runs": "seeds"}


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


def check_builder(build_model: Any) -> None:
    """Check that `build_model` is a function, and not the model itself."""
    if isinstance(build_model, keras.Model):
        raise ValueError(
            "`build_model` must be the function that builds the model, and not a model, because every run needs a new "
            "one: pass the function without calling it, `compare(build_model, ...)`. "
            f"Received: build_model={build_model!r}"
        )
    if not callable(build_model):
        raise ValueError(
            "`build_model` must be a function without arguments that returns a compiled model, because every run needs "
            f"a new one. Received: build_model={build_model!r}"
        )


def checked_ways(ways: Any) -> dict[str, Callable[[keras.Model], Any]]:
    """Return the ways as a dict."""
    if not isinstance(ways, Mapping) or len(ways) < 2 or not all(map(callable, ways.values())):
        raise ValueError(
            "`ways` must be a dict of at least two functions of a model, the baseline first, such as "
            '{"uniform": lambda model: model, "importance": ImportanceTraining}. '
            f"Received: ways={ways!r}"
        )
    return dict(ways)


def checked(arguments: dict[str, Any], own: Sequence[str]) -> dict[str, Any]:
    """Check the arguments of `fit` that a comparison can't pass on as they are.

    Args:
        arguments: by name, with "x" and "y".
        own: the names of the other arguments of `compare`.
    """
    names = [name for name in inspect.signature(keras.Model.fit).parameters if name not in NOT_OF_FIT]
    for name, value in arguments.items():
        if name not in (*names, "x", "y"):
            close = difflib.get_close_matches(name, [*names, *own], 1)
            similar = SYNONYMS.get(name) or (close[0] if close else None)
            hint = f"Did you mean `{similar}`? " if similar else ""
            raise TypeError(
                f"`compare` has no argument `{name}`. {hint}Its own arguments: {', '.join(own)}. Those of `model.fit`: "
                f"{', '.join(names)}. Received: {name}={reprlib.repr(value)}"
            )
    for name in ("x", "validation_data"):
        if hasattr(arguments.get(name), "__next__"):
            raise ValueError(
                f"`{name}` must be data that can be read several times, because every way trains on it. Use arrays, a "
                f"`tf.data.Dataset` or a `keras.utils.PyDataset`. Received: {name}={arguments[name]!r}"
            )
    check_data(arguments)
    callbacks = arguments.get("callbacks")
    if callbacks is not None and not isinstance(callbacks, (list, tuple)):
        arguments["callbacks"] = [callbacks]
    _check_callbacks(arguments.get("callbacks"))
    return arguments


def check_data(arguments: Mapping[str, Any], model: keras.Model | None = None) -> None:
    """Check that `x` and `y` aren't the training data and the validation data.

    Args:
        arguments: by name.
        model: with a model, pairs of equally many rows are found, too.
    """
    x, y = arguments["x"], arguments.get("y")
    is_single = len(getattr(model, "inputs", None) or ()) == 1
    rows = [_rows_of_pair(part) for part in (x, y)]
    streams = all(hasattr(part, "__iter__") or hasattr(part, "__getitem__") for part in (x, y)) and not any(
        isinstance(part, (list, tuple, Mapping)) or hasattr(part, "shape") for part in (x, y)
    )
    if streams or (None not in rows and (rows[0] != rows[1] or is_single)):
        first = "a dataset" if streams else "the inputs alone"
        raise ValueError(
            f"`x` must be {first}, and `y` {'None' if streams else 'the targets'}: pass the validation data as "
            f"`validation_data=`. Received: x and y that are both {'datasets' if streams else 'tuples of arrays'} "
            f"({type(x).__name__} and {type(y).__name__})"
        )


def _rows_of_pair(data: Any) -> int | None:
    """Return the number of rows of a tuple (x, y) or (x, y, sample_weight); None for other data."""
    if not isinstance(data, tuple) or len(data) not in (2, 3) or not all(getattr(part, "shape", ()) for part in data):
        return None
    rows = {int(part.shape[0]) for part in data}
    return rows.pop() if len(rows) == 1 else None


def _check_callbacks(callbacks: Any) -> None:
    kind = getattr(keras.callbacks, "OrbaxCheckpoint", ())  # Keras 3.12
    if any(isinstance(callback, kind) for callback in callbacks or ()):
        raise ValueError(
            "`callbacks` of a comparison can't contain an `OrbaxCheckpoint`, because its runs would write into one "
            f"folder: leave it out, or use a `ModelCheckpoint`. Received: callbacks={callbacks!r}"
        )
    try:
        copy.deepcopy(callbacks)
    except Exception as error:
        raise ValueError(
            "`callbacks` must be a list of callbacks that `copy.deepcopy` can copy: every run has its own. "
            f"Received: callbacks={callbacks!r} ({type(error).__name__}: {error})"
        ) from error
    wrong = [one for one in keras.tree.flatten(callbacks or []) if not hasattr(one, "set_model")]
    if wrong:
        raise ValueError(
            "`callbacks` must be a list of callbacks, objects such as `keras.callbacks.EarlyStopping()`. "
            f"Received: callbacks={callbacks!r}"
        )


def with_split(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with validation data in place of `validation_split`."""
    split = arguments.pop("validation_split", 0.0)
    if not split or arguments.get("validation_data") is not None:
        return arguments
    if not is_real(split) or not 0 < split < 1 or is_stream(arguments["x"]):
        raise ValueError(
            "`validation_split` must be a number in (0, 1), and the data arrays. Pass `validation_data` otherwise. "
            f"Received: validation_split={split!r}, x of type {type(arguments['x']).__name__}"
        )
    names = [name for name in ("x", "y", "sample_weight") if arguments.get(name) is not None]
    rows = int(keras.tree.flatten(arguments["x"])[0].shape[0])
    first = math.floor(rows * (1.0 - split))
    validation = tuple(rows_of(arguments[name], first, rows) for name in names)
    return arguments | {name: rows_of(arguments[name], 0, first) for name in names} | {"validation_data": validation}


def rows_of(data: Any, start: int, stop: int) -> Any:
    """Return rows of all arrays in a structure."""
    return map_leaves(lambda part: part[start:stop], data)


def is_stream(x: Any) -> bool:
    """Return True if x yields batches: a dataset or loader, and not arrays."""
    return not all(hasattr(part, "shape") for part in keras.tree.flatten(x))
