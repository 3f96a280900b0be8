"""What a `fit` tells the user: warnings, which wait until Keras has accepted the data, and the summary."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING

import keras

from importance_sampling import backend
from importance_sampling.backend import keras_internals

if TYPE_CHECKING:
    from importance_sampling.fit.controller import FitController
    from importance_sampling.fit.uniform_fit import UniformFit

PACKAGE = __name__.partition(".")[0]
INTERRUPTED_EARLY = "fit was interrupted before the first step."


class DeferredWarnings:
    """Collects warnings and issues them for the line of the user's code that called the library.

    Keras checks data, arguments and model during the call, some of them in the first step. If Keras refuses them, its
    error is then raised without a warning about importance sampling before it.
    """

    def __init__(self) -> None:
        frame = sys._getframe()
        while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE:
            frame = frame.f_back
        self._location = dict(
            filename=frame.f_code.co_filename,
            lineno=frame.f_lineno,
            module=frame.f_globals.get("__name__"),
            registry=frame.f_globals.setdefault("__warningregistry__", {}),
        )
        self._pending: list[str] = []
        self._is_released = False

    def add(self, message: str) -> None:
        """Add a `UserWarning`, which is issued on release, or immediately if that has happened."""
        self._pending.append(message)
        if self._is_released:
            self.release()

    def release(self) -> None:
        """Issue the collected warnings; warnings added later are issued immediately."""
        self._is_released = True
        while self._pending:
            warnings.warn_explicit(self._pending.pop(0), UserWarning, **self._location)


def summarise_interrupted(error: BaseException, name: str, run: FitController | UniformFit) -> str:
    """Return the summary of a `fit` that ended with an error: the error first, then the steps until then.

    Args:
        error: the error that `fit` raises.
        name, run: as for `summarise`.

    Returns:
        str.
    """
    steps = run.state.counters.steps - run.started_steps
    error_name = type(error).__name__
    if not steps:
        return f"fit was interrupted by {error_name} before the first step."
    first = f"fit was interrupted by {error_name} after {steps} step{'s' * (steps > 1)}."
    try:
        return f"{first} {summarise(name, run)}"
    except Exception:  # reading the averages from the device may fail, which must not hide the error
        return first


def summarise(name: str, run: FitController | UniformFit) -> str:
    """Return the summary of a `fit`: the main result in the first line, details in further lines.

    Args:
        name: str, the name of the trainer's class.
        run: the `FitController` of the `fit`, or the `UniformFit`.

    Returns:
        str.
    """
    steps = run.state.counters.steps - run.started_steps
    if run.importance_steps:
        description = run.strategy.describe(name, run.importance_steps, steps)
        return description or _summarise_importance(run, steps)
    if run.reason is not None:
        return f"Importance sampling stayed off and all {steps} steps were uniform steps: {run.reason}."
    if not run.condition.probes:
        return f"Importance sampling was switched off by tau_th; all {steps} steps were uniform steps."
    return (
        f"The gate stayed closed and all {steps} steps were uniform steps: {run.condition.explain(run.signals)}, "
        f"tau {run.signals.tau:.2f}."
    )


def _summarise_importance(controller: FitController, steps: int) -> str:
    count, effective, largest, unusable = backend.to_host(controller.state.totals)
    opened_at = controller.state.counters.first_importance_step - controller.started_steps
    signals, share = controller.signals, controller.importance_steps / steps
    lines = [
        f"The gate opened at step {opened_at} and {share:.0%} of {steps} steps were importance steps: "
        f"{controller.condition.explain(signals)}, tau {signals.tau:.2f}, largest weight {largest:.2f}, "
        f"effective sample size {effective / count:.1f} of {controller.strategy.batch_size}."
    ]
    if unusable:
        lines.append(f"In {unusable:.0f} steps the scores were NaN, negative or all zero, and weren't used.")
    if controller.reason is not None:
        lines.append(f"Then importance sampling was switched off: {controller.reason}.")
    return "\n".join(lines + controller.strategy.notes() + layer_notes(controller.model))


def layer_notes(model: keras.Model) -> list[str]:
    """Return lines on the layers of the model that affect the figures of importance steps."""
    layers = keras_internals.layers_of(model)
    names = {base.__name__ for layer in layers for base in type(layer).__mro__}
    lines = []
    if names & {"BatchNormalization", "BatchRenormalization"}:
        lines.append(
            "The model has batch normalisation: its statistics come from the drawn batches, and the figures of "
            "importance steps are computed in inference mode."
        )
    if any(map(_has_dropout, layers)):
        lines.append("The model has dropout: scores and the figures of importance steps are computed without it.")
    return lines


def _has_dropout(layer: keras.Layer) -> bool:
    """Return True if a layer uses dropout. Every recurrent layer has a dropout rate, which may be 0."""
    rates = [getattr(layer, name) for name in ("rate", "dropout", "recurrent_dropout") if hasattr(layer, name)]
    return any("Dropout" in base.__name__ for base in type(layer).__mro__) and (any(rates) or not rates)
