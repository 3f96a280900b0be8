"""The learning-rate schedules of the protocol `budget`.

A schedule is a function from the spent fraction of the budget, in [0, 1], to a factor of the learning rate. `plateau`
isn't a function of the budget: it is Keras's `ReduceLROnPlateau` on the test loss, for which a measurement is an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras

from importance_sampling.comparison import Clock

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


def plateau() -> Callable[[Clock], None]:
    """Return a function that follows the measurements of clocks.

    It divides the learning rate by 10 after two measurements of a clock without a lower test loss.
    """
    callbacks: dict[Clock, keras.callbacks.Callback] = {}

    def measured(clock: Clock) -> None:
        if clock not in callbacks:
            callbacks[clock] = keras.callbacks.ReduceLROnPlateau(mode="min", factor=0.1, patience=2, min_delta=0.0)
            callbacks[clock].set_model(clock.model)
            callbacks[clock].on_train_begin()
        callbacks[clock].on_epoch_end(len(clock.points) - 1, {"val_loss": clock.points[-1]["test_loss"]})

    return measured


DECAYS: dict[str, Callable[[float], float]] = {"cosine": cosine, "steps": steps, "warmup-linear": warmup_linear}
NAMES = ("constant", *DECAYS, "plateau")


def options(name: str) -> dict[str, Any]:
    """Return the arguments of `Clock` for a schedule."""
    if name == "plateau":
        return {"measured": plateau()}
    return {"decay": DECAYS[name]} if name in DECAYS else {}


PLATEAU_MEASUREMENTS = 20  # the minimum number of measurements for `plateau`
