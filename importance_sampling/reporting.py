"""Adds the trainer's figures to Keras's logs, and the trainer's own callbacks to those of the user.

`score`, `tau` and `importance` reach History and the progress bar through the logs that Keras passes from callback to
callback. Callbacks ahead of those two receive the logs of the model: many write, send or compare all entries, and NaN
isn't valid JSON. Source: `keras.src.callbacks`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras

from importance_sampling.loop import TrainFunction

FIGURES = ("score", "tau", "importance")


class Reporter(keras.callbacks.Callback):
    """A callback that adds figures to the logs for the callbacks after it, and announces every execution.

    Args:
        function: what runs the steps.
        adds_figures: bool; False for a trainer that is switched off, whose History has Keras's keys.
    """

    async_safe = True  # it only reads floats: Keras may dispatch its hooks as it does without it

    def __init__(self, function: TrainFunction, adds_figures: bool):
        super().__init__()
        self.function = function
        self.adds_figures = adds_figures

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Reset the counters of the epoch."""
        self.function.epoch = epoch
        self.function.steps.cost.pause()
        self.function.epoch_steps = self.function.epoch_open_steps = 0

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Announce that the next call is this `fit`'s; another in between is not."""
        self.function.is_due = True

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Add the figures as they were read last."""
        self._add(logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Read the figures and add them."""
        self.refresh()
        self._add(logs)

    def refresh(self) -> None:
        """Read the averages from the device."""
        if self.function.condition is not None and self.function.condition.probes:
            self.function.read()

    def figures(self) -> dict[str, float]:
        """Return the figures as they were read last."""
        function = self.function
        importance = function.epoch_open_steps / max(function.epoch_steps, 1)
        return dict(zip(FIGURES, (function.signals.score, function.signals.tau, importance), strict=True))

    def _add(self, logs: dict | None) -> None:
        if logs is not None and self.adds_figures:
            logs.update(self.figures())


class ProgressBar(keras.callbacks.ProgbarLogger):
    """Keras's progress bar, in the place of the one that Keras adds behind all callbacks."""

    async_safe = True  # Keras dispatches the hooks of its own bar without asking

    def __init__(self) -> None:
        super().__init__()
        self.verbose = 0  # until Keras sets it


class HideUnmeasured(keras.callbacks.Callback):
    """Removes figures that were never measured from the logs, ahead of a progress bar."""

    async_safe = True

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Remove them."""
        self._remove(logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Remove them."""
        self._remove(logs)

    def _remove(self, logs: dict | None) -> None:
        for name in FIGURES:
            if logs and math.isnan(logs.get(name, 0.0)):
                del logs[name]


class ShowUnmeasured(keras.callbacks.Callback):
    """Puts figures that were never measured back into the logs as NaN, behind a progress bar."""

    async_safe = True

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Put them back."""
        self._put_back(logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Put them back."""
        self._put_back(logs)

    def _put_back(self, logs: dict | None) -> None:
        if logs is not None:
            logs.update({name: math.nan for name in FIGURES if name not in logs})


@contextlib.contextmanager
def reported(callbacks: Any, reporter: Reporter, enclose: Callable[[Any], list], shows_progress: bool) -> Iterator[Any]:
    """Yield the user's callbacks with the trainer's own among them; a `CallbackList` is left as it was.

    Args:
        callbacks: what `fit` was given.
        reporter: the `Reporter` of the `fit`.
        enclose: from a callback of the user's to a list of it and the callbacks around it.
        shows_progress: bool, True if Keras would add a progress bar.
    """
    found = listed(callbacks)
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        yield _arranged(found, reporter, enclose, shows_progress)
        return
    users = set(map(id, found))
    arranged = _arranged(found, reporter, enclose, shows_progress=False)
    added = {id(callback) for callback in arranged} - users
    callbacks.callbacks[:] = arranged
    try:
        yield callbacks
    finally:
        callbacks.callbacks[:] = [callback for callback in callbacks.callbacks if id(callback) not in added]


def listed(callbacks: Any) -> list:
    """Return the callbacks of a `fit` as a list, whatever structure it was given."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    return keras.tree.flatten(callbacks) if callbacks else []


def _arranged(found: list, reporter: Reporter, enclose: Callable[[Any], list], shows_progress: bool) -> list:
    """Return the user's callbacks in their order; the reporter is ahead of the first History or progress bar."""
    if reporter.adds_figures and shows_progress and not any(map(_is_progress_bar, found)):
        found = [*found, ProgressBar()]
    shown = (keras.callbacks.History, keras.callbacks.ProgbarLogger)
    place = next((number for number, callback in enumerate(found) if isinstance(callback, shown)), len(found))
    arranged: list = []
    for callback in found[:place]:
        arranged += enclose(callback)
    arranged.append(reporter)
    for callback in found[place:]:
        hides = reporter.adds_figures and _is_progress_bar(callback)
        arranged += [HideUnmeasured(), callback, ShowUnmeasured()] if hides else enclose(callback)
    return arranged


def _is_progress_bar(callback: Any) -> bool:
    return isinstance(callback, keras.callbacks.ProgbarLogger)
