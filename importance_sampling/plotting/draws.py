"""Draws what a `SamplingRecorder` recorded: scores and weights over training, how often samples were drawn."""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.callbacks import SamplingRecorder
from importance_sampling.plotting.style import STYLES, logarithmic, new_figure, tidy

COLOR = STYLES[1]["color"]


def plot_scores(recorder: SamplingRecorder) -> Any:
    """Draw the distribution of the scores over training: median, the middle half and the middle nine tenths.

    Each epoch's is that of a fair sample of the training set, though hard samples are drawn more often.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it.

    Raises:
        ValueError: no importance step was recorded.
        ImportError: matplotlib isn't installed.

    Example:
        >>> plot_scores(recorder).savefig("scores.png")
    """
    figure = new_figure(6.5, 4.6)
    axes = figure.subplots()
    _fan(axes, recorder.score_quantiles, "score of a sample (log scale)")
    return figure


def plot_weights(recorder: SamplingRecorder) -> Any:
    """Draw the weights over training, as `plot_scores` does, and how many samples were drawn how often.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it.

    Raises:
        ValueError: no importance step was recorded.
        ImportError: matplotlib isn't installed.

    Example:
        >>> plot_weights(recorder).savefig("weights.png")
    """
    figure = new_figure(12, 4.6)
    left, right = figure.subplots(1, 2)
    _fan(left, recorder.weight_quantiles, "importance weight (log scale; 1: plain training)")
    left.axhline(1.0, color="0.35", linewidth=1, linestyle=":")
    most = int(recorder.draws.max())
    right.hist(recorder.draws, bins=np.arange(-0.5, most + 1.5, max(1, most // 60)), color=COLOR, linewidth=0)
    right.axvline(recorder.draws.mean(), color="black", linestyle="--", linewidth=1.5)
    right.annotate(
        f"mean {recorder.draws.mean():.1f}", (recorder.draws.mean(), 0.97), (6, 0),
        xycoords=("data", "axes fraction"), textcoords="offset points", va="top",
    )  # fmt: skip
    right.set_yscale("log")
    right.set(xlabel="times drawn", ylabel="samples (log scale)")
    tidy(right)
    return figure


def _fan(axes: Any, quantiles: np.ndarray, label: str) -> None:
    """Quantiles as nested bands, by epoch."""
    if not np.isfinite(quantiles).any():
        raise ValueError(
            "`recorder` must have recorded importance steps; with the gate closed there are no scores. "
            f"Received: a recorder of {len(quantiles)} epochs without any"
        )
    epochs = np.arange(1, len(quantiles) + 1)
    lowest, low, middle, high, highest = np.maximum(quantiles, 1e-8).T  # a log scale has no zero
    axes.fill_between(epochs, lowest, highest, color=COLOR, alpha=0.18, linewidth=0, label="5 to 95 %")
    axes.fill_between(epochs, low, high, color=COLOR, alpha=0.38, linewidth=0, label="25 to 75 %")
    axes.plot(epochs, middle, color=COLOR, marker="o", markersize=4, linewidth=2, label="median")
    logarithmic(axes)
    axes.set(xlabel="epochs", ylabel=label)
    tidy(axes)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
