"""The verdict of a comparison: one sentence about a way to train, compared with a baseline.

All functions are pure: they take loss curves, one per seed, and return numbers or text. A curve is a pair of arrays
`(spent, losses)` of equal length, with the spent seconds or cost in ascending order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Curve = tuple[np.ndarray, np.ndarray]

MIN_SPEED_UP = 1.1  # smaller differences don't count
MIN_EXCESS = 0.02  # of the progress of the baseline, as for `excess`
LIMIT = 100.0  # speed-ups are clipped to [1/100, 100]
# The 95 % quantile of Student's t distribution, by degrees of freedom from 1 on; then that of the normal distribution.
T_QUANTILES = (6.31, 2.92, 2.35, 2.13, 2.02, 1.94, 1.89, 1.86, 1.83, 1.81, 1.80, 1.78, 1.77, 1.76, 1.75)
T_LIMIT = 1.70


class Effect(NamedTuple):
    """The mean of a number over seeds, its range, and the half width of its confidence interval (90 %)."""

    mean: float
    low: float
    high: float
    margin: float  # NaN for one seed


def time_to_reach(curve: Curve, level: float) -> float:
    """Return the budget after which the loss first reaches a level, interpolated linearly; infinity if never.

    Example:
        >>> time_to_reach((np.array([0.0, 2.0, 4.0]), np.array([1.0, 0.5, 0.1])), 0.75)
        1.0
    """
    spent, losses = _finite(curve)
    reached = np.flatnonzero(losses <= level)
    if not len(reached):
        return math.inf
    after = reached[0]
    if after == 0 or not np.isfinite(losses[after - 1]):
        return float(spent[after])
    fraction = (losses[after - 1] - level) / (losses[after - 1] - losses[after])
    return float(spent[after - 1] + fraction * (spent[after] - spent[after - 1]))


def speed_up(curve: Curve, baseline: Curve) -> float:
    """Return how many times sooner a curve reaches the lowest loss of the baseline.

    If it never does, the result is at most 1: the time in which the baseline reaches the lowest loss of the curve,
    divided by the time in which the curve reaches it. NaN if the baseline never improves on the untrained model, or if
    its training was too short to be timed.

    Example:
        >>> spent = np.array([0.0, 2.0, 4.0])
        >>> speed_up((spent, np.array([1.0, 0.2, 0.1])), (spent, np.array([1.0, 0.5, 0.2])))
        2.0
    """
    (spent, losses), (own_spent, own_losses) = _finite(baseline), _finite(curve)
    if losses.argmin() == 0 or spent[losses.argmin()] == 0:
        return math.nan
    reached = time_to_reach(curve, losses.min())
    if math.isfinite(reached):
        ratio = spent[losses.argmin()] / reached
    elif own_losses.argmin() == 0:
        ratio = 0.0
    else:
        ratio = min(time_to_reach(baseline, own_losses.min()) / own_spent[own_losses.argmin()], 1.0)
    return float(np.clip(ratio, 1.0 / LIMIT, LIMIT))


def excess(curve: Curve, baseline: Curve) -> float:
    """Return the lowest loss minus that of the baseline, divided by the progress of the baseline.

    Example:
        >>> spent = np.array([0.0, 2.0])
        >>> excess((spent, np.array([1.0, 0.4])), (spent, np.array([1.0, 0.2])))
        0.25
    """
    losses = _finite(baseline)[1]
    return float((_finite(curve)[1].min() - losses.min()) / (losses[0] - losses.min()))


def effect(values: Sequence[float]) -> Effect:
    """Return mean, range and confidence interval of values, one per seed.

    Example:
        >>> effect([1.0, 3.0])  # standard error 1, quantile 6.31
        Effect(mean=2.0, low=1.0, high=3.0, margin=6.31)
    """
    n = len(values)
    if n == 1:
        return Effect(values[0], values[0], values[0], math.nan)
    quantile = T_QUANTILES[n - 2] if n - 2 < len(T_QUANTILES) else T_LIMIT
    margin = quantile * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Effect(float(np.mean(values)), min(values), max(values), margin)


def diverged(curve: Curve) -> bool:
    """Return True if the last loss of a curve is NaN or infinite."""
    return not math.isfinite(curve[1][-1])


def verdict(
    curves: Sequence[Curve],
    baselines: Sequence[Curve],
    name: str = "importance sampling",
    baseline: str = "uniform training",
    loss: str = "validation loss",
    importance_steps: int | None = None,
    reason: str = "",
) -> str:
    """Return whether a way to train is faster than a baseline, as one sentence with advice.

    A difference counts if the confidence interval (90 %) of the mean speed-up over the seeds excludes 1, and if the
    mean is at least 1.1 or at most 1/1.1. Other differences of this size may be accidental. A way that reaches the
    lowest loss of the baseline with no seed, and stays above it by a clear margin, is slower.

    Args:
        curves: the curves of the way, one per seed.
        baselines: the curves of the baseline, with the same seeds in the same order.
        name, baseline: str, what the sentence calls them.
        loss: str, what the sentence calls the loss.
        importance_steps: int or None, the number of importance steps with all seeds. None (default): not known.
        reason: str, default "": why a way took no importance steps.
    """
    first, count = _capitalised(name), len(curves)
    seeds = "one seed" if count == 1 else f"{count} seeds"
    failed, failed_baselines = sum(map(diverged, curves)), sum(map(diverged, baselines))
    if failed or failed_baselines:
        return _divergence(first, baseline, loss, failed, failed_baselines, count)
    if importance_steps == 0:
        return f"No difference on this task: {name} took no importance steps. {reason}".strip()
    pairs = list(zip(curves, baselines, strict=True))
    speeds = [speed_up(*pair) for pair in pairs]
    if any(not spent[-1] for spent, _ in (*curves, *baselines)):
        return "No verdict: the training was too short to be timed. Set a larger budget."
    if any(map(math.isnan, speeds)):
        return (
            f"No verdict: the {loss} of {baseline} did not fall below that of the untrained model. Train for longer, "
            "or at another learning rate."
        )
    mean, low, high, margin = effect(np.log(speeds).tolist())
    ratio, spread = math.exp(mean), f"{seeds}, {math.exp(low):.1f} to {math.exp(high):.1f}"
    target = f"{baseline}'s {'final' if all(map(_ends_lowest, baselines)) else 'lowest'} {loss}"
    missed = [excess(*pair) for pair in pairs if math.isinf(time_to_reach(pair[0], _finite(pair[1])[1].min()))]
    if count == 1:
        return _one_seed(first, baseline, target, ratio, missed)
    if ratio >= MIN_SPEED_UP and mean > margin:
        return f"{first} reached {target} {ratio:.1f} times sooner ({spread}). Use it."
    if len(missed) == count and (above := effect(missed)).mean >= MIN_EXCESS and above.mean > above.margin:
        return (
            f"{first} did not reach {target} with any of {seeds}: it made {above.mean:.0%} less progress "
            f"({above.low:.0%} to {above.high:.0%}). Keep {baseline}."
        )
    if ratio <= 1.0 / MIN_SPEED_UP and mean < -margin:
        spread = f"{seeds}, {math.exp(-high):.1f} to {math.exp(-low):.1f}"
        return f"{first} was {1.0 / ratio:.1f} times slower than {baseline} ({spread}). Keep {baseline}."
    speed = f"{name} reached {target} {ratio:.1f} times as fast as {baseline} on average ({spread})"
    if 1.0 / MIN_SPEED_UP < ratio < MIN_SPEED_UP:
        return f"No difference on this task: {speed}. Keep {baseline}."
    return f"No clear difference on this task: {speed}, which is within the spread. Compare with more seeds."


def _one_seed(first: str, baseline: str, target: str, ratio: float, missed: Sequence[float]) -> str:
    if missed and missed[0] >= MIN_EXCESS:
        text = f"{first} did not reach {target}: it made {missed[0]:.0%} less progress"
    elif ratio >= MIN_SPEED_UP:
        text = f"{first} reached {target} {ratio:.1f} times sooner"
    elif ratio <= 1.0 / MIN_SPEED_UP:
        text = f"{first} was {1.0 / ratio:.1f} times slower than {baseline}"
    else:
        text = f"{first} was about as fast as {baseline} ({ratio:.2f} times)"
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


def _finite(curve: Curve) -> Curve:
    """Return the curve with infinity in place of NaN."""
    return np.asarray(curve[0], float), np.nan_to_num(np.asarray(curve[1], float), nan=math.inf, posinf=math.inf)


def _ends_lowest(curve: Curve) -> bool:
    losses = _finite(curve)[1]
    return bool(losses[-1] <= losses.min())


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
