"""What a `fit` tells the user: warnings, which wait until Keras has accepted the data, and the summary."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.conditions.base import UNIFORM_STEP
from importance_sampling.utils.warn import caller, warn_caller

if TYPE_CHECKING:
    from importance_sampling.fit.controller import FitController
    from importance_sampling.fit.uniform_fit import UniformFit

DOCUMENTATION = 'All numbers are explained on the page "The summary" of the documentation, docs/pages/summary.md.'
GRADIENT_NORMS = ("gnorm", "full_gnorm")  # scores from which a variance of gradients can be computed
INTERRUPTED_EARLY = "fit was interrupted before the first step."


class DeferredWarnings:
    """Collects warnings and issues them for the line of the user's code that called the library.

    Keras checks data, arguments and model during the call, some of them in the first step. If Keras refuses them, its
    error is then raised without a warning about importance sampling before it.
    """

    def __init__(self) -> None:
        self._location = caller()
        self._pending: list[str] = []
        self._is_released = False

    def add(self, message: str, at_once: bool = False) -> None:
        """Add a `UserWarning`, which is issued on release, or immediately if that has happened or if `at_once`."""
        self._pending.append(message)
        if self._is_released or at_once:
            self.release()

    def release(self) -> None:
        """Issue the collected warnings; warnings added later are issued immediately."""
        self._is_released = True
        while self._pending:
            warnings.warn_explicit(self._pending.pop(0), UserWarning, **self._location)


def warn_of_another_model(saved: int | None, current: int | None, path: str | Path) -> None:
    """Warn the caller of `load_state` that the state in a file belongs to another moment of the model's training.

    Args:
        saved, current: the steps that the optimizer had taken when the file was written, and has taken now; None or 0
            if that isn't known.
        path: of the file.
    """
    if saved and current and saved != current:
        warn_caller(
            f"The trainer's state was saved with a model after {saved} steps of the optimizer, and this one has taken "
            f"{current}. Load the model and the state of one checkpoint. Received: path={str(path)!r}"
        )


def summarise_interrupted(error: BaseException, name: str, run: FitController | UniformFit) -> str:
    """Return the summary of a `fit` that ended with an error: the error first, then the steps until then.

    Args:
        error: the error that `fit` raises.
        name, run: as for `summarise`.

    Returns:
        str.
    """
    steps = run.progress.steps
    error_name = type(error).__name__
    if not steps:
        return f"fit was interrupted by {error_name} before the first step."
    first = f"fit was interrupted by {error_name} after {_steps(steps)}."
    try:
        return f"{first} {summarise(name, run)}"
    except Exception:  # reading the averages from the device may fail, which must not hide the error
        return first


def summarise(name: str, run: FitController | UniformFit) -> str:
    """Return the summary of a `fit`: in the first line what was done and what it was worth, then the numbers.

    Args:
        name: str, the name of the trainer's class.
        run: the `FitController` of the `fit`, or the `UniformFit`.

    Returns:
        str.
    """
    steps, progress = run.progress.steps, run.progress
    has_reason = run.reason is not None or bool(progress.strategy_steps and run.gating.closing_reason)
    if progress.importance_steps or (progress.strategy_steps and not has_reason):
        description = run.strategy.describe(name, progress.strategy_steps, steps)
        return description or _summarise_importance(run, steps)
    first = f"Uniform training throughout ({_steps(steps)}): "
    if run.reason is not None:
        return f"{first}{run.reason}."
    if not run.condition.probes:
        return f"{first}importance sampling is switched off by tau_th."
    lines = [f"{first}{run.condition.explain(run.gating.signals)}.", *_numbers(_gate_numbers(run))]
    return "\n".join(lines if len(lines) == 1 else [*lines, DOCUMENTATION])


def _summarise_importance(controller: FitController, steps: int) -> str:
    count, effective, largest, unusable = backend.to_host(controller.state.totals)
    progress, closing_reason = controller.progress, controller.gating.closing_reason
    first = f"Importance sampling ran for {progress.importance_steps / steps:.0%} of the {_steps(steps)}"
    cost, condition, measured = _cost(controller), controller.condition, controller.gating.signals
    gain = progress.noise.gain if progress.noise.steps else measured.trusted_gain  # of a `fit` of a few steps
    worth = condition.worth(measured._replace(gain=gain, discount=1.0))
    if not (math.isnan(worth) or condition.rescores or progress.noise.is_reason):
        first += f"; each was worth at most an estimated {worth:.1f} uniform steps, and cost {cost:.1f}"
    elif not math.isnan(gain):
        first += f"; each had {_noise(gain)} gradient noise, and cost {cost:.1f} uniform steps"
    if not math.isnan(gain) and controller.strategy.scorer.score not in GRADIENT_NORMS:
        first += ", if the scores are proportional to norms of gradients"
    numbers = [
        ("first importance step", f"{progress.first_importance_step}", "steps of this fit before it"),
        *_gate_numbers(controller),
        (
            "largest weight",
            f"{largest:.2f}",
            "the largest factor of a sample's loss; 1 for all if they are drawn equally often",
        ),
        (
            "effective batch size",
            f"{effective / count:.1f}",
            f"of {controller.strategy.batch_size}: the more unequal the weights, the smaller; the gain accounts for it",
        ),
    ]
    lines = [f"{first}.", *_numbers(numbers)]
    if unusable:
        lines.append(f"In {unusable:.0f} steps the scores were NaN, negative or all zero, and weren't used.")
    if controller.reason is None and not controller.condition.satisfied and closing_reason:
        lines.append(f"Importance steps ended with step {progress.last_importance_step}: {closing_reason}.")
    if controller.reason is not None:
        lines.append(f"Then importance sampling was switched off: {controller.reason}.")
    lines += controller.strategy.notes()
    if controller.strategy.computes_metrics:
        lines += layer_notes(controller.model, controller.strategy.measures_in_training, bool(largest > 1))
    return "\n".join([*lines, DOCUMENTATION])


def _gate_numbers(controller: FitController) -> list[tuple[str, str, str]]:
    """Return name, value and meaning of the numbers that the gate has measured."""
    signals, context = controller.gating.signals, controller.condition.context
    numbers = [
        (
            "variance gain",
            signals.trusted_gain,
            ".2f",
            "at the end; a uniform batch would have to be so many times larger to have as little gradient noise",
        ),
        ("cost", _cost(controller), ".2f", "of an importance step in uniform steps, counted in forward passes"),
        ("tau", float(signals.tau), ".2f", "how unequal the scores of the samples are; 1 if all are equal"),
        (
            "held-out training samples",
            controller.strategy.num_held_out or math.nan,
            ".0f",
            "left out of importance steps in the first half, to see whether a closer fit helps on new samples",
        ),
        (
            "held-out loss",
            context.held_out_change or math.nan if controller.condition.needs_held_out else math.nan,
            "+.2g",
            f"recent change of {controller.state.losses.held_out_are}, less a standard error; a rise stops "
            "importance steps",
        ),
        ("learning rate", context.relative_learning_rate, ".0%", "of its peak"),
    ]
    return [(name, format(value, spec), meaning) for name, value, spec, meaning in numbers if not math.isnan(value)]


def _numbers(numbers: list[tuple[str, str, str]]) -> list[str]:
    """Return one line per number, aligned."""
    width = max((len(value) for _, value, _ in numbers), default=0)
    return [f"  {name:26}{value:>{width}}  {meaning}" for name, value, meaning in numbers]


def _noise(gain: float) -> str:
    """Return in words how much gradient noise a step has, compared with a uniform step; `gain` is a variance gain."""
    if 0.95 < gain < 1.05:
        return "about as much"
    return f"{gain:.1f} times less" if gain > 1 else f"{1 / gain:.1f} times more"


def _cost(controller: FitController) -> float:
    """Return the cost of an importance step in uniform steps: the mean of those taken, or what the gate assumes."""
    if controller.progress.strategy_steps:
        return controller.progress.importance_cost / controller.progress.strategy_steps / UNIFORM_STEP
    context = controller.strategy.gate_context()
    return context.cost if controller.condition.rescores else context.lowest_cost


def _steps(steps: int) -> str:
    return f"{steps} step{'s' * (steps != 1)}"


def layer_notes(model: keras.Model, in_training: bool, is_weighted: bool) -> list[str]:
    """Return lines on the layers of the model that importance steps treat otherwise than uniform steps.

    Args:
        model: the user's model.
        in_training: bool, True if scores and figures are those of the training step itself.
        is_weighted: bool, False if all samples had a weight of 1.
    """
    layers = keras_internals.layers_of(model)
    lines = []
    if any(map(_normalises, layers)):
        shared = any(getattr(layer, "synchronized", False) for layer in layers)
        parts = ["its statistics count samples by importance weight"] * (is_weighted and not shared)
        parts += ["the figures of importance steps are computed in inference mode"] * (not in_training)
        lines += [f"The model has batch normalisation: {', and '.join(parts)}."] * bool(parts)
    if not in_training and any(map(_has_dropout, layers)):
        lines.append("The model has dropout: scores and the figures of importance steps are computed without it.")
    return lines


def _normalises(layer: keras.Layer) -> bool:
    """Return True if a layer normalises by the statistics of a batch, which a frozen one doesn't."""
    names = {base.__name__ for base in type(layer).__mro__}
    return layer.trainable and bool(names & {"BatchNormalization", "BatchRenormalization", "StatsBatchNorm"})


def _has_dropout(layer: keras.Layer) -> bool:
    """Return True if a layer uses dropout. Every recurrent layer has a dropout rate, which may be 0."""
    rates = [getattr(layer, name) for name in ("rate", "dropout", "recurrent_dropout") if hasattr(layer, name)]
    return any("Dropout" in base.__name__ for base in type(layer).__mro__) and (any(rates) or not rates)
