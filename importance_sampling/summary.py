"""What a `fit` did, in words. Nothing is decided or measured here."""

from __future__ import annotations

from typing import Any

import keras

from importance_sampling import backend
from importance_sampling.backend import keras_internals

INTERRUPTED_EARLY = "fit was interrupted before the first step."


def summarise_interrupted(error: BaseException, trainer: Any, function: Any, reason: str | None, started: dict) -> str:
    """Return the summary of a `fit` that an error ended: the error first, then the steps up to it.

    Args:
        error: what `fit` raises.
        trainer, function, reason, started: as for `summarise`.
    """
    steps = function.state.counters["steps"] - started["steps"]
    name = type(error).__name__
    if not steps:
        return f"fit was interrupted by {name} before the first step."
    first = f"fit was interrupted by {name} after {steps} step{'s' * (steps > 1)}."
    try:
        return f"{first} {summarise(trainer, function, reason, started)}"
    except Exception:  # the device may fail again as the averages are read, and must not hide the error
        return first


def summarise(trainer: Any, function: Any, reason: str | None, started: dict) -> str:
    """The summary of a `fit`: its first line says what happened, further lines what is worth knowing.

    Args:
        trainer: the trainer.
        function: the `TrainFunction` that ran.
        reason: why there could be no importance sampling, None if there could.
        started: the counters as they were before.
    """
    counters = function.state.counters
    steps = counters["steps"] - started["steps"]
    open_steps = counters["open_steps"] - started["open_steps"]
    reason = reason or function.unsupported
    own = function.steps.summary(type(trainer).__name__, open_steps, steps) if open_steps else None
    if own is not None:
        return own
    if open_steps:
        count, effective, largest, unusable = backend.host(function.state.totals)
        size = function.steps.batch_size
        opened_at = counters["opened_at"] - started["steps"]
        lines = [
            f"Importance sampling opened at step {opened_at} and took {open_steps / steps:.0%} of {steps} "
            f"steps: {trainer.condition.explain(function.signals)}, tau {function.signals.tau:.2f}, largest "
            f"weight {largest:.2f}, effective sample size {effective / count:.1f} of {size}."
        ]
        if unusable:
            lines.append(f"In {unusable:.0f} steps scores were NaN, negative or all zero, and of no use.")
        return "\n".join(lines + function.steps.notes() + remarks(trainer.model))
    if reason is not None:
        return f"Importance sampling stayed off for all {steps} steps: {reason}."
    if not trainer.condition.probes:
        return f"Importance sampling was switched off by tau_th; all {steps} steps were Keras's own."
    return (
        f"Importance sampling stayed closed for all {steps} steps, it was not worth its price: "
        f"{trainer.condition.explain(function.signals)}, tau {function.signals.tau:.2f}."
    )


def remarks(model: keras.Model) -> list[str]:
    """Return the lines that say how the model's layers affect the figures of importance steps."""
    layers = keras_internals.layers_of(model)
    kinds = {kind.__name__ for layer in layers for kind in type(layer).__mro__}
    lines = []
    if kinds & {"BatchNormalization", "BatchRenormalization"}:
        lines.append(
            "The model has batch normalisation: its statistics come from the picked batches, and the figures of "
            "importance steps from inference mode."
        )
    if any(map(_has_dropout, layers)):
        lines.append("The model has dropout: scores and the figures of importance steps are taken without it.")
    return lines


def _has_dropout(layer: keras.Layer) -> bool:
    """Return True for a layer with a dropout rate above 0: every recurrent layer has a rate."""
    rates = [getattr(layer, name) for name in ("rate", "dropout", "recurrent_dropout") if hasattr(layer, name)]
    return any("Dropout" in kind.__name__ for kind in type(layer).__mro__) and (any(rates) or not rates)
