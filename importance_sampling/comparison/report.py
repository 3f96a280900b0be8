"""What runs came to, for people: a table, a picture, and a CSV file of all that was measured."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from importance_sampling.comparison.clock import Point
from importance_sampling.comparison.figures import compared, table
from importance_sampling.comparison.picture import Panel, draw

COLUMNS = {
    "train_loss": ("training loss", ".3g"),
    "test_loss": ("test loss", ".3g"),
    "test_error": ("test error", ".2f"),
    "steps": ("steps", ".0f"),
    "ms/step": ("ms a step", ".2f"),
    "cost/step": ("cost a step", ".2f"),
    "importance": ("importance steps", ".0%"),
}
RUN = ("task", "way", "seed")


def text(runs: Sequence[Mapping], unit: str = "%") -> str:
    """A Markdown table, a way a row, with a line on how to read it.

    Args:
        runs: of one task and budget.
        unit: of the test error.
    """
    end = "as last measured" if runs[0]["protocol"] == "budget" else "means of the last five measurements"
    seeds = len({run["seed"] for run in runs})
    spread = f"; medians of {seeds} seeds, with quartiles" if seeds > 1 else ""
    heading = f"{title(runs)}. Test error in {unit}; losses and errors are {end}{spread}."
    return f"{heading}\n\n{table(compared(runs, ()), COLUMNS)}"


def title(runs: Sequence[Mapping]) -> str:
    """What the runs have in common."""
    units = {"seconds": "training seconds", "cost": "forward passes of a batch", "steps": "gradient steps"}
    return f"{runs[0]['task']}: {runs[0]['budget']:g} {units[runs[0]['by']]} each way"


def picture(runs: Sequence[Mapping], path: Path, unit: str = "%", heading: str = "") -> None:
    """Losses and error over the budget, a line a way, with bands where there are several seeds.

    Args:
        runs: of one task and budget.
        path: of the file.
        unit: of the test error.
        heading: of the picture; "" makes one.
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
    """A row a measurement: task, way, seed, and the fields of `Point`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*RUN, *Point._fields])
        for run in runs:
            writer.writerows([*(run[name] for name in RUN), *point.values()] for point in run["points"])


def write(runs: Sequence[Mapping], out: Path, ways: Sequence[str], unit: str = "%") -> str:
    """Write table, picture and CSV file of a task's runs, named after the task.

    Args:
        runs: of one task and budget, in any order.
        out: a folder that is there.
        ways: names, the order that they are shown in.
        unit: of the test error.

    Returns:
        The table, and where the files are.
    """
    runs = sorted(runs, key=lambda run: (ways.index(run["way"]), run["seed"]))
    name = re.sub(r"[^\w.=+-]+", "-", runs[0]["task"])
    table, files = text(runs, unit), [out / f"{name}.{suffix}" for suffix in ("md", "csv", "png")]
    files[0].write_text(table + "\n", encoding="utf-8")
    write_csv(runs, files[1])
    try:
        picture(runs, files[2], unit)
    except ImportError:
        files[2:] = []
        table += "\n\nThere is no picture: it needs matplotlib (pip install 'keras-importance-sampling[plot]')."
    return f"{table}\n\nWritten: {', '.join(map(str, files))}"
