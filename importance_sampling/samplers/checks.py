"""Check what the methods of a sampler receive and return."""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.utils.numerics import all_usable

SUM_TOLERANCE = 1e-3  # of probabilities; sums of 10^7 float32 numbers are off by 1e-4
UNIFORM_TOLERANCE = 1e-9  # of the ratio of two probabilities


def checked_candidates(name: str, candidates: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the candidates of a batch as arrays.

    Args:
        name: of the sampler's class.
        candidates: what `_candidates` returned: row indices `(n,)` and scores `(n,)`.
        size: int, the number of rows.

    Returns:
        Indices, int64 `(n,)`, and scores, float64 `(n,)`, which may be negative, NaN or infinite.

    Raises:
        ValueError: they aren't integers in [0, size) and as many numbers.
    """
    rule = f"`_candidates` of {name} must return the row index and the score of each of at least one candidate"
    try:
        indices, scores = candidates
        indices, scores = np.asarray(indices), np.asarray(scores, "float64")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{rule}, as two arrays of numbers. Received: {type(candidates)} ({error})") from error
    if indices.ndim != 1 or scores.shape != indices.shape or not indices.size:
        raise ValueError(f"{rule}. Received: indices of shape {indices.shape}, scores of shape {scores.shape}")
    if indices.dtype.kind not in "iu" and not (indices.dtype.kind == "f" and (indices % 1 == 0).all()):
        raise ValueError(f"{rule}. Indices are integers. Received: indices {indices[:3]}..., of dtype {indices.dtype}")
    first, last = indices.min(), indices.max()
    if first < 0 or last >= size:
        raise ValueError(f"{rule}. There are {size} rows. Received: indices from {first} to {last}")
    return indices.astype("int64", copy=False), scores


def checked_probabilities(name: str, p: Any, scores: np.ndarray, is_unbiased: bool) -> np.ndarray:
    """Return the probabilities of the candidates as an array, float64 `(n,)`.

    Args:
        name: of the sampler's class.
        p: what `_probabilities` returned.
        scores: float64 `(n,)`, of the candidates.
        is_unbiased: bool, True if the weights are to make up for the probabilities. Then a candidate can have a
            probability of 0 only if its score is 0, so that it has nothing to contribute.

    Raises:
        ValueError: they aren't a number for each candidate, in [0, 1] and with a sum of 1, or one of them is 0.
    """
    rule = f"`_probabilities` of {name} must return a probability for each of the {len(scores)} candidates"
    try:
        p = np.asarray(p, "float64")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{rule}. Received: {type(p)} ({error})") from error
    if p.shape != scores.shape:
        raise ValueError(f"{rule}. Received: an array of shape {p.shape}")
    total, smallest = float(p.sum()), float(p.min())
    if not abs(total - 1.0) <= SUM_TOLERANCE or smallest < 0:
        raise ValueError(f"{rule}, with a sum of 1. Received: a sum of {total:.6g}, a smallest value of {smallest:.3g}")
    if is_unbiased and smallest == 0 and ((p == 0) & (scores != 0)).any():
        raise ValueError(
            f"{rule}, above 0 unless its score is 0: no weight makes up for a sample that is never drawn. Mix in a "
            "uniform share, or set `unbiased = False` on the sampler. "
            f"Received: {int(((p == 0) & (scores != 0)).sum())} probabilities of 0"
        )
    return p


def checked_num_picked(name: str, num_picked: Any) -> int:
    """Return the number of samples to draw.

    Args:
        name: of the sampler's class.
        num_picked: what `_num_picked` returned.

    Raises:
        ValueError: it isn't an integer of at least 1.
    """
    is_number = isinstance(num_picked, (int, float, np.number)) and not isinstance(num_picked, bool)
    if not is_number or num_picked < 1 or num_picked % 1 != 0:
        raise ValueError(f"`_num_picked` of {name} must return an integer of at least 1. Received: {num_picked!r}")
    return int(num_picked)


def is_uniform_draw(scores: np.ndarray, p: np.ndarray) -> bool:
    """Return True if a batch was drawn uniformly because the scores can't be used.

    Args:
        scores: float64 `(n,)`, of the candidates.
        p: float64 `(n,)`, the probabilities.
    """
    return not all_usable(scores) and bool(p.max() <= p.min() * (1.0 + UNIFORM_TOLERANCE))


def usable_measurements(indices: Any, scores: Any) -> tuple[np.ndarray, np.ndarray]:
    """Remove negative and non-finite scores from the arguments of `update`.

    Args:
        indices: int `(b,)`.
        scores: float `(b,)`.

    Returns:
        Indices, int64 `(n,)`, and scores, float64 `(n,)`.

    Raises:
        ValueError: the shapes differ.
    """
    indices, scores = np.asarray(indices, "int64"), np.asarray(scores, "float64")
    if indices.ndim != 1 or indices.shape != scores.shape:
        raise ValueError(
            "`indices` and `scores` must have one number for each sample. "
            f"Received: indices of shape {indices.shape}, scores of shape {scores.shape}"
        )
    usable = np.isfinite(scores) & (scores >= 0)
    return indices[usable], scores[usable]


def check_saved(sampler: Any) -> None:
    """Check that the attributes in `_saved` of a new sampler can be saved, as far as they have a value.

    Args:
        sampler: a sampler, or one of its parts.

    Raises:
        ValueError: one of them doesn't exist, or is neither an array nor a number or string.
    """
    for name in sampler._saved:
        if getattr(sampler, name, ...) is not None:
            saved_array(sampler, name)
    for part in sampler._parts:
        if hasattr(getattr(sampler, part), "_parts"):
            check_saved(getattr(sampler, part))


def saved_array(sampler: Any, name: str) -> np.ndarray:
    """Return an attribute of a sampler as an array that can be saved.

    Args:
        sampler: the sampler.
        name: of the attribute, from `_saved`.

    Raises:
        ValueError: it doesn't exist, or is neither an array nor a number or string.
    """
    value = getattr(sampler, name, None)
    try:
        array = np.array(value)
    except ValueError:  # lists of unequal lengths
        array = np.array(None)
    if array.dtype.hasobject:
        raise ValueError(
            f"`_saved` of {type(sampler).__name__} must name attributes that are arrays, numbers or strings. Those "
            f"with a `state` and a `restore` belong in `_parts`. Received: {name!r}, which is {value!r}"
        )
    return array
