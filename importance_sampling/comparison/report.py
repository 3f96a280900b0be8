"""Reports of runs: a Markdown table, a plot, and a CSV file with all measurements."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from importance_sampling.comparison.analysis import markdown_table, summarise_ways
from importance_sampling.comparison.clock import Point
from importance_sampling.comparison.plot import Panel, draw

COLUMNS = {
    "train_loss": ("training loss", ".3g"),
    "test_loss": ("test loss", ".3g"),
    "test_error": ("test error", ".2f"),
    "steps": ("steps", ".0f"),
    "ms/step": ("ms per step", ".2f"),
    "cost/step": ("cost per step", ".2f"),
    "importance": ("importance steps", ".0%"),
}
RUN_FIELDS = ("task", "way", "seed")


def text(runs: Sequence[Mapping], unit: str = "%") -> str:
    """Return a Markdown table with one row per way, and a line that explains it.

    Args:
        runs: runs of one task and budget.
        unit: the unit of the test error.
    """
    values = "the last measurements" if runs[0]["protocol"] == "budget" else "means of the last five measurements"
    seeds = len({run["seed"] for run in runs})
    spread = f"; medians of {seeds} seeds, with quartiles" if seeds > 1 else ""
    heading = f"{title(runs)}. Test error in {unit}; losses and errors are {values}{spread}."
    return f"{heading}\n\n{markdown_table(summarise_ways(runs, ()), COLUMNS)}"


def title(runs: Sequence[Mapping]) -> str:
    """Return a title with the task and the budget of the runs."""
    units = {"seconds": "seconds of training", "cost": "forward passes of a batch", "steps": "gradient steps"}
    return f"{runs[0]['task']}: {runs[0]['budget']:g} {units[runs[0]['by']]} for each way"


def write_plot(runs: Sequence[Mapping], path: Path, unit: str = "%", heading: str = "") -> None:
    """Plot losses and test error over the budget, one line per way, with quartiles as bands for several seeds.

    Args:
        runs: runs of one task and budget.
        path: path of the file.
        unit: the unit of the test error.
        heading: the title of the plot; "" (default) means that of `title`.

    Raises:
        ImportError: matplotlib isn't installed.
    """
    lines: dict[str, list] = {}
    for run in runs:
        lines.setdefault(run["way"], []).append([Point(**point) for point in run["points"]])
    panels = [
        Panel("train_loss", "training loss (log scale)", log=True),
        Panel("test_loss", "test loss (log scale)", log=True),
        Panel("test_error", f"test error ({unit})"),
    ]
    seeds = len({run["seed"] for run in runs})
    spread = f": medians and quartiles of {seeds} seeds" if seeds > 1 else ""
    draw(lines, panels, path, runs[0]["by"], (heading or title(runs)) + spread)


def write_csv(runs: Sequence[Mapping], path: Path) -> None:
    """Write a CSV file with one row per measurement: task, way, seed, and the fields of `Point`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*RUN_FIELDS, *Point._fields])
        for run in runs:
            writer.writerows([*(run[name] for name in RUN_FIELDS), *point.values()] for point in run["points"])


def write(runs: Sequence[Mapping], out: Path, ways: Sequence[str], unit: str = "%") -> str:
    """Write a table, a plot and a CSV file of the runs of a task. The files are named after the task.

    Args:
        runs: runs of one task and budget, in any order.
        out: an existing folder.
        ways: the names of the ways, in the order of the table.
        unit: the unit of the test error.

    Returns:
        The table and the paths of the files, as text.
    """
    runs = sorted(runs, key=lambda run: (ways.index(run["way"]), run["seed"]))
    name = re.sub(r"[^\w.=+-]+", "-", runs[0]["task"])
    table, files = text(runs, unit), [out / f"{name}.{suffix}" for suffix in ("md", "csv", "png")]
    files[0].write_text(table + "\n", encoding="utf-8")
    write_csv(runs, files[1])
    try:
        write_plot(runs, files[2], unit)
    except ImportError:
        files[2:] = []
        table += "\n\nNo plot was written: install matplotlib (pip install 'keras-importance-sampling[plot]')."
    return f"{table}\n\nWritten: {', '.join(map(str, files))}"
