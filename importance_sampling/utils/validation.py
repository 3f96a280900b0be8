"""Check the arguments that users pass to constructors, and take the default of `seed`.

Every check raises a `ValueError` that states the rule and the value received.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

import numpy as np


def is_int(value: Any) -> bool:
    """Return True if a value is an integer; a bool is not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    """Return True if a value is a real number; a bool and NaN are not."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) and value == value


def is_one_of(value: Any, names: Collection[str]) -> bool:
    """Return True if a value is one of a few names; values of any type can be asked about."""
    return isinstance(value, str) and value in names


def as_array(value: Any) -> np.ndarray:
    """Return a value as an array; an array of an object, without a shape, if NumPy makes none of it."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError):  # such as lists of unequal lengths
        return np.array(None)


def check_seed(seed: int | None) -> None:
    """Check that a seed is an int in [0, 2**31), or None."""
    if seed is not None and (not is_int(seed) or not 0 <= seed < 2**31):
        raise ValueError(f"`seed` must be an int in [0, 2**31), or None. Received: seed={seed!r}")


def seed_from_python() -> int:
    """Return a seed in [0, 2**31) that follows Python's global random generator, without advancing that generator.

    `keras.utils.set_random_seed` sets the state of that generator, and therefore this seed too.
    """
    copy = random.Random(0)
    copy.setstate(random.getstate())
    return copy.randrange(2**31)


def check_alpha(alpha: float) -> None:
    """Check that the uniform share of the sampling probabilities is in (0, 1]."""
    if not is_real(alpha) or not 0 < alpha <= 1:
        raise ValueError(f"`alpha` must be a number in (0, 1]. Received: alpha={alpha!r}")


def check_recompute(recompute: int) -> None:
    """Check that the rescoring interval is an int >= 0, in epochs."""
    if not is_int(recompute) or recompute < 0:
        raise ValueError(f"`recompute` must be an int of at least 0 (never). Received: recompute={recompute!r}")


def check_fraction(**values: Any) -> None:
    """Check that arguments, passed by name, are numbers in [0, 1)."""
    for name, value in values.items():
        if not is_real(value) or not 0 <= value < 1:
            raise ValueError(f"`{name}` must be a number in [0, 1). Received: {name}={value!r}")


def check_positive(**values: Any) -> None:
    """Check that arguments, passed by name, are ints >= 1."""
    for name, value in values.items():
        if not is_int(value) or value < 1:
            raise ValueError(f"`{name}` must be an int of at least 1. Received: {name}={value!r}")


def check_presample(presample: float) -> None:
    """Check that the size of a pool in batches is a finite number of at least 1.

    Raises:
        ValueError: it isn't.
    """
    if not is_real(presample) or not 1 <= presample < float("inf"):
        raise ValueError(f"`presample` must be a finite number of at least 1. Received: presample={presample!r}")


def check_non_negative(**values: Any) -> None:
    """Check that arguments, passed by name, are finite numbers >= 0."""
    for name, value in values.items():
        if not is_real(value) or not 0 <= value < float("inf"):
            raise ValueError(f"`{name}` must be a number of at least 0. Received: {name}={value!r}")


def is_flag(value: Any) -> bool:
    """Return True if a value is True or False, or 1 or 0."""
    return isinstance(value, (bool, np.bool_)) or (is_int(value) and value in (0, 1))


def check_flag(**values: Any) -> None:
    """Check that arguments, passed by name, are True or False, or 1 or 0."""
    for name, value in values.items():
        if not is_flag(value):
            raise ValueError(f"`{name}` must be True or False. Received: {name}={value!r}")


def check_scoring_model(model: Any) -> None:
    """Check that a model can score samples: it has a method `score`, or `score_rows`."""
    if not callable(getattr(model, "score", None)) and not hasattr(model, "score_rows"):
        raise ValueError(
            "`model` must have `score(x, y, batch_size=128)`, as an `OracleWrapper` has. "
            f"Received: model={model!r} (of type {type(model)})"
        )
