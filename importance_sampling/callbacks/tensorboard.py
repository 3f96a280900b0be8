"""Write the quantities of importance sampling to TensorBoard after each epoch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from importance_sampling.callbacks.base import SamplingCallback
from importance_sampling.callbacks.epoch_draws import EpochDraws

DESCRIPTIONS = {
    "tau": "Inequality of the scores, 1 if all are equal; a moving average.",
    "importance share": "Share of the epoch's steps that were importance steps.",
    "mean score": "Mean score of the candidates; a moving average.",
    "effective sample size": "Of a batch, in samples, (sum w)^2 / sum w^2; mean over the epoch's importance steps.",
    "scores": "Scores of the samples that importance steps drew.",
    "weights": "Importance weights of the samples that importance steps drew.",
}


class SamplingTensorBoard(SamplingCallback):
    """Write tau, the share of importance steps, the effective sample size, and histograms of scores and weights.

    The tags are `importance/...`, written after each epoch. Quantities that were not measured in an epoch are not
    written. Histograms show the epoch's last 512 importance steps. TensorBoard's step is the epoch number, as in
    Keras's TensorBoard callback; if a later `fit` begins at epoch 0 again, the steps continue after the last one. All
    kinds of data are supported, including streams.

    Args:
        log_dir: the folder for `tensorboard --logdir`, default "logs".

    Raises:
        ValueError: `log_dir` is no path.
        ImportError: in `fit`, TensorBoard or TensorFlow, which writes its files on every backend, isn't installed.

    Example:
        >>> ImportanceTraining(model).fit(x_train, y_train, callbacks=[SamplingTensorBoard("logs/run1")])
    """

    def __init__(self, log_dir: str | Path = "logs"):
        super().__init__()
        if not isinstance(log_dir, (str, os.PathLike)):
            raise ValueError(f"`log_dir` must be the path of a folder. Received: log_dir={log_dir!r}")
        self.log_dir = Path(log_dir)
        self._writer: Any = None
        self._step = -1  # TensorBoard's step of the last epoch
        self._epoch = EpochDraws()

    def connect(self, num_rows: int | None, figures: Callable[[], dict[str, float]]) -> None:
        """Open the file."""
        from importance_sampling.backend.tensorflow_summaries import SummaryWriter  # needed by this callback only

        self._writer = SummaryWriter(self.log_dir)
        super().connect(num_rows, figures)

    def disconnect(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        super().disconnect()

    def on_sample(self, sampler: Any, indices: np.ndarray, weights: np.ndarray, scores: np.ndarray) -> None:
        """Add the batch of an importance step to the histograms."""
        self._epoch.add(weights, scores)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Reset the histograms."""
        self._epoch.reset()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Write the quantities of the epoch."""
        if self._figures is None:
            return
        self._step = max(epoch, self._step + 1)
        figures = self._figures()
        scalars = {
            "tau": figures["tau"],
            "importance share": figures["importance"],
            "mean score": figures["score"],
        }
        histograms = {}
        if self._epoch:
            scalars["effective sample size"] = self._epoch.effective_size
            histograms = {"scores": self._epoch.scores, "weights": self._epoch.weights}
        for write, values in ((self._writer.scalar, scalars), (self._writer.histogram, histograms)):
            for name, value in values.items():
                if np.isfinite(value).all():
                    write(f"importance/{name}", value, self._step, DESCRIPTIONS[name])
        self._writer.flush()
