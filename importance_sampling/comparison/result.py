"""The result of `compare`: a table, a plot and the verdict."""

from __future__ import annotations

import base64
import csv
import html
import importlib.util
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from importance_sampling.comparison.figure import LOSS, Figure
from importance_sampling.comparison.outcome import Curve, outcome, speed_up
from importance_sampling.comparison.plot import draw
from importance_sampling.comparison.verdict import verdict

BASELINE = "uniform"
SPEED_UP_COLUMN = "times sooner"
PROSE_NAMES = {BASELINE: "uniform training", "importance": "importance sampling"}
NO_PLOT = "No plot: install matplotlib (pip install matplotlib)."
# How the line of a trainer's summary begins that gives the reason for uniform steps.
REASONS = ("Uniform training throughout", "Importance steps ended", "Then importance sampling was switched off", "In ")


class Comparison:
    """The runs of a comparison. `print` shows the table and the verdict; a notebook shows the plot as well.

    Args:
        budget: float, of each run.
        by: "seconds", "cost" or "epochs", the unit of the budget.
        loss_name: "validation loss" or "training loss".
        ways: the names of the ways, the baseline first.
        figure: `Figure` by which the ways are judged. None (default): the loss.

    Attributes:
        runs: list of dicts, one per way and seed: "way", "seed", "steps", "seconds", "cost", "importance_steps",
            "stopped_early" (whether training ended before the budget), "points" (a list of dicts, one per measurement)
            and "summary" (of the trainer; "" without one).

    Example:
        >>> comparison = compare(build_model, x, y, seconds=60, validation_split=0.1)
        >>> print(comparison.verdict)
        >>> [row["way"] for row in comparison.rows]
        ['uniform', 'importance']
    """

    def __init__(self, budget: float, by: str, loss_name: str, ways: tuple[str, ...], figure: Figure | None = None):
        self.budget, self.by, self.loss_name, self.ways = budget, by, loss_name, ways
        self.figure = figure or LOSS._replace(name=loss_name)
        self.runs: list[dict[str, Any]] = []

    def add(self, way: str, seed: int, record: Mapping[str, Any], trainer: Any) -> None:
        """Add a finished run."""
        is_trainer = not isinstance(trainer, keras.Model) and hasattr(trainer, "summary")
        self.runs.append({"way": way, "seed": seed, **record, "summary": trainer.summary() if is_trainer else ""})

    @property
    def over(self) -> str:
        """The unit in which speed is compared: "cost" for a budget in cost, otherwise "seconds"."""
        return "cost" if self.by == "cost" else "seconds"

    @property
    def verdict(self) -> str:
        """One sentence: whether the second way is faster than the first one, and what to do."""
        curves, baselines = self._falling_curves(self.ways[1]), self._falling_curves(self.ways[0])
        names = prose_name(self.ways[1]), prose_name(self.ways[0])
        return verdict(curves, baselines, *names, self.figure, self._share(), self._reason())

    @property
    def is_faster(self) -> bool:
        """True if the verdict says that the second way is faster; with one seed, without knowing the spread."""
        pair = self._falling_curves(self.ways[1]), self._falling_curves(self.ways[0])
        return self._share() != 0 and outcome(*pair).kind == "faster"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The table: one dict per way.

        Losses and metrics are means over the seeds, seconds and steps medians. "times sooner" is the geometric mean
        over the seeds, and "importance steps" the share of all steps.
        """
        return [self._row(way) for way in self.ways]

    @property
    def table(self) -> Any:
        """The table as a `pandas.DataFrame`, or as a list of dicts if pandas isn't installed."""
        if importlib.util.find_spec("pandas") is None:
            return self.rows
        import pandas

        return pandas.DataFrame(self.rows).set_index("way")

    def runs_of(self, way: str) -> list[dict[str, Any]]:
        """Return the runs of a way, by seed."""
        return sorted((run for run in self.runs if run["way"] == way), key=lambda run: run["seed"])

    def curves(self, way: str) -> list[Curve]:
        """Return the spent budget and the values of the judged figure of a way, one pair of arrays per seed.

        A value is NaN where the loss isn't finite.
        """
        return [self._curve(run, self.figure.key) for run in self.runs_of(way)]

    def plot(self, path: str | Path | None = None) -> Any:
        """Plot the judged figure of all ways against the seconds or the cost.

        Lines are medians over the seeds, and bands reach from the lower to the upper quartile. An arrow shows how much
        sooner the median of the second way reaches the best value of the first one; it is drawn if the verdict says
        that the second way is faster.

        Args:
            path: str, Path or None, default None; the file to write, with a suffix that matplotlib supports.

        Returns:
            `matplotlib.figure.Figure`.

        Raises:
            ImportError: matplotlib isn't installed.
        """
        first, *others = self.verdict.split(". ")
        headline = f"{first}." if others else first
        curves = {way: self.curves(way) for way in self.ways}
        figure = draw(curves, self.figure, self.over, headline, self.is_faster)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def save(self, folder: str | Path, name: str = "comparison") -> list[Path]:
        """Write the verdict and the table (txt), all measurements (csv) and, with matplotlib, the plot (png).

        Args:
            folder: str or Path; it is created if it doesn't exist.
            name: str, default "comparison"; the name of the files, without a suffix.

        Returns:
            The paths of the files.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{name}.{suffix}" for suffix in ("txt", "csv", "png")]
        paths[0].write_text(f"{self}\n", encoding="utf-8")
        fields = list(self.runs[0]["points"][0])
        with paths[1].open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["way", "seed", *fields])
            for run in self.runs:
                writer.writerows([run["way"], run["seed"], *point.values()] for point in run["points"])
        try:
            self.plot(paths[2])
        except ImportError:
            paths.pop()
        return paths

    def __str__(self) -> str:
        rows = [[_cell(*item) for item in row.items()] for row in self.rows]
        cells = [list(self.rows[0]), *rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in cells]
        blocks = (line.rstrip() for line in lines), self._summaries(), [self.verdict]
        return "\n\n".join(filter(None, map("\n".join, blocks)))

    def __repr__(self) -> str:
        seeds = len(self.runs_of(self.ways[0]))
        return f"<Comparison of {', '.join(self.ways)}: {seeds} seeds, {self.budget:g} {self.by} each. {self.verdict}>"

    def _repr_html_(self) -> str:
        rows = [list(self.rows[0]), *([_cell(*item) for item in row.items()] for row in self.rows)]
        notes = "".join(f"<p>{html.escape(text)}</p>" for text in self._summaries())
        lines = [f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in row)}</tr>" for row in rows]
        return f"<p><b>{html.escape(self.verdict)}</b></p>{self._html_plot()}<table>{''.join(lines)}</table>{notes}"

    def _html_plot(self) -> str:
        buffer = io.BytesIO()
        try:
            self.plot().savefig(buffer, format="png", dpi=110)
        except ImportError:
            return f"<p>{html.escape(NO_PLOT)}</p>"
        image = base64.b64encode(buffer.getvalue()).decode()
        return f'<img alt="{html.escape(self.verdict)}" src="data:image/png;base64,{image}" width="640">'

    def _row(self, way: str) -> dict[str, Any]:
        runs = self.runs_of(way)
        last = [run["points"][-1] for run in runs]
        losses = [self._curve(run, "loss")[1] for run in runs]
        row: dict[str, Any] = {
            "way": way,
            f"lowest {self.loss_name}": _mean(np.min(values) for values in losses),
            f"final {self.loss_name}": _mean(values[-1] for values in losses),
        }
        if self.figure.key != "loss":
            best = np.max if self.figure.maximised else np.min
            row[f"{self.figure.best} {self.figure.name}"] = _mean(best(values) for _, values in self.curves(way))
        prefix = "val_" if self.loss_name == LOSS.name else ""
        for name in last[0]:
            if name not in ("seconds", "cost", "steps", "loss"):
                row[f"final {prefix}{name}"] = _mean(point[name] for point in last)
        row[SPEED_UP_COLUMN] = self._speed_up(way)
        row["seconds"] = statistics.median(run["seconds"] for run in runs)
        row["steps"] = round(statistics.median(run["steps"] for run in runs))
        row["importance steps"] = _importance_share(runs)
        if any(run.get("stopped_early") for run in self.runs):
            stopped = sum(run.get("stopped_early", False) for run in runs)
            row["stopped early"] = f"{stopped} of {len(runs)} runs"
        return row

    def _speed_up(self, way: str) -> float:
        """Return the geometric mean of the speed-ups over the seeds; NaN for a trainer without importance steps."""
        runs = self.runs_of(way)
        if any(run["summary"] for run in runs) and not _importance_share(runs):
            return math.nan  # a ratio would be the noise of the clock
        pairs = zip(self._falling_curves(way), self._falling_curves(self.ways[0]), strict=True)
        return float(np.exp(np.mean([np.log(speed_up(*pair)) for pair in pairs])))

    def _share(self) -> float | None:
        """Return the share of importance steps in the steps of the second way; None if it isn't known."""
        runs = self.runs_of(self.ways[1])
        return _importance_share(runs) if any(run["summary"] for run in runs) else None

    def _reason(self) -> str:
        """Return why the second way took few importance steps: a line of the summary of the run with the fewest."""
        runs = [run for run in self.runs_of(self.ways[1]) if run["summary"]]
        lines = min(runs, key=lambda run: _importance_share([run]))["summary"].splitlines() if runs else [""]
        return next((line for line in lines if line.startswith(REASONS)), lines[0])

    def _summaries(self) -> list[str]:
        """Return the first line of the summary of each way that has one, with the first seed."""
        runs = [self.runs_of(way)[0] for way in self.ways]
        return [f"{run['way']}, seed {run['seed']}: {run['summary'].splitlines()[0]}" for run in runs if run["summary"]]

    def _falling_curves(self, way: str) -> list[Curve]:
        """Return the curves with the sign that makes lower values better."""
        sign = -1.0 if self.figure.maximised else 1.0
        return [(spent, sign * values) for spent, values in self.curves(way)]

    def _curve(self, run: Mapping[str, Any], key: str) -> Curve:
        spent, losses, values = (
            np.array([point[name] for point in run["points"]], float) for name in (self.over, "loss", key)
        )
        return spent, values if key == "loss" else np.where(np.isfinite(losses), values, np.nan)


def prose_name(way: str) -> str:
    """Return what a sentence calls a way."""
    return PROSE_NAMES.get(way, f"`{way}`")


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _importance_share(runs: Sequence[Mapping[str, Any]]) -> float:
    """Return the share of importance steps in the steps of several runs."""
    steps = sum(run["steps"] for run in runs)
    return sum(run["importance_steps"] for run in runs) / steps if steps else 0.0


def _cell(column: str, value: Any) -> str:
    if column == SPEED_UP_COLUMN and math.isnan(value):
        return "-"  # of a trainer without importance steps
    return value if isinstance(value, str) else f"{value:.4g}"
