"""Seconds of training in the logs of epochs, so that History can be drawn over time.

Validation doesn't count. It times a `fit` as it is, compilation and the machine's moods included;
`comparison.Clock` is for fair comparisons.
"""

from __future__ import annotations

import time

import keras


class TrainingSeconds(keras.callbacks.Callback):
    """Adds `seconds`, of training since the first `fit` began, to the logs of every epoch, and so to History.

    Example:
        >>> history = trainer.fit(x_train, y_train, epochs=10, callbacks=[TrainingSeconds()])
        >>> history.history["seconds"]
    """

    def __init__(self) -> None:
        super().__init__()
        self._seconds = 0.0
        self._started: float | None = None  # None outside a `fit`

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Start."""
        self._started = time.perf_counter()

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Stop for a validation."""
        if self._started is not None:
            self._seconds += time.perf_counter() - self._started

    def on_test_end(self, logs: dict | None = None) -> None:
        """Go on."""
        if self._started is not None:
            self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Tell."""
        now = time.perf_counter()
        self._seconds, self._started = self._seconds + now - self._started, now
        if logs is not None:
            logs["seconds"] = self._seconds

    def on_train_end(self, logs: dict | None = None) -> None:
        """What comes after doesn't count."""
        self._started = None
