"""Draws what clocks measured: medians over runs, with their quartiles as bands. It needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from importance_sampling.comparison.clock import Point
from importance_sampling.plotting.style import band, curve, legend, logarithmic, new_figure, tidy

AXES = {"seconds": "training time (seconds)", "cost": "training cost (forward passes of a batch)"}


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
        over: the field of `Point` on the horizontal axis, "seconds" (default) or "cost".
        title: of the figure.
    """
    figure = new_figure(6 * len(panels), 5.2)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        after = []
        for number, (name, points) in enumerate(runs.items()):
            x, low, middle, high = band([[[getattr(p, f) for p in run] for f in (over, panel.field)] for run in points])
            curve(axes, number, name, x, low, middle, high)
            after.extend([*low[1:], *high[1:]])
        after = [value for value in after if np.isfinite(value) and (value > 0 or not panel.log)]
        if panel.log:
            logarithmic(axes)
        if after:  # what the untrained model does would flatten all the rest
            axes.set_ylim(*_limits(min(after), max(after), panel.log))
        axes.set(xlabel=AXES[over], ylabel=panel.label, title=panel.title)
        axes.set_xlim(0, None)
        tidy(axes)
    legend(figure, axes)
    figure.suptitle(title, weight="bold")
    figure.savefig(path, dpi=120)


def _limits(low: float, high: float, log: bool) -> tuple[float, float]:
    """Of an axis, with some room."""
    if log:
        room = (high / low) ** 0.08 * 1.02
        return low / room, high * room
    room = 0.08 * (high - low) + 0.02
    return max(0.0, low - room), high + room
