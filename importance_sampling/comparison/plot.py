"""The plot of a comparison: the loss or a metric of each way against time, medians over seeds. Requires matplotlib."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from importance_sampling.comparison.figure import Figure
from importance_sampling.comparison.outcome import Curve, time_to_reach
from importance_sampling.plotting.style import band, curve, logarithmic, new_figure, tidy

AXES = {"seconds": "seconds of training", "cost": "cost of training (forward passes of a batch)"}
FONT_SIZE = 13
EARLY = 0.12  # fraction of the training
LABEL = "sooner"
LABEL_WIDTH = 0.15  # of the horizontal axis, with the gap beside it
LOG_RANGE = 6.0  # ratio of the losses above which the axis is logarithmic


def draw(curves: Mapping[str, Sequence[Curve]], figure: Figure, over: str, title: str, is_marked: bool) -> Any:
    """Return a plot with one line per way, and an arrow to the time at which the second way is as good as the first.

    Args:
        curves: mapping from the name of a way to its curves, one per seed; the baseline first.
        figure: `Figure` that the curves show, for the vertical axis.
        over: "seconds" or "cost".
        title: str, written above the plot.
        is_marked: bool, whether there is an arrow: from the time at which the median of the baseline has its best
            value to the time at which the median of the second way reaches this value.

    Raises:
        ImportError: matplotlib isn't installed.
    """
    drawing = new_figure(8, 5.6)
    axes = drawing.subplots()
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
    axes.set_xlim(0, None)
    if is_marked:
        _mark(axes, *medians[:2], figure)
    tidy(axes)
    axes.tick_params(labelsize=FONT_SIZE)
    axes.set_xlabel(AXES[over], fontsize=FONT_SIZE)
    axes.set_ylabel(figure.name, fontsize=FONT_SIZE)
    axes.legend(fontsize=FONT_SIZE, frameon=False, loc="lower right" if figure.maximised else "upper right")
    drawing.suptitle(textwrap.fill(title, 76), fontsize=FONT_SIZE, weight="bold", x=0.02, ha="left")
    return drawing


def _mark(axes: Any, baseline: Curve, other: Curve, figure: Figure) -> None:
    """Draw an arrow from the time of the baseline to that of the other way, at the best value of the baseline."""
    if not np.isfinite(baseline[1]).all():
        return
    sign = -1.0 if figure.maximised else 1.0
    best = int(np.argmin(sign * baseline[1]))
    level, later = float(baseline[1][best]), float(baseline[0][best])
    earlier = time_to_reach((other[0], sign * other[1]), sign * level)
    if not 0 < earlier < later:
        return
    axes.annotate("", (earlier, level), (later, level), arrowprops=dict(arrowstyle="-|>", color="0.25", lw=1.6))
    # The plot is empty left of the arrow and beyond its level, which neither way has reached before. If there isn't
    # enough room, the label is above the middle of the arrow, or below it if the values rise: between the two curves.
    if earlier > LABEL_WIDTH * axes.get_xlim()[1]:
        middle, place = earlier, dict(xytext=(-8, -4 * sign), ha="right", va="top" if sign > 0 else "bottom")
    else:
        middle = (earlier + later) / 2
        place = dict(xytext=(0, 6 * sign), ha="center", va="bottom" if sign > 0 else "top")
    box = dict(facecolor="white", edgecolor="none", alpha=0.8, pad=1.5)
    axes.annotate(
        LABEL, (middle, level), size=FONT_SIZE, weight="bold", textcoords="offset points", bbox=box, zorder=5, **place
    )
