"""Plots of the measurements of several runs: medians, and quartiles as bands. Requires matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from importance_sampling.comparison.clock import Point
from importance_sampling.plotting.style import band, curve, legend, logarithmic, new_figure, tidy

AXES = {
    "seconds": "training time (seconds)",
    "cost": "training cost (forward passes of a batch)",
    "steps": "gradient steps",
}


class Panel(NamedTuple):
    """A panel of a figure."""

    field: str  # the field of `Point` on the vertical axis
    label: str  # of the vertical axis, with the unit
    log: bool = False  # logarithmic axis
    title: str = ""


def draw(
    runs: Mapping[str, Sequence[Sequence[Point]]],
    panels: Sequence[Panel],
    path: str | Path,
    over: str = "seconds",
    title: str = "",
) -> None:
    """Write a figure with one panel per quantity and one line per way.

    Args:
        runs: mapping from the name of a way to its runs; a run is a sequence of points.
        panels: the panels, from left to right.
        path: path of the file, with a suffix that matplotlib supports.
        over: the field of `Point` on the horizontal axis: "seconds" (default), "cost" or "steps".
        title: str, the title of the figure, default "".

    Raises:
        ImportError: matplotlib isn't installed.
    """
    figure = new_figure(6 * len(panels), 5.2)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        # The limits exclude the first point, because the values of the untrained model are often much larger.
        visible = []
        for index, (name, points) in enumerate(runs.items()):
            x, low, middle, high = band([[[getattr(p, f) for p in run] for f in (over, panel.field)] for run in points])
            curve(axes, index, name, x, low, middle, high)
            visible.extend([*low[1:], *high[1:]])
        visible = [value for value in visible if np.isfinite(value) and (value > 0 or not panel.log)]
        if panel.log:
            logarithmic(axes)
        if visible:
            axes.set_ylim(*_limits(min(visible), max(visible), panel.log))
        axes.set(xlabel=AXES[over], ylabel=panel.label, title=panel.title)
        axes.set_xlim(0, None)
        tidy(axes)
    legend(figure, axes)
    figure.suptitle(title, weight="bold")
    figure.savefig(path, dpi=120)


def _limits(low: float, high: float, log: bool) -> tuple[float, float]:
    """Return the limits of an axis, with a margin."""
    if log:
        margin = (high / low) ** 0.08 * 1.02
        return low / margin, high * margin
    margin = 0.08 * (high - low) + 0.02
    return max(0.0, low - margin), high + margin
