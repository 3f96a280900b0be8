"""What a `fit` did, in words. Nothing is decided or measured here."""

from __future__ import annotations

from typing import Any

from importance_sampling import backend
from importance_sampling.support import remarks


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
