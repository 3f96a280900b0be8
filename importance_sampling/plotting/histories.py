"""Draws the histories of several runs, over epochs or over seconds of training. It trains and times nothing."""

from __future__ import annotations

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
    """Draw metrics of several runs, a panel a metric.

    Args:
        runs: from the name of each way to train to its Keras `History` (or the dict in it), or to a sequence of them:
            several runs of one way are drawn as their median, in a band from the lower to the upper quartile.
        metrics: the name of a metric, names of several, or a mapping from them to what the axes are to say, with units.
        over: "epochs" (default) or "seconds"; the latter needs histories of fits with the callback `TrainingSeconds`.
        log: metrics to draw on a logarithmic axis.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it.

    Raises:
        ValueError: `over` is unknown, or a history lacks a metric.
        ImportError: matplotlib isn't installed.

    Example:
        >>> plain = model.fit(x, y, epochs=10, callbacks=[TrainingSeconds()])
        >>> sampled = ImportanceTraining(other).fit(x, y, epochs=10, callbacks=[TrainingSeconds()])
        >>> plot_histories({"uniform": plain, "importance": sampled}, ["val_loss"], over="seconds")
    """
    if over not in AXES:
        raise ValueError(f'`over` must be "epochs" or "seconds". Received: over={over!r}')
    metrics, log = ([given] if isinstance(given, str) else given for given in (metrics, log))
    labels = metrics if isinstance(metrics, Mapping) else {name: name.replace("_", " ") for name in metrics}
    histories = {
        name: _dicts(name, given, [*labels, *(["seconds"] * (over == "seconds"))]) for name, given in runs.items()
    }
    figure = new_figure(5.5 * len(labels), 4.6)
    for axes, (metric, label) in zip(figure.subplots(1, len(labels), squeeze=False)[0], labels.items(), strict=True):
        for number, (name, dicts) in enumerate(histories.items()):
            curve(axes, number, name, *band([(_moments(one, metric, over), one[metric]) for one in dicts]))
        if metric in log:
            logarithmic(axes)
        axes.set(xlabel=AXES[over], ylabel=label)
        axes.set_xlim(0, None)
        tidy(axes)
    legend(figure, axes)
    return figure


def _dicts(name: str, given: Any, needed: Sequence[str]) -> list[dict]:
    """The histories of one way, with all that is to be drawn."""
    several = given if isinstance(given, (list, tuple)) else [given]
    dicts = [getattr(history, "history", history) for history in several]
    for one in dicts:
        for metric in needed:
            if metric not in one:
                remedy = " Put a `TrainingSeconds()` into the callbacks of `fit`." if metric == "seconds" else ""
                raise ValueError(
                    f"`runs` must be histories with {metric!r}.{remedy} Received: {name!r}, with {sorted(one)}"
                )
    return dicts


def _moments(history: dict, metric: str, over: str) -> np.ndarray:
    return np.arange(1, len(history[metric]) + 1) if over == "epochs" else np.asarray(history["seconds"])
