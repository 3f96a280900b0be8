"""The learning-rate schedules of the protocol `budget`.

A schedule is a function from the spent fraction of the budget, in [0, 1], to a factor of the learning rate. `plateau`
isn't a function: it is Keras's `ReduceLROnPlateau` on the test loss, for which a measurement is an epoch.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import keras

WARM_UP = 0.1  # fraction of the budget


def cosine(fraction: float) -> float:
    """Decay from 1 to 0 along a cosine."""
    return 0.5 * (1.0 + math.cos(math.pi * fraction))


def steps(fraction: float) -> float:
    """Return 1, 0.1 from half of the budget on, and 0.01 in the last quarter."""
    return 1.0 if fraction < 0.5 else 0.1 if fraction < 0.75 else 0.01


def warmup_linear(fraction: float) -> float:
    """Rise from 0 to 1 in the first tenth of the budget, and then decay to 0; both linearly."""
    return min(fraction / WARM_UP, (1.0 - fraction) / (1.0 - WARM_UP))


# Divides the rate by 10 after two measurements without a lower test loss.
plateau = functools.partial(keras.callbacks.ReduceLROnPlateau, mode="min", factor=0.1, patience=2, min_delta=0.0)

OPTIONS: dict[str, dict[str, Any]] = {  # the arguments of `Clock` for each schedule
    "constant": {},
    "cosine": {"decay": cosine},
    "steps": {"decay": steps},
    "warmup-linear": {"decay": warmup_linear},
    "plateau": {"measurement_callback": plateau},
}
PLATEAU_MEASUREMENTS = 20  # the minimum number of measurements for `plateau`
