"""The numbers of a comparison of a way to train with a baseline, and what they show.

All functions are pure: they take loss curves, one per seed. A curve is a pair of arrays `(spent, losses)` of equal
length, with the spent seconds or cost in ascending order. The losses can be those of any figure whose lower values are
better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Curve = tuple[np.ndarray, np.ndarray]

MIN_SPEED_UP = 1.1  # smaller differences don't count
MIN_EXCESS = 0.02  # of the progress of the baseline, as for `excess`
MIN_FINAL_EXCESS = 0.01  # of the final loss, as for `final_excess`; smaller differences don't count
LIMIT = 100.0  # speed-ups are clipped to [1/100, 100]
# The half widths of two-sided intervals of Student's t distribution, by their level in % and the degrees of freedom
# from 1 on; the last one is for all larger numbers.
T_QUANTILES = {
    90: (6.31, 2.92, 2.35, 2.13, 2.02, 1.94, 1.89, 1.86, 1.83, 1.81, 1.80, 1.78, 1.77, 1.76, 1.75, 1.70),
    95: (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12),
}


class Effect(NamedTuple):
    """The mean of a number over seeds, its range, and the half width of its confidence interval."""

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


def effect(values: Sequence[float], level: int = 90) -> Effect:
    """Return mean, range and confidence interval of values, one per seed.

    Args:
        values: list of float.
        level: 90 (default) or 95, of the confidence interval, in %.

    Example:
        >>> effect([1.0, 3.0])  # standard error 1, quantile 6.31
        Effect(mean=2.0, low=1.0, high=3.0, margin=6.31)
    """
    n = len(values)
    if n == 1:
        return Effect(values[0], values[0], values[0], math.nan)
    quantiles = T_QUANTILES[level]
    margin = quantiles[min(n - 2, len(quantiles) - 1)] * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Effect(float(np.mean(values)), min(values), max(values), margin)


def final_excess(curves: Sequence[Curve], baselines: Sequence[Curve]) -> Effect:
    """Return the last loss minus that of the baseline with the same seed, as a fraction of the latter's mean.

    The mean of this is the excess of the mean over the seeds, which the table of a comparison contains. If losses of
    the baseline change their sign, the differences are fractions of its mean progress.

    Args:
        curves, baselines: as for `outcome`.

    Returns:
        `Effect` with an interval at a level of 95 %.

    Example:
        >>> spent = np.array([0.0, 2.0])
        >>> round(final_excess([(spent, np.array([1.0, 0.6]))], [(spent, np.array([1.0, 0.5]))]).mean, 3)
        0.2
    """
    losses = [_finite(baseline)[1] for baseline in baselines]
    differences = [float(_finite(curve)[1][-1] - run[-1]) for curve, run in zip(curves, losses, strict=True)]
    scale = abs(float(np.mean([run[-1] for run in losses])))
    if not scale or min(run.min() for run in losses) < 0 < max(run.max() for run in losses):
        scale = float(np.mean([run[0] - run.min() for run in losses]))
    return effect([difference / scale if scale else 0.0 for difference in differences], 95)


def diverged(curve: Curve) -> bool:
    """Return True if the last loss of a curve is NaN or infinite."""
    return not math.isfinite(curve[1][-1])


class Outcome(NamedTuple):
    """What a comparison of losses has shown.

    Attributes:
        kind: "diverged", "untimed", "no progress", "missed", "faster", "slower", "equal" or "unclear".
        speeds: `Effect`, of the logarithms of the speed-ups; None if there are none.
        missed: `Effect`, by how much the lowest loss of the baseline was missed; None if it was reached with a seed.
        final: float, the mean of `final_excess`, if it counts; otherwise 0.
    """

    kind: str
    speeds: Effect | None = None
    missed: Effect | None = None
    final: float = 0.0


def outcome(curves: Sequence[Curve], baselines: Sequence[Curve]) -> Outcome:
    """Return what a comparison has shown.

    A difference in speed counts if the confidence interval (90 %) of the mean speed-up over the seeds excludes 1, and
    if the mean is at least 1.1 or at most 1/1.1. Without a difference of this size, the speeds are equal if the half
    width of the interval is at most this size too. Everything else is unclear. A way that reaches the lowest loss of
    the baseline with no seed, and stays above it by a clear margin, has missed it. One seed has no interval, and its
    difference counts by its size alone.

    The final loss differs if its mean over the seeds is at least 1 % above or below that of the baseline, and if the
    confidence interval (95 %) of the mean difference excludes 0. It never does with one seed. If the ways don't differ,
    about 5 % of the outcomes are "faster", and about 5 % have a final loss that differs.

    Args:
        curves: the curves of the way, one per seed; lower values are better.
        baselines: the curves of the baseline, with the same seeds in the same order.
    """
    if any(map(diverged, (*curves, *baselines))):
        return Outcome("diverged")
    if any(not spent[-1] for spent, _ in (*curves, *baselines)):
        return Outcome("untimed")
    pairs = list(zip(curves, baselines, strict=True))
    ratios = [speed_up(*pair) for pair in pairs]
    if any(map(math.isnan, ratios)):
        return Outcome("no progress")
    speeds = effect(np.log(ratios).tolist())
    above = [excess(*pair) for pair in pairs if math.isinf(time_to_reach(pair[0], _finite(pair[1])[1].min()))]
    missed = effect(above) if len(above) == len(pairs) else None
    final = final_excess(curves, baselines)
    differs = abs(final.mean) >= MIN_FINAL_EXCESS and abs(final.mean) > final.margin
    results = speeds, missed, final.mean if differs else 0.0
    if missed is not None and missed.mean >= MIN_EXCESS and not missed.mean <= missed.margin:
        return Outcome("missed", *results)
    size = math.log(MIN_SPEED_UP)
    if abs(speeds.mean) < size:
        return Outcome("unclear" if speeds.margin > size else "equal", *results)
    if abs(speeds.mean) <= speeds.margin:
        return Outcome("unclear", *results)
    return Outcome("faster" if speeds.mean > 0 else "slower", *results)


def _finite(curve: Curve) -> Curve:
    """Return the curve with infinity in place of NaN."""
    return np.asarray(curve[0], float), np.nan_to_num(np.asarray(curve[1], float), nan=math.inf, posinf=math.inf)
