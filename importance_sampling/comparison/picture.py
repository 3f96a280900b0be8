"""Draws what clocks measured: medians over runs, with their quartiles as bands. It needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from importance_sampling.comparison.clock import Point

# Okabe and Ito's colours, darkened where they were pale, and never colour alone.
STYLES = [
    dict(color="#d67a00", linestyle="--", marker="s", markerfacecolor="white"),
    dict(color="#1b2a6b", linestyle="-", marker="o"),
    dict(color="#009e73", linestyle="-", marker="^"),
    dict(color="#b0447a", linestyle="-.", marker="D"),
    dict(color="#000000", linestyle=":", marker="x"),
    dict(color="#3fa0d9", linestyle="-", marker="v"),
    dict(color="#8c510a", linestyle="--", marker="P"),
    dict(color="#7f7f7f", linestyle="-.", marker="*"),
    dict(color="#d67a00", linestyle=":", marker="<"),
    dict(color="#1b2a6b", linestyle="-.", marker=">", markerfacecolor="white"),
    dict(color="#009e73", linestyle="--", marker="h", markerfacecolor="white"),
    dict(color="#b0447a", linestyle="-", marker="p", markerfacecolor="white"),
    dict(color="#3fa0d9", linestyle=":", marker="d", markerfacecolor="white"),
    dict(color="#8c510a", linestyle="-", marker="8", markerfacecolor="white"),
]
AXES = {
    "seconds": "training time (seconds)",
    "cost": "training cost (forward passes of a batch)",
    "steps": "gradient steps",
}


class Panel(NamedTuple):
    """One of the figure's panels."""

    field: str  # of `Point`
    label: str  # with the unit
    log: bool = False
    title: str = ""


def draw(
    runs: Mapping[str, Sequence[Sequence[Point]]],
    panels: Sequence[Panel],
    path: str | Path,
    over: str = "seconds",
    title: str = "",
) -> None:
    """Write a figure, a panel beside the other, a line a way.

    Args:
        runs: from the name of each way to its runs, each with its points.
        panels: what to show.
        path: of the file, with a suffix that matplotlib knows.
        over: the field of `Point` on the horizontal axis, "seconds" (default), "cost" or "steps".
        title: of the figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator

    figure = Figure(figsize=(6 * len(panels), 5.2), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        after = []
        for number, (name, points) in enumerate(runs.items()):
            style = STYLES[number % len(STYLES)]
            x, low, middle, high = _band(points, over, panel.field)
            axes.plot(x, middle, linewidth=2, markersize=5, label=name, **style)
            if len(points) > 1:
                axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
            after.extend([*low[1:], *high[1:]])
        after = [value for value in after if np.isfinite(value) and (value > 0 or not panel.log)]
        if panel.log:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
        if after:  # what the untrained model does would flatten all the rest
            axes.set_ylim(*_limits(min(after), max(after), panel.log))
        axes.set(xlabel=AXES[over], ylabel=panel.label, title=panel.title)
        axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
        axes.set_xlim(0, None)
        axes.grid(True, which="major", color="0.88")
        axes.spines[["top", "right"]].set_visible(False)
    lines, names = axes.get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=min(len(names), 7), frameon=False)
    figure.suptitle(title, weight="bold")
    figure.savefig(path, dpi=120)


def _limits(low: float, high: float, log: bool) -> tuple[float, float]:
    """Of an axis, with some room."""
    if log:
        room = (high / low) ** 0.08 * 1.02
        return low / room, high * room
    room = 0.08 * (high - low) + 0.02
    return max(0.0, low - room), high + room


def _band(points: Sequence[Sequence[Point]], over: str, field: str) -> tuple[np.ndarray, ...]:
    """Moments, and lower quartile, median and upper quartile at them, between measurements by interpolation."""
    if len(points) == 1:
        moments, values = (np.array([getattr(p, name) for p in points[0]]) for name in (over, field))
        return moments, values, values, values
    ends = [getattr(run[-1], over) for run in points]
    moments = np.linspace(0.0, min(ends), max(len(run) for run in points))
    values = [np.interp(moments, [getattr(p, over) for p in run], [getattr(p, field) for p in run]) for run in points]
    return (moments, *np.quantile(values, [0.25, 0.5, 0.75], axis=0))
