"""Check what the methods of a sampler receive and return."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

SUM_TOLERANCE = 1e-6  # of probabilities


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
    if not isinstance(candidates, tuple) or len(candidates) != 2:
        raise ValueError(f"{rule}, as a tuple of two arrays. Received: {candidates!r}")
    indices, scores = np.asarray(candidates[0]), np.asarray(candidates[1], "float64")
    if indices.ndim != 1 or scores.shape != indices.shape or not indices.size:
        raise ValueError(f"{rule}. Received: indices of shape {indices.shape}, scores of shape {scores.shape}")
    if indices.dtype.kind not in "iu":
        raise ValueError(f"{rule}. Indices are integers. Received: indices of dtype {indices.dtype}")
    first, last = indices.min(), indices.max()
    if first < 0 or last >= size:
        raise ValueError(f"{rule}. There are {size} rows. Received: indices from {first} to {last}")
    return indices.astype("int64", copy=False), scores


def check_probabilities(name: str, p: Any, size: int, is_unbiased: bool) -> None:
    """Check the probabilities of the candidates.

    Args:
        name: of the sampler's class.
        p: what `_probabilities` returned.
        size: int, the number of candidates.
        is_unbiased: bool, True if the weights are to make up for the probabilities: then none may be zero.

    Raises:
        ValueError: they aren't a number for each candidate, in [0, 1] and with a sum of 1, or one of them is zero.
    """
    rule = f"`_probabilities` of {name} must return a probability for each of the {size} candidates"
    if np.shape(p) != (size,):
        raise ValueError(f"{rule}. Received: an array of shape {np.shape(p)}")
    total, smallest = float(np.sum(p)), float(np.min(p))
    if not abs(total - 1.0) <= SUM_TOLERANCE or smallest < 0:
        raise ValueError(f"{rule}, with a sum of 1. Received: a sum of {total:.6g}, a smallest value of {smallest:.3g}")
    if is_unbiased and smallest == 0:
        raise ValueError(
            f"{rule}, all above 0: no weight makes up for a sample that is never drawn. Mix in a uniform share, or set "
            f"`unbiased = False` on the sampler. Received: {int(np.sum(np.asarray(p) == 0))} probabilities of 0"
        )


def check_num_picked(name: str, num_picked: Any) -> None:
    """Check the number of samples to draw.

    Args:
        name: of the sampler's class.
        num_picked: what `_num_picked` returned.

    Raises:
        ValueError: it isn't an integer of at least 1.
    """
    if not isinstance(num_picked, (int, np.integer)) or num_picked < 1:
        raise ValueError(f"`_num_picked` of {name} must return an integer of at least 1. Received: {num_picked!r}")


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


def saved_array(sampler: Any, name: str) -> np.ndarray:
    """Return an attribute of a sampler as an array that can be saved.

    Args:
        sampler: the sampler.
        name: of the attribute, from `_saved`.

    Raises:
        ValueError: it doesn't exist, or is neither an array nor a number or string.
    """
    value, array = getattr(sampler, name, None), np.array(None)
    with contextlib.suppress(ValueError):  # raised for lists of unequal lengths
        array = np.array(value)
    if array.dtype.hasobject:
        raise ValueError(
            f"`_saved` of {type(sampler).__name__} must name attributes that are arrays, numbers or strings from the "
            "constructor on; attributes with a `state` and a `restore` belong in `_parts`. "
            f"Received: {name!r}, which is {value!r}"
        )
    return array


def are_usable(scores: np.ndarray) -> bool:
    """Return True if scores, float64 `(n,)`, are finite and not negative."""
    return bool(scores.min() >= 0 and scores.max() < np.inf)
