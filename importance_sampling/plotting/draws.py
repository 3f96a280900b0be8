"""Plots of the data of a `SamplingRecorder`: scores, importance weights, and the number of draws per sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.callbacks import SamplingRecorder
from importance_sampling.plotting.style import STYLES, logarithmic, new_figure, tidy

COLOR = STYLES[1]["color"]


def plot_scores(recorder: SamplingRecorder) -> Any:
    """Plot the distribution of the scores over the epochs: the median and the central 50 % and 90 %.

    The quantiles are corrected for importance sampling: they estimate those of the training set.

    Args:
        recorder: `SamplingRecorder` that was passed to `fit`.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it to a file.

    Raises:
        ValueError: no importance step was recorded.
        ImportError: matplotlib isn't installed.

    Example:
        >>> plot_scores(recorder).savefig("scores.png")
    """
    figure = new_figure(6.5, 4.6)
    axes = figure.subplots()
    _plot_quantiles(axes, recorder.score_quantiles, "score of a sample (log scale)")
    return figure


def plot_weights(recorder: SamplingRecorder) -> Any:
    """Plot the distribution of the importance weights over the epochs, and a histogram of the draws per sample.

    Args:
        recorder: `SamplingRecorder` that was passed to `fit`.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it to a file.

    Raises:
        ValueError: no importance step was recorded.
        ImportError: matplotlib isn't installed.

    Example:
        >>> plot_weights(recorder).savefig("weights.png")
    """
    figure = new_figure(12, 4.6)
    weights, draws = figure.subplots(1, 2)
    _plot_quantiles(weights, recorder.weight_quantiles, "importance weight (log scale; 1: uniform training)")
    weights.axhline(1.0, color="0.35", linewidth=1, linestyle=":")
    most = int(recorder.draws.max())
    draws.hist(recorder.draws, bins=np.arange(-0.5, most + 1.5, max(1, most // 60)), color=COLOR, linewidth=0)
    draws.axvline(recorder.draws.mean(), color="black", linestyle="--", linewidth=1.5)
    draws.annotate(
        f"mean {recorder.draws.mean():.1f}", (recorder.draws.mean(), 0.97), (6, 0),
        xycoords=("data", "axes fraction"), textcoords="offset points", va="top",
    )  # fmt: skip
    draws.set_yscale("log")
    draws.set(xlabel="number of draws", ylabel="samples (log scale)")
    tidy(draws)
    return figure


def _plot_quantiles(axes: Any, quantiles: np.ndarray, label: str) -> None:
    """Plot quantiles `(epochs, 5)` as nested bands over the epochs."""
    if not np.isfinite(quantiles).any():
        raise ValueError(
            "`recorder` must have recorded importance steps: train until the gate opens, because uniform steps have no "
            f"scores. Received: a recorder of {len(quantiles)} epochs without importance steps"
        )
    epochs = np.arange(1, len(quantiles) + 1)
    lowest, low, middle, high, highest = np.maximum(quantiles, 1e-8).T  # 0 can't be shown on a log scale
    axes.fill_between(epochs, lowest, highest, color=COLOR, alpha=0.18, linewidth=0, label="5 to 95 %")
    axes.fill_between(epochs, low, high, color=COLOR, alpha=0.38, linewidth=0, label="25 to 75 %")
    axes.plot(epochs, middle, color=COLOR, marker="o", markersize=4, linewidth=2, label="median")
    logarithmic(axes)
    axes.set(xlabel="epochs", ylabel=label)
    tidy(axes)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
