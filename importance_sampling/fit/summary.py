"""Write the summary of a `fit`: the share of importance steps, or the reason why there were none."""

from __future__ import annotations

import keras

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.fit.controller import FitController

INTERRUPTED_EARLY = "fit was interrupted before the first step."


def summarise_interrupted(error: BaseException, name: str, controller: FitController) -> str:
    """Return the summary of a `fit` that ended with an error: the error first, then the steps until then.

    Args:
        error: the error that `fit` raises.
        name, controller: as for `summarise`.

    Returns:
        str.
    """
    steps = controller.state.counters.steps - controller.started.steps
    error_name = type(error).__name__
    if not steps:
        return f"fit was interrupted by {error_name} before the first step."
    first = f"fit was interrupted by {error_name} after {steps} step{'s' * (steps > 1)}."
    try:
        return f"{first} {summarise(name, controller)}"
    except Exception:  # reading the averages from the device may fail, which must not hide the error
        return first


def summarise(name: str, controller: FitController) -> str:
    """Return the summary of a `fit`: the main result in the first line, details in further lines.

    Args:
        name: str, the name of the trainer's class.
        controller: the `FitController` of the `fit`.

    Returns:
        str.
    """
    counters, started = controller.state.counters, controller.started
    steps = counters.steps - started.steps
    importance_steps = counters.importance_steps - started.importance_steps
    condition, signals = controller.condition, controller.signals
    if importance_steps:
        description = controller.strategy.describe(name, importance_steps, steps)
        return description or _summarise_importance(controller, importance_steps, steps)
    if controller.reason is not None:
        return f"Importance sampling stayed off and all {steps} steps were uniform steps: {controller.reason}."
    if not condition.probes:
        return f"Importance sampling was switched off by tau_th; all {steps} steps were uniform steps."
    return (
        f"The gate stayed closed and all {steps} steps were uniform steps: {condition.explain(signals)}, "
        f"tau {signals.tau:.2f}."
    )


def _summarise_importance(controller: FitController, importance_steps: int, steps: int) -> str:
    count, effective, largest, unusable = backend.to_host(controller.state.totals)
    opened_at = controller.state.counters.first_importance_step - controller.started.steps
    signals = controller.signals
    lines = [
        f"The gate opened at step {opened_at} and {importance_steps / steps:.0%} of {steps} steps were importance "
        f"steps: {controller.condition.explain(signals)}, tau {signals.tau:.2f}, largest weight {largest:.2f}, "
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
