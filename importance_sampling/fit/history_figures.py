"""Add the trainer's figures to the logs, for History and the progress bar.

Keras passes one dict of logs from callback to callback. `score`, `tau` and `importance` are added just before History
and the progress bar. Callbacks before these receive the logs of the model, because many of them write, send or compare
all entries, and NaN isn't valid JSON. Source: `keras.src.callbacks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras

from importance_sampling.fit.controller import FitController

FIGURES = ("score", "tau", "importance")


class _ChangesLogs(keras.callbacks.Callback):
    """Changes the logs of batches and epochs, for the callbacks after it. A subclass implements `_change`."""

    async_safe = True  # Keras may then dispatch the hooks of batches as it does without this callback

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Change the logs of a batch."""
        self._change(logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Change the logs of an epoch."""
        self._change(logs)

    def _change(self, logs: dict | None) -> None:
        raise NotImplementedError


class LogCallback(_ChangesLogs):
    """Adds the figures to the logs for all callbacks after it, and marks the executions of this `fit`.

    Args:
        controller: the controller of the `fit`.
        adds_figures: bool, False for a trainer that is switched off, so that History has exactly Keras's keys.

    Attributes:
        progress_bars: the progress bars, if epochs may have fewer steps than Keras expects; else none.
    """

    def __init__(self, controller: FitController, adds_figures: bool):
        super().__init__()
        self.controller = controller
        self.adds_figures = adds_figures
        self.progress_bars: list[keras.callbacks.ProgbarLogger] = []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Reset the figures of the epoch, and show its number of steps in progress bars."""
        self.controller.begin_epoch(epoch)
        if self.controller.progress.epoch_length:
            for bar in self.progress_bars:
                bar.target = self.controller.progress.epoch_length

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Mark the next call of the training function as one of this `fit`, not of a callback that trains the model."""
        self.controller.is_called_by_fit = True

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Read the figures and add them."""
        self.refresh()
        super().on_epoch_end(epoch, logs)

    def refresh(self) -> None:
        """Read the averaged signals from the device, if the gate uses them."""
        if self.controller.gating.is_possible:
            self.controller.gating.read_signals()

    def figures(self) -> dict[str, float]:
        """Return the figures that were read last, by name."""
        signals, progress = self.controller.gating.signals, self.controller.progress
        importance = progress.epoch_importance_steps / max(progress.epoch_steps, 1)
        figures = zip(FIGURES, (signals.score, signals.tau, importance), strict=True)
        return dict(figures) | self.controller.strategy.figures()

    def _change(self, logs: dict | None) -> None:
        if logs is not None and self.adds_figures:
            logs.update(self.figures())


class ProgressBar(keras.callbacks.ProgbarLogger):
    """Keras's progress bar, added by the trainer instead of Keras, which would add it after all callbacks."""

    async_safe = True  # as for the progress bar that Keras adds

    def __init__(self) -> None:
        super().__init__()
        self.verbose = 0  # until Keras sets it


class HideUnmeasured(_ChangesLogs):
    """Removes figures that were never measured from the logs, before a progress bar."""

    def _change(self, logs: dict | None) -> None:
        for name in FIGURES:
            if logs and math.isnan(logs.get(name, 0.0)):
                del logs[name]


class RestoreUnmeasured(_ChangesLogs):
    """Adds figures that were never measured to the logs as NaN, after a progress bar, for History."""

    def _change(self, logs: dict | None) -> None:
        if logs is not None:
            logs.update({name: math.nan for name in FIGURES if name not in logs})


def arranged(found: list, log_callback: LogCallback, enclose: Callable[[Any], list], shows_progress: bool) -> list:
    """Return the user's callbacks in their order, with `log_callback` before the first History or progress bar.

    Args:
        found: the user's callbacks.
        log_callback: the `LogCallback` of the `fit`.
        enclose: function from a callback of the user to a list of this callback and the callbacks around it.
        shows_progress: bool, True if Keras would add a progress bar.
    """
    # What is saved with the state comes before the callbacks that save it.
    found = sorted(found, key=lambda callback: not getattr(callback, "is_saved", False))
    if log_callback.adds_figures and shows_progress and not any(map(is_progress_bar, found)):
        found = [*found, ProgressBar()]
    shown = (keras.callbacks.History, keras.callbacks.ProgbarLogger)
    position = next((i for i, callback in enumerate(found) if isinstance(callback, shown)), len(found))
    result: list = []
    for callback in found[:position]:
        result += enclose(callback)
    result.append(log_callback)
    for callback in found[position:]:
        hides = log_callback.adds_figures and is_progress_bar(callback)
        result += [HideUnmeasured(), callback, RestoreUnmeasured()] if hides else enclose(callback)
    return result


def is_progress_bar(callback: Any) -> bool:
    """Return True for the progress bar of Keras, or one derived from it."""
    return isinstance(callback, keras.callbacks.ProgbarLogger)
