"""The verdict of a comparison: one sentence about a way to train, compared with a baseline, and advice."""

from __future__ import annotations

import math
from collections.abc import Sequence

from importance_sampling.comparison.figure import LOSS, Figure
from importance_sampling.comparison.outcome import (
    MIN_SPEED_UP,
    Curve,
    Effect,
    Outcome,
    diverged,
    outcome,
)

# Shares of importance steps.
SMALL_SHARE = 0.2  # which the verdict mentions
TINY_SHARE = 0.01  # which can't have made a difference


def verdict(
    curves: Sequence[Curve],
    baselines: Sequence[Curve],
    name: str = "importance sampling",
    baseline: str = "uniform training",
    figure: Figure = LOSS,
    share: float | None = None,
    reason: str = "",
) -> str:
    """Return whether a way to train is faster than a baseline, as one sentence with advice.

    `outcome` defines which differences count. Numbers in brackets are the number of seeds, and the range over them.

    Args:
        curves: the curves of the way, one per seed; lower values are better, so a `figure` that is maximised has its
            sign changed.
        baselines: the curves of the baseline, with the same seeds in the same order.
        name, baseline: str, what the sentence calls them.
        figure: `Figure` that the curves show, which the sentence names.
        share: float in [0, 1] or None, that of importance steps in the steps with all seeds. None (default): not known.
        reason: str, default "": sentences on why a way took few importance steps, or none.
    """
    first, count = _capitalised(name), len(curves)
    result = outcome(curves, baselines)
    if result.kind == "diverged":
        failed = [sum(map(diverged, runs)) for runs in (curves, baselines)]
        cause = figure.name if figure.key == "loss" else f"loss or {figure.name}"
        return _divergence(first, baseline, cause, *failed, count)
    if share == 0 or (share is not None and share < TINY_SHARE and result.kind not in ("slower", "missed")):
        amount = "almost no" if share else "no"
        return f"No difference on this task: {name} took {amount} importance steps. {reason}".strip()
    if result.kind == "untimed":
        return "No verdict: the training was too short to be timed. Set a larger budget."
    if result.kind == "no progress":
        direction = "rise above" if figure.maximised else "fall below"
        return (
            f"No verdict: the {figure.name} of {baseline} did not {direction} that of the untrained model. Train for "
            "longer, or at another learning rate."
        )
    target = f"{baseline}'s {figure.best} {figure.name}"
    is_small = share is not None and share < SMALL_SHARE
    note = f" {first} took only {_percent(share)} of the steps. {reason}".rstrip() if is_small else ""
    if count == 1:
        return f"{_one_seed(first, baseline, target, result)}{note}"
    seeds = f"{count} seeds"
    if result.kind == "missed":
        spread = f"{100 * result.missed.low:.0f} % to {100 * result.missed.high:.0f} %"
        return (
            f"{first} did not reach {target} with any of {seeds}: it made {100 * result.missed.mean:.0f} % less "
            f"progress ({spread}).{note} Keep {baseline}."
        )
    if result.kind in ("faster", "slower"):
        text = f"{_speed(first, baseline, target, result)} ({seeds}, {_range(result.speeds)})"
        if result.kind == "slower":
            return f"{text}{_ending(result)}.{note} Keep {baseline}."
        text = f"{text}{_lowest(result, figure)}"
        if result.final <= 0:
            return f"{text}{_ending(result)}.{note} Use it."
        return f"{text}{_ending(result)}: stop early, for example with {figure.stopping}, or keep {baseline}.{note}"
    text = f"{_speed(name, baseline, target, result)} on average ({seeds}, {_range(result.speeds)})"
    text += _ending(result)
    if result.kind == "equal":
        return f"No difference on this task: {text}.{note} Keep {baseline}."
    unclear = "The seeds are too few, or differ too much, to tell: compare with more seeds."
    advice = f"Keep {baseline}." if is_small else unclear
    return f"No clear difference on this task: {text}.{note} {advice}"


def _speed(name: str, baseline: str, target: str, result: Outcome) -> str:
    ratio = math.exp(abs(result.speeds.mean))
    number = f"{ratio:.2f}" if ratio < MIN_SPEED_UP else f"{ratio:.1f}"
    if number == "1.00":
        return f"{name} was as fast as {baseline}"
    if result.speeds.mean < 0:
        return f"{name} was {number} times slower than {baseline}"
    return f"{name} reached {target} {number} times sooner"


def _range(speeds: Effect) -> str:
    """Return the range over the seeds, of slowness if the mean is below 1. Two decimals show the side of 1."""
    bounds = sorted(math.exp(math.copysign(1.0, speeds.mean) * bound) for bound in (speeds.low, speeds.high))
    digits = 2 if any(f"{bound:.1f}" == "1.0" for bound in bounds) else 1
    return " to ".join(f"{bound:.{digits}f}" for bound in bounds)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.{1 if fraction < 0.1 else 0}f} %"


def _lowest(result: Outcome, figure: Figure) -> str:
    """Return the part of a sentence on a best value that is better than that of the baseline, or ""."""
    if _percent(-result.lowest) == _percent(-result.final):
        return ""  # the end of the sentence says it
    side, conjunction = "above" if figure.maximised else "below", "" if result.final else "and "
    return f", {conjunction}went {_percent(-result.lowest)} {side} it" * (result.lowest < 0)


def _ending(result: Outcome) -> str:
    """Return the part of a sentence on a final loss that differs, or ""."""
    if not result.final:
        return ""
    conjunction = "but" if (result.speeds.mean < 0) == (result.final < 0) else "and"
    return f", {conjunction} ended {_percent(abs(result.final))} {'worse' if result.final > 0 else 'better'}"


def _one_seed(first: str, baseline: str, target: str, result: Outcome) -> str:
    if result.kind == "missed":
        text = f"{first} did not reach {target}: it made {100 * result.missed.mean:.0f} % less progress"
    elif result.kind == "equal":
        text = f"{first} was about as fast as {baseline} ({math.exp(result.speeds.mean):.2f} times)"
    else:
        text = _speed(first, baseline, target, result)
    return f"{text}, with one seed. The spread between seeds is unknown: compare with three seeds or more."


def _divergence(first: str, baseline: str, loss: str, failed: int, failed_baselines: int, count: int) -> str:
    """Describe runs that ended with a loss that is NaN or infinite."""

    def of(number: int) -> str:
        return "the only run" if count == 1 else f"{number} of {count} runs"

    advice = "Lower the learning rate."
    if not failed:
        text = f"{_capitalised(baseline)} diverged in {of(failed_baselines)}, and {first[0].lower()}{first[1:]} did not"
    elif not failed_baselines:
        text = f"{first} diverged in {of(failed)}, and {baseline} did not"
        advice = f"Keep {baseline}, or lower the learning rate."
    else:
        text = f"{first} diverged in {of(failed)}, and {baseline} in {of(failed_baselines)}"
    return f"No verdict on the speed: {text} (the {loss} became NaN or infinite). {advice}"


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
