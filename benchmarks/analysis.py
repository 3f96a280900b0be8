"""Statistics of runs: final losses, the time to reach a loss, ratios to a baseline, and Markdown tables.

A run is a dict of settings and of the result of `Clock.record`, as `equal_time.py` writes it. A loss curve is a pair of
arrays: the spent budget and the loss of each measurement.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

NUM_FINAL = 5  # measurements in the mean at the end of a run of the protocol `anytime`, where single ones are noisy
TOLERANCE = 0.02  # by which a test loss may exceed that of the baseline
FRACTIONS = (0.25, 0.5, 0.75, 1.0)  # of the budget
RESULTS = ("train_loss", "test_loss", "test_error")
LOSSES = {  # columns of a table of losses relative to `model.fit`
    "test_error over uniform": ("test error / uniform", ".3f"),
    "test_loss over uniform": ("test loss / uniform", ".3f"),
    "train_loss over uniform": ("training loss / uniform", ".3f"),
}
USUAL_SCHEDULES = {"anytime": "constant", "budget": "cosine"}  # of the learning rate, by protocol


def summarise(values: Sequence[float]) -> dict:
    """Return median, quartiles and number of values. NaN counts as infinity.

    Example:
        >>> summarise([3.0, 1.0, 2.0])
        {'median': 2.0, 'quartiles': [1.0, 3.0], 'n': 3}
    """
    values = np.nan_to_num(values, nan=math.inf, posinf=math.inf)  # NaN: training has diverged
    method = "weibull" if np.isfinite(values).all() else "nearest"  # infinite values can't be interpolated
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], method=method).tolist()
    return {"median": middle, "quartiles": [low, high], "n": len(values)}


def final_results(run: Mapping[str, Any]) -> dict[str, float]:
    """Return training loss, test loss, test error and, if it was measured, the balanced error at the end of a run.

    The result is the last measurement for the protocol `budget`, and the mean of the last five for `anytime`.
    """
    points = run["points"][-1:] if run["protocol"] == "budget" else run["points"][-NUM_FINAL:]
    names = [name for name in (*RESULTS, "balanced_error") if name in points[-1]]
    return {name: statistics.fmean(point[name] for point in points) for name in names}


def lowest_test_loss(run: Mapping[str, Any]) -> float:
    """Return the lowest test loss of a run of `anytime`: what early stopping by this loss would keep."""
    return min(point["test_loss"] for point in run["points"])


def protocol_name(run: Mapping[str, Any]) -> str:
    """Return the protocol of a run or group, with the schedule of the learning rate if it isn't the usual one.

    Example:
        >>> protocol_name({"protocol": "budget", "schedule": "steps"})
        'budget, steps'
    """
    protocol = run["protocol"]
    schedule = run.get("schedule", USUAL_SCHEDULES[protocol])
    return protocol if schedule == USUAL_SCHEDULES[protocol] else f"{protocol}, {schedule}"


def loss_curve(run: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the spent budget and the training loss of all measurements."""
    points = run["points"]
    return np.array([point[run["by"]] for point in points]), np.array([point["train_loss"] for point in points])


def loss_at(spent: np.ndarray, losses: np.ndarray, x: float) -> float:
    """Return the loss at the spent budget x, by linear interpolation of log(loss).

    Example:
        >>> loss_at(np.array([0.0, 2.0]), np.array([1.0, 0.01]), 1.0)  # 0.1
    """
    return float(np.exp(np.interp(x, spent, np.log(losses))))


def budget_to_reach(spent: np.ndarray, losses: np.ndarray, level: float) -> float:
    """Return the budget at which the loss first reaches a level, interpolated as in `loss_at`; infinity if never.

    Example:
        >>> budget_to_reach(np.array([0.0, 2.0, 4.0]), np.array([1.0, 0.01, 1.0]), 0.1)  # 1.0
    """
    below = np.flatnonzero(losses <= level)
    if not len(below):
        return math.inf
    after = below[0]
    if after == 0:
        return float(spent[0])
    high, low = np.log(losses[after - 1]), np.log(losses[after])
    return float(spent[after - 1] + (spent[after] - spent[after - 1]) * (high - np.log(level)) / (high - low))


def speed_up(run: Mapping[str, Any], baseline: Mapping[str, Any], fraction: float) -> float:
    """Return the budget of the baseline, divided by that of the run, to reach the same training loss.

    The loss is the minimum of the baseline in the first `fraction` of its budget. The result is 0 if the run doesn't
    reach this loss.
    """
    spent, losses = loss_curve(baseline)
    early = spent <= fraction * spent[-1] * (1 + 1e-9)
    level = losses[early].min()
    budget = budget_to_reach(*loss_curve(run), level)
    return float(spent[early][losses[early].argmin()]) / max(budget, 1e-12)


def loss_ratio(run: Mapping[str, Any], baseline: Mapping[str, Any], fraction: float) -> float:
    """Return the training loss of the run divided by that of the baseline, after a fraction of the latter's budget."""
    spent, losses = loss_curve(baseline)
    x = fraction * spent[-1]
    return loss_at(*loss_curve(run), x) / loss_at(spent, losses, x)


def runs_by_way(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Group runs by way and seed, in their order."""
    ways: dict[str, dict[int, Mapping[str, Any]]] = {}
    for run in runs:
        ways.setdefault(run["way"], {})[run["seed"]] = run
    return ways


def summarise_ways(runs: Sequence[Mapping[str, Any]], baselines: Sequence[str]) -> list[dict]:
    """Summarise the runs of each way over the seeds, and compare them with baselines.

    Args:
        runs: runs of one task, protocol, schedule and budget.
        baselines: names of ways. Ratios are computed for every seed that both ways have, and then summarised.

    Returns:
        A list of dicts, one per way: "way", and the results of `summarise` by the name of the statistic.
    """
    ways = runs_by_way(runs)
    rows = []
    for way, by_seed in ways.items():
        results = {seed: final_results(run) for seed, run in by_seed.items()}
        row: dict[str, Any] = {"way": way}
        measured = next(iter(results.values()))
        for name in measured:
            row[name] = summarise([result[name] for result in results.values()])
        row["steps"] = summarise([run["steps"] for run in by_seed.values()])
        row["ms/step"] = summarise([1000 * run["seconds"] / run["steps"] for run in by_seed.values()])
        row["cost/step"] = summarise([run["cost"] / run["steps"] for run in by_seed.values()])
        row["importance"] = summarise([run["importance_steps"] / run["steps"] for run in by_seed.values()])
        for baseline in baselines:
            pairs = [(run, ways[baseline][seed]) for seed, run in by_seed.items() if seed in ways.get(baseline, {})]
            if not pairs or way == baseline:
                continue
            for name in measured:
                ratios = [final_results(run)[name] / final_results(base)[name] for run, base in pairs]
                row[f"{name} over {baseline}"] = summarise(ratios)
            if by_seed[next(iter(by_seed))]["protocol"] == "anytime":
                row[f"lowest test_loss over {baseline}"] = summarise(
                    [lowest_test_loss(run) / lowest_test_loss(base) for run, base in pairs]
                )
                for fraction in FRACTIONS:
                    row[f"speed-up over {baseline}, {fraction:.0%}"] = summarise(
                        [speed_up(run, base, fraction) for run, base in pairs]
                    )
                    row[f"loss over {baseline}, {fraction:.0%}"] = summarise(
                        [loss_ratio(run, base, fraction) for run, base in pairs]
                    )
        rows.append(row)
    return rows


def own_spread(rows: Sequence[Mapping[str, Any]], baseline: str) -> list[dict]:
    """Return the rows, with the results of the baseline divided by their own medians.

    Args:
        rows: the result of `summarise_ways`.
        baseline: the name of the baseline.
    """
    completed = []
    for row in rows:
        own = {}
        for name in (*RESULTS, "balanced_error"):
            if row["way"] == baseline and name in row:
                middle, (low, high) = row[name]["median"], row[name]["quartiles"]
                ratios = dict(median=1.0, quartiles=[low / middle, high / middle], n=row[name]["n"])
                own[f"{name} over {baseline}"] = ratios
        completed.append({**row, **own})
    return completed


def summarise_test_loss(groups: Sequence[Mapping[str, Any]], way: str = "default") -> str:
    """Return a sentence that counts the comparisons in which the test loss is at most 2 % above that of `uniform`.

    Args:
        groups: dicts with `task`, `protocol`, `by`, `budget`, `ways`, the rows of `summarise_ways`, and optionally
            `schedule`.
        way: the name of the way.

    Returns:
        The sentence, which names the other comparisons; "" if there are no comparisons.
    """
    ratio = "test_loss over uniform"
    rows = [(group, row) for group in groups for row in group["ways"] if row["way"] == way and ratio in row]
    if not rows:
        return ""
    above = [
        f"`{group['task']}`, {group['budget']:g} {group['by']}, {protocol_name(group)} ({row[ratio]['median']:.2f})"
        for group, row in rows
        if row[ratio]["median"] > 1.0 + TOLERANCE
    ]
    text = f"The test loss of `{way}` is at most {TOLERANCE:.0%} above that of `uniform` in {len(rows) - len(above)}"
    return f"{text} of {len(rows)} comparisons{'; above it in ' if above else ''}{'; '.join(above)}."


def markdown_table(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[str, str]], first: str = "way"
) -> str:
    """Return a Markdown table with one row per way: medians, and quartiles if there are several runs.

    Args:
        rows: the result of `summarise_ways`.
        columns: mapping from the name of a statistic to the heading and the number format of its column. Cells of
            missing statistics are empty.
        first: the heading of the first column, default "way".
    """
    cells = [[first, *(heading for heading, _ in columns.values())]]
    for row in rows:
        cells.append([row["way"], *(_cell(row.get(name), spec) for name, (_, spec) in columns.items())])
    widths = [max(map(len, texts)) for texts in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    padded = [[text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def _cell(summary: Mapping[str, Any] | None, spec: str) -> str:
    """Format a median, with its quartiles if they differ."""
    if summary is None:
        return ""
    low, middle, high = (format(value, spec) for value in sorted([summary["median"], *summary["quartiles"]]))
    return middle if low == high else f"{middle} ({low} to {high})"
