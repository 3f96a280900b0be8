"""The plot of a comparison: the loss of each way against time, medians over seeds with bands. Requires matplotlib."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from importance_sampling.comparison.verdict import MIN_SPEED_UP, Curve, time_to_reach
from importance_sampling.plotting.style import band, curve, logarithmic, new_figure, tidy

AXES = {"seconds": "seconds of training", "cost": "cost of training (forward passes of a batch)"}
FONT_SIZE = 13
EARLY = 0.12  # fraction of the training
LOG_RANGE = 6.0  # ratio of the losses above which the axis is logarithmic


def draw(curves: Mapping[str, Sequence[Curve]], loss: str, over: str, title: str, ratio: float) -> Any:
    """Return a figure with one line per way, and the times sooner of the second way marked.

    Args:
        curves: mapping from the name of a way to its curves, one per seed; the baseline first.
        loss: str, the name of the loss, for the vertical axis.
        over: "seconds" or "cost".
        title: str, written above the plot.
        ratio: float, how many times sooner the second way is, written beside the mark.

    Raises:
        ImportError: matplotlib isn't installed.
    """
    figure = new_figure(8, 5.6)
    axes = figure.subplots()
    medians, visible = [], []
    for index, (name, runs) in enumerate(curves.items()):
        x, low, middle, high = band(runs)
        curve(axes, index, name, x, low, middle, high)
        medians.append((x, middle))
        # The loss at the beginning, which is often much higher, doesn't determine the limits.
        late = np.asarray(x) >= EARLY * x[-1]
        visible += [value for value in (*low[late], *high[late]) if math.isfinite(value)]
    if visible:
        low, high = min(visible), max(visible)
        is_log = low > 0 and high / low > LOG_RANGE
        margin = (high / low) ** 0.08 if is_log else 0.08 * (high - low)
        axes.set_ylim(*((low / margin, high * margin) if is_log else (low - margin, high + margin)))
        if is_log:
            logarithmic(axes)
    _mark_speed_up(axes, *medians[:2], ratio)
    axes.set_xlim(0, None)
    tidy(axes)
    axes.tick_params(labelsize=FONT_SIZE)
    axes.set_xlabel(AXES[over], fontsize=FONT_SIZE)
    axes.set_ylabel(loss, fontsize=FONT_SIZE)
    axes.legend(fontsize=FONT_SIZE, frameon=False, loc="upper right")
    figure.suptitle(textwrap.fill(title, 76), fontsize=FONT_SIZE, weight="bold", x=0.02, ha="left")
    return figure


def _mark_speed_up(axes: Any, baseline: Curve, other: Curve, ratio: float) -> None:
    """Draw an arrow from the time of the baseline to that of the other way, at the lowest loss of the baseline."""
    if not np.isfinite(baseline[1]).all():
        return
    best = int(np.argmin(baseline[1]))
    level, later, earlier = float(baseline[1][best]), float(baseline[0][best]), time_to_reach(other, baseline[1][best])
    if not (0 < earlier < later and ratio >= MIN_SPEED_UP):
        return
    axes.annotate("", (earlier, level), (later, level), arrowprops=dict(arrowstyle="<|-|>", color="0.25", lw=1.6))
    # Left of the arrow the plot is empty: before this time both losses are above the level.
    place = dict(xytext=(-14, 0), textcoords="offset points", ha="right", va="center")
    axes.annotate(f"{ratio:.1f} times sooner", (earlier, level), size=FONT_SIZE, weight="bold", **place)
