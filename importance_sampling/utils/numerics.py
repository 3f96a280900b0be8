"""Run one formula on NumPy arrays and on tensors.

Functions of scores and random numbers are written once, with the function names that NumPy and `keras.ops` share. They
compute on the host in float64 for NumPy arrays, and on the device in float32 for tensors. Neither `floatx` nor a dtype
policy changes that: scores, weights, signals and random numbers are float32 on the device, and are cast where they meet
values of the model.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

FLOAT = "float32"
HOST_TYPES = (np.ndarray, np.generic, bool, int, float, list, tuple)


def array_namespace(*values: Any) -> Any:
    """Return `numpy` if every value is a Python number, a sequence or a NumPy array, else `keras.ops`."""
    return np if all(isinstance(value, HOST_TYPES) for value in values) else ops


def as_floats(value: Any, xp: Any) -> Any:
    """Convert a value to the float type of a namespace: float64 for `numpy`, float32 for `keras.ops`."""
    return np.asarray(value, "float64") if xp is np else ops.cast(value, FLOAT)


def at_least_float32(tensor: Any) -> Any:
    """Cast float16 and bfloat16 to float32; keep float32 and float64."""
    return ops.cast(tensor, at_least_float32_dtype(tensor.dtype))


def at_least_float32_dtype(dtype: Any) -> str:
    """Return float32 for float16 and bfloat16, and the dtype itself for float32 and float64."""
    return keras.backend.result_type(dtype, FLOAT)
