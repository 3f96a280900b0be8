"""What all of the library's pictures have in common: lines to be told apart without colour, bands, quiet axes.

Colours: Okabe and Ito, Color Universal Design, 2008. It needs matplotlib, and imports it when the first picture is
made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# Okabe and Ito's colours, darkened where they were pale, and never colour alone.
STYLES = [
    dict(color="#d67a00", linestyle="--", marker="s", markerfacecolor="white"),
    dict(color="#1b2a6b", linestyle="-", marker="o"),
    dict(color="#009e73", linestyle="-.", marker="^"),
    dict(color="#b0447a", linestyle=":", marker="D"),
    dict(color="#000000", linestyle=(0, (8, 2)), marker="x"),
    dict(color="#3fa0d9", linestyle="-", marker="v", markerfacecolor="white"),
    dict(color="#8c510a", linestyle="--", marker="P"),
    dict(color="#7f7f7f", linestyle="-.", marker="*"),
    dict(color="#d67a00", linestyle=":", marker="<"),
    dict(color="#1b2a6b", linestyle="-.", marker=">", markerfacecolor="white"),
    dict(color="#009e73", linestyle="--", marker="h", markerfacecolor="white"),
    dict(color="#b0447a", linestyle="-", marker="p", markerfacecolor="white"),
    dict(color="#3fa0d9", linestyle=":", marker="d", markerfacecolor="white"),
    dict(color="#8c510a", linestyle="-", marker="8", markerfacecolor="white"),
]


def new_figure(width: float, height: float) -> Any:
    """An empty `matplotlib.figure.Figure`, its size in inches.

    Raises:
        ImportError: matplotlib isn't installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib, the extra [plot]: pip install 'keras-importance-sampling[plot]'"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def curve(axes: Any, number: int, name: str, x: Any, low: Any, middle: Any, high: Any) -> None:
    """Draw a line in the style of that number, and its band if it has one."""
    style = STYLES[number % len(STYLES)]
    axes.plot(x, middle, linewidth=2, markersize=5, label=name, **style)
    if not np.array_equal(low, high, equal_nan=True):
        axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)


def band(runs: Sequence[Sequence[Any]]) -> tuple[np.ndarray, ...]:
    """Moments, and lower quartile, median and upper quartile over runs at them, between measurements by interpolation.

    Args:
        runs: `(moments, values)` of each.
    """
    if len(runs) == 1:
        moments, values = map(np.asarray, runs[0])
        return moments, values, values, values
    first, last = max(moments[0] for moments, _ in runs), min(moments[-1] for moments, _ in runs)
    moments = np.linspace(first, last, max(len(moments) for moments, _ in runs))
    values = [np.interp(moments, *run) for run in runs]
    return (moments, *np.quantile(values, [0.25, 0.5, 0.75], axis=0))


def logarithmic(axes: Any) -> None:
    """A vertical axis in powers, once its lines are drawn; with plain numbers, but over many powers of ten."""
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 1e4 * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def tidy(axes: Any) -> None:
    """Round numbers below, a light grid, no box."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
    axes.grid(True, which="major", color="0.88")
    axes.spines[["top", "right"]].set_visible(False)


def legend(figure: Any, axes: Any) -> None:
    """Name the lines of all panels, below them."""
    lines, names = axes.get_legend_handles_labels()
    fit = int(figure.get_figwidth() / (0.09 * max(map(len, names)) + 0.7))  # by the inches that a name takes, about
    figure.legend(lines, names, loc="outside lower center", ncols=max(1, min(len(names), 7, fit)), frameon=False)
