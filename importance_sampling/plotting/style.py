"""Common elements of all plots: line styles, quantile bands, axes and legends.

Lines differ in colour, line style and marker, so they are distinguishable without colour. Source of the colours: Okabe
and Ito, Color Universal Design, 2008. matplotlib is imported when the first figure is created.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# The colours of Okabe and Ito; pale colours are darkened.
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
    """Return an empty `matplotlib.figure.Figure` of the given size in inches.

    Raises:
        ImportError: matplotlib isn't installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Plots need matplotlib: pip install matplotlib") from error
    return Figure(figsize=(width, height), layout="constrained")


def curve(axes: Any, index: int, name: str, x: Any, low: Any, middle: Any, high: Any) -> None:
    """Draw a line in the style of the given index, and a band from `low` to `high` if they differ."""
    style = STYLES[index % len(STYLES)]
    axes.plot(x, middle, linewidth=2, markersize=5, label=name, **style)
    if not np.array_equal(low, high, equal_nan=True):
        axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)


def band(runs: Sequence[Sequence[Any]]) -> tuple[np.ndarray, ...]:
    """Return quartiles over runs, with linear interpolation between the measurements of a run.

    Args:
        runs: a pair `(x, values)` for each run, x ascending.

    Returns:
        `(x, lower quartile, median, upper quartile)`, arrays of equal length. x covers the common range of the runs.
    """
    if len(runs) == 1:
        x, values = map(np.asarray, runs[0])
        return x, values, values, values
    first, last = max(x[0] for x, _ in runs), min(x[-1] for x, _ in runs)
    x = np.linspace(first, last, max(len(x) for x, _ in runs))
    values = [np.interp(x, *run) for run in runs]
    return (x, *np.quantile(values, [0.25, 0.5, 0.75], axis=0))


def logarithmic(axes: Any) -> None:
    """Make the vertical axis logarithmic. Call it after the lines are drawn.

    Over fewer than four decades, tick labels are decimal numbers instead of powers of ten.
    """
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 1e4 * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def tidy(axes: Any) -> None:
    """Set round tick values on the horizontal axis, a light grid, and no top and right border."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
    axes.grid(True, which="major", color="0.88")
    axes.spines[["top", "right"]].set_visible(False)


def legend(figure: Any, axes: Any) -> None:
    """Add one legend for all panels below them, from the lines of one panel."""
    lines, names = axes.get_legend_handles_labels()
    most = int(figure.get_figwidth() / (0.09 * max(map(len, names)) + 0.7))  # estimated width of an entry in inches
    figure.legend(lines, names, loc="outside lower center", ncols=max(1, min(len(names), 7, most)), frameon=False)
