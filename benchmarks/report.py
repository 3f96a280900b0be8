"""The columns of the tables, their files, and the plot of the runs of a task. The plot requires matplotlib."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from importance_sampling.plotting.style import band, curve, legend, logarithmic, new_figure, tidy

COLUMNS = {
    "train_loss": ("training loss", ".3g"),
    "test_loss": ("test loss", ".3g"),
    "test_error": ("test error", ".2f"),
    "steps": ("steps", ".0f"),
    "ms/step": ("ms per step", ".2f"),
    "cost/step": ("cost per step", ".2f"),
    "importance": ("importance steps", ".0%"),
}
AXES = {"seconds": "training time (seconds)", "cost": "training cost (forward passes of a batch)"}


def write_tables(out: Path, data: Any = None, **tables: str) -> str:
    """Write Markdown tables, each to the file of its name, and return them.

    Args:
        out: the folder.
        data: what the tables show, which is written to `table.json`; None (default) writes no such file.
        tables: the texts, by the names of the files without ".md".
    """
    out.mkdir(parents=True, exist_ok=True)
    for name, text in tables.items():
        (out / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    if data is not None:
        (out / "table.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
    return "\n\n".join(tables.values())


def write_plot(runs: Sequence[Mapping], path: Path, unit: str, title: str) -> None:
    """Plot losses and test error over the budget, one line per way, with quartiles as bands for several seeds.

    Args:
        runs: runs of one task and budget.
        path: path of the file.
        unit: the unit of the test error.
        title: the title of the plot.
    """
    by_way: dict[str, list] = {}
    for run in runs:
        by_way.setdefault(run["way"], []).append(run["points"])
    seeds, over = len({run["seed"] for run in runs}), runs[0]["by"]
    labels = {
        "train_loss": "training loss (log scale)",
        "test_loss": "test loss (log scale)",
        "test_error": f"test error ({unit})",
    }
    figure = new_figure(6 * len(labels), 5.2)
    for axes, (field, label) in zip(figure.subplots(1, len(labels)), labels.items(), strict=True):
        # The limits exclude the first measurement, because the values of the untrained model are often much larger.
        visible = []
        is_log = field != "test_error"
        for index, (name, curves) in enumerate(by_way.items()):
            x, low, middle, high = band([[[point[f] for point in one] for f in (over, field)] for one in curves])
            curve(axes, index, name, x, low, middle, high)
            visible.extend([*low[1:], *high[1:]])
        visible = [value for value in visible if np.isfinite(value) and (value > 0 or not is_log)]
        if is_log:
            logarithmic(axes)
        if visible:
            axes.set_ylim(*_limits(min(visible), max(visible), is_log))
        axes.set(xlabel=AXES[over], ylabel=label)
        axes.set_xlim(0, None)
        tidy(axes)
    legend(figure, axes)
    figure.suptitle(title + (f": medians and quartiles of {seeds} seeds" if seeds > 1 else ""), weight="bold")
    figure.savefig(path, dpi=120)


def _limits(low: float, high: float, log: bool) -> tuple[float, float]:
    """Return the limits of an axis, with a margin."""
    if log:
        margin = (high / low) ** 0.08 * 1.02
        return low / margin, high * margin
    margin = 0.08 * (high - low) + 0.02
    return max(0.0, low - margin), high + margin
