"""Run one formula on NumPy arrays and on tensors, among them the one from scores to sampling probabilities.

Functions of scores and random numbers are written once, with the function names that NumPy and `keras.ops` share. They
compute on the host in float64 for NumPy arrays, and on the device in float32 for tensors. Neither `floatx` nor a dtype
policy changes that: scores, weights, signals and random numbers are float32 on the device, and are cast where they meet
values of the model. Keras is imported only for tensors.

Source: [KF18] Katharopoulos & Fleuret, Not All Samples Are Created Equal, 2018 (arXiv 1803.00942), equation 4, for the
probabilities. The mixture with the uniform distribution is an addition of this library. It bounds the unbiased weights
by 1 / alpha.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FLOAT = "float32"
DEFAULT_ALPHA = 0.1  # uniform share of the sampling probabilities
HOST_TYPES = (np.ndarray, np.generic, bool, int, float, list, tuple)


def array_namespace(*values: Any) -> Any:
    """Return `numpy` if every value is a Python number, a sequence or a NumPy array, else `keras.ops`."""
    if all(isinstance(value, HOST_TYPES) for value in values):
        return np
    from keras import ops

    return ops


def as_floats(value: Any, xp: Any) -> Any:
    """Convert a value to the float type of a namespace: float64 for `numpy`, float32 for `keras.ops`."""
    return np.asarray(value, "float64") if xp is np else xp.cast(value, FLOAT)


def at_least_float32(tensor: Any) -> Any:
    """Cast float16 and bfloat16 to float32; keep float32 and float64."""
    from keras import ops

    return ops.cast(tensor, at_least_float32_dtype(tensor.dtype))


def at_least_float32_dtype(dtype: Any) -> str:
    """Return float32 for float16 and bfloat16, and the dtype itself for float32 and float64."""
    import keras

    dtype = keras.backend.standardize_dtype(dtype)
    return FLOAT if dtype in ("float16", "bfloat16") else dtype


def all_usable(values: np.ndarray) -> bool:
    """Return True if all values, float `(n,)`, are finite and not negative.

    Args:
        values: scores or weights on the host, at least one.

    Example:
        >>> all_usable(np.array([0.0, 2.0])), all_usable(np.array([1.0, np.nan])), all_usable(np.array([-1.0]))
        (True, False, False)
    """
    return bool(values.min() >= 0 and values.max() < np.inf)


def clean_scores(scores: Any) -> tuple[Any, Any]:
    """Scale scores to a maximum of 1, and replace unusable scores by ones.

    Scores are unusable if any of them is NaN, infinite or negative, or if all of them are zero.

    Args:
        scores: float `(pool_size,)`.

    Returns:
        Float `(pool_size,)`, in [0, 1]; and a bool scalar, True if the scores were usable.

    Example:
        >>> clean_scores(np.array([1.0, 4.0, 0.0]))
        (array([0.25, 1.  , 0.  ]), np.True_)
        >>> clean_scores(np.array([1.0, np.nan]))
        (array([1., 1.]), np.False_)
    """
    xp = array_namespace(scores)
    scores = as_floats(scores, xp)
    valid = xp.logical_and(xp.all(xp.isfinite(scores)), xp.all(scores >= 0))
    scores = xp.where(valid, scores, xp.ones_like(scores))
    # Dividing by the maximum keeps the sum and the squares of the scores within the range of float32.
    largest = xp.max(scores)
    usable = xp.logical_and(valid, largest > 0)
    return xp.where(usable, scores / xp.where(largest > 0, largest, 1.0), xp.ones_like(scores)), usable


def probabilities(scores: Any, alpha: float) -> Any:
    """Compute P = (1 - alpha) s / sum(s) + alpha / B. Unusable scores give uniform probabilities.

    Args:
        scores: float `(pool_size,)`, >= 0, unnormalised.
        alpha: float in [0, 1], the uniform share.

    Returns:
        Float `(pool_size,)`, with a sum of 1. No probability is below alpha / B.

    Example:
        >>> probabilities(np.array([1.0, 3.0, 0.0, 4.0]), alpha=0.2)
        array([0.15, 0.35, 0.05, 0.45])

    Source: [KF18], equation 4, where alpha is 0.
    """
    scores, _ = clean_scores(scores)
    return (1.0 - alpha) * scores / array_namespace(scores).sum(scores) + alpha / scores.shape[0]
