"""One formula for both sides: NumPy in float64 on the host, `keras.ops` in float32 on the device.

Functions of scores and random numbers are written once, against whichever of the two their arguments belong to; the
names that they use are the same in both. Gradients and compiled steps are the business of `backend`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

HOST_TYPES = (np.ndarray, np.generic, bool, int, float, list, tuple)


def side(*values: Any) -> Any:
    """`numpy` if every value is of the host, else `keras.ops`."""
    return np if all(isinstance(value, HOST_TYPES) for value in values) else ops


def floats(value: Any, xp: Any) -> Any:
    """The value in the precision of a side: float64 on the host, float32 on the device."""
    return np.asarray(value, "float64") if xp is np else ops.cast(value, "float32")
