"""Plots of the Keras histories of several runs, over epochs or over seconds of training."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from importance_sampling.plotting.style import band, curve, legend, logarithmic, new_figure, tidy

AXES = {"epochs": "epochs", "seconds": "training time (seconds)"}


def plot_histories(
    runs: Mapping[str, Any],
    metrics: str | Sequence[str] | Mapping[str, str] = ("loss",),
    over: str = "epochs",
    log: str | Sequence[str] = (),
) -> Any:
    """Plot metrics of several runs, one panel per metric.

    Args:
        runs: mapping from the label of a line to a Keras `History` (or its dict), or to a list of histories. Several
            histories are shown as their median, with a band from the lower to the upper quartile. A history without a
            label has the label "training".
        metrics: name of a metric, sequence of names, or mapping from names to axis labels. Default: ("loss",).
        over: "epochs" (default) or "seconds"; "seconds" needs histories of fits with the callback `TrainingSeconds`.
        log: name or names of metrics to show on a logarithmic axis. Default: none.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it to a file.

    Raises:
        ValueError: `over` is unknown, `runs` aren't histories, or a history doesn't contain a metric.
        ImportError: matplotlib isn't installed.

    Example:
        >>> uniform = model.fit(x, y, batch_size=128, epochs=10, callbacks=[TrainingSeconds()])
        >>> importance = ImportanceTraining(other).fit(x, y, batch_size=128, epochs=10, callbacks=[TrainingSeconds()])
        >>> figure = plot_histories({"uniform": uniform, "importance": importance}, ["loss"], over="seconds")
    """
    if over not in AXES:
        raise ValueError(f'`over` must be "epochs" or "seconds". Received: over={over!r}')
    metrics, log = ([names] if isinstance(names, str) else names for names in (metrics, log))
    labels = metrics if isinstance(metrics, Mapping) else {name: name.replace("_", " ") for name in metrics}
    required = [*labels, "seconds"] if over == "seconds" else [*labels]
    histories = {name: _history_dicts(name, run, required) for name, run in _labelled(runs).items()}
    figure = new_figure(5.5 * len(labels), 4.6)
    for axes, (metric, label) in zip(figure.subplots(1, len(labels), squeeze=False)[0], labels.items(), strict=True):
        for index, (name, dicts) in enumerate(histories.items()):
            curve(axes, index, name, *band([(_x_values(history, metric, over), history[metric]) for history in dicts]))
        if metric in log:
            logarithmic(axes)
        axes.set(xlabel=AXES[over], ylabel=label)
        axes.set_xlim(0, None)
        tidy(axes)
    legend(figure, axes)
    return figure


def _labelled(runs: Any) -> Mapping[str, Any]:
    """Return a mapping from labels to histories, also for a history without a label, or a list of them."""
    first = next(iter(runs.values()), None) if isinstance(runs, Mapping) else None
    # The dict of a history has a list of numbers for each metric.
    is_dict = isinstance(first, (list, tuple)) and all(isinstance(value, numbers.Real) for value in first)
    if is_dict or hasattr(runs, "history") or (isinstance(runs, (list, tuple)) and runs):
        return {"training": runs}
    if not isinstance(runs, Mapping) or not runs:
        raise ValueError(
            '`runs` must be a dict of histories, such as {"uniform": model.fit(...)}, or one history. '
            f"Received: runs={runs!r}"
        )
    return runs


def _history_dicts(name: str, run: Any, required: Sequence[str]) -> list[dict]:
    """Return the dicts of one or several histories, and check that they contain the required metrics."""
    histories = run if isinstance(run, (list, tuple)) else [run]
    dicts = [getattr(history, "history", history) for history in histories]
    for history in dicts:
        if not isinstance(history, Mapping):
            raise ValueError(
                "`runs` must be histories: what `fit` returns, its `history`, or a list of these. "
                f"Received: {name!r}: {history!r}"
            )
        for metric in required:
            if metric not in history:
                remedy = " Add a `TrainingSeconds()` to the callbacks of `fit`." if metric == "seconds" else ""
                raise ValueError(
                    f"`runs` must be histories with {metric!r}.{remedy} Received: {name!r}, with {sorted(history)}"
                )
    return dicts


def _x_values(history: dict, metric: str, over: str) -> np.ndarray:
    return np.arange(1, len(history[metric]) + 1) if over == "epochs" else np.asarray(history["seconds"])
