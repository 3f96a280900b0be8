"""What runs come to: ends, loss levels, ratios to a yardstick, and the tables of them.

A run is a dict of what was asked for and what `Clock.record` gives, as `task.compare` makes it; a curve is two arrays,
where on the budget's axis and how high the loss. Nothing is trained here.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LAST = 5  # measurements in the mean over the end, where a constant learning rate leaves single moments noisy
SLACK = 0.02  # by how much a test loss may be above the yardstick's
SHARES = (0.25, 0.5, 0.75, 1.0)  # of the budget
END = ("train_loss", "test_loss", "test_error")


def summarise(values: Sequence[float]) -> dict:
    """Median and quartiles; NaN counts as infinity.

    Example:
        >>> summarise([3.0, 1.0, 2.0])
        {'median': 2.0, 'quartiles': [1.0, 3.0], 'n': 3}
    """
    values = np.nan_to_num(values, nan=math.inf, posinf=math.inf)  # NaN: training that broke down, worse than all
    method = "weibull" if np.isfinite(values).all() else "nearest"  # between infinities there is nothing to interpolate
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], method=method).tolist()
    return {"median": middle, "quartiles": [low, high], "n": len(values)}


def end(run: Mapping[str, Any]) -> dict[str, float]:
    """Training loss, test loss and test error at the end of a run.

    Where the learning rate was decayed: as last measured; where it was constant: the mean of the last five.
    """
    points = run["points"][-1:] if run["protocol"] == "budget" else run["points"][-LAST:]
    return {name: statistics.fmean(point[name] for point in points) for name in END}


def curve(run: Mapping[str, Any], name: str = "train_loss") -> tuple[np.ndarray, np.ndarray]:
    """What was spent, in the unit of the budget, and the loss then."""
    points = run["points"]
    return np.array([point[run["by"]] for point in points]), np.array([point[name] for point in points])


def loss_at(spent: np.ndarray, losses: np.ndarray, x: float) -> float:
    """The loss at x, on a straight line in log(loss) between measurements.

    Example:
        >>> loss_at(np.array([0.0, 2.0]), np.array([1.0, 0.01]), 1.0)  # 0.1
    """
    return float(np.exp(np.interp(x, spent, np.log(losses))))


def reached(spent: np.ndarray, losses: np.ndarray, level: float) -> float:
    """When the loss was first at the level or below, between measurements as `loss_at`; infinity if never.

    Example:
        >>> reached(np.array([0.0, 2.0, 4.0]), np.array([1.0, 0.01, 1.0]), 0.1)  # 1.0
    """
    below = np.flatnonzero(losses <= level)
    if not len(below):
        return math.inf
    after = below[0]
    if after == 0:
        return float(spent[0])
    high, low = np.log(losses[after - 1]), np.log(losses[after])
    return float(spent[after - 1] + (spent[after] - spent[after - 1]) * (high - np.log(level)) / (high - low))


def sooner(run: Mapping[str, Any], yardstick: Mapping[str, Any], share: float, name: str = "train_loss") -> float:
    """The time that the yardstick needed to reach the least loss of its first `share` of the budget, over the run's.

    Above 1 the run was there first; 0: it never was.
    """
    spent, losses = curve(yardstick, name)
    early = spent <= share * spent[-1] * (1 + 1e-9)
    level = losses[early].min()
    return float(spent[early][losses[early].argmin()]) / max(reached(*curve(run, name), level), 1e-12)


def lower(run: Mapping[str, Any], yardstick: Mapping[str, Any], share: float, name: str = "train_loss") -> float:
    """The run's loss over the yardstick's, after the same share of the yardstick's budget."""
    spent, losses = curve(yardstick, name)
    x = share * spent[-1]
    return loss_at(*curve(run, name), x) / loss_at(spent, losses, x)


def ways_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, Mapping[str, Any]]]:
    """The runs by way and seed, in their order."""
    ways: dict[str, dict[int, Mapping[str, Any]]] = {}
    for run in runs:
        ways.setdefault(run["way"], {})[run["seed"]] = run
    return ways


def compared(runs: Sequence[Mapping[str, Any]], yardsticks: Sequence[str]) -> list[dict]:
    """A dict of figures for each way of a group of runs (one task, one protocol, one budget).

    Ratios are taken seed by seed, among the seeds that both have.
    """
    ways = ways_of(runs)
    rows = []
    for way, of_seed in ways.items():
        ends = {seed: end(run) for seed, run in of_seed.items()}
        row: dict[str, Any] = {"way": way}
        for name in END:
            row[name] = summarise([one[name] for one in ends.values()])
        row["steps"] = summarise([run["steps"] for run in of_seed.values()])
        row["ms/step"] = summarise([1000 * run["seconds"] / run["steps"] for run in of_seed.values()])
        row["cost/step"] = summarise([run["cost"] / run["steps"] for run in of_seed.values()])
        row["importance"] = summarise([run["open_steps"] / run["steps"] for run in of_seed.values()])
        for yardstick in yardsticks:
            pairs = [(run, ways[yardstick][seed]) for seed, run in of_seed.items() if seed in ways.get(yardstick, {})]
            if not pairs or way == yardstick:
                continue
            for name in END:
                row[f"{name} over {yardstick}"] = summarise([end(run)[name] / end(by)[name] for run, by in pairs])
            if of_seed[next(iter(of_seed))]["protocol"] == "anytime":
                for share in SHARES:
                    row[f"times sooner than {yardstick}, {share:.0%}"] = summarise(
                        [sooner(run, by, share) for run, by in pairs]
                    )
                    row[f"loss over {yardstick}, {share:.0%}"] = summarise([lower(run, by, share) for run, by in pairs])
        rows.append(row)
    return rows


def promise(groups: Sequence[Mapping[str, Any]], way: str = "default", yardstick: str = "plain") -> str:
    """In a sentence, whether nobody lost by trying: where the way's test loss is within 2 % of the yardstick's.

    Args:
        groups: dicts of `task`, `protocol`, `by`, `budget`, and `ways`, which are rows from `compared`.
        way: the way's name.
        yardstick: the yardstick's name.

    Returns:
        The sentence; "" where there is nothing to compare.
    """
    ratio = f"test_loss over {yardstick}"
    rows = [(group, row) for group in groups for row in group["ways"] if row["way"] == way and ratio in row]
    if not rows:
        return ""
    above = [
        f"`{group['task']}`, {group['budget']:g} {group['by']}, {group['protocol']} ({row[ratio]['median']:.2f})"
        for group, row in rows
        if row[ratio]["median"] > 1.0 + SLACK
    ]
    text = f"The test loss of `{way}` is at most {SLACK:.0%} above that of `{yardstick}` in {len(rows) - len(above)}"
    return f"{text} of {len(rows)} comparisons{'; above it in ' if above else ''}{'; '.join(above)}."


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[str, str]], first: str = "way") -> str:
    """A Markdown table, a way a row: medians, with quartiles where there are several runs.

    Args:
        rows: from `compared`.
        columns: from the name of a figure to its heading and the format of its numbers; rows without it show nothing.
        first: the heading of the first column, default "way".
    """
    cells = [[first, *(heading for heading, _ in columns.values())]]
    for row in rows:
        cells.append([row["way"], *(cell(row.get(name), spec) for name, (_, spec) in columns.items())])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    padded = [[text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def cell(figure: Mapping[str, Any] | None, spec: str) -> str:
    """A median, with its quartiles where they differ."""
    if figure is None:
        return ""
    low, middle, high = (format(value, spec) for value in sorted([figure["median"], *figure["quartiles"]]))
    return middle if low == high else f"{middle} ({low} to {high})"
