"""Add the seconds of training to the logs, so that History can be plotted over time.

The time includes compilation and excludes validation. To compare trainers at equal times, use `comparison.Clock`.
"""

from __future__ import annotations

import time

import keras


class TrainingSeconds(keras.callbacks.Callback):
    """Add `seconds` to the logs of every epoch: the seconds of training since the first `fit` began.

    The logs of an epoch are in History. The time between two calls of `fit` and the time of validation don't count.

    Example:
        >>> history = trainer.fit(x_train, y_train, batch_size=128, epochs=10, callbacks=[TrainingSeconds()])
        >>> seconds = history.history["seconds"]  # at the end of each epoch
    """

    def __init__(self) -> None:
        super().__init__()
        self._seconds = 0.0
        self._started: float | None = None  # None outside `fit`

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Stop the clock for validation."""
        if self._started is not None:
            self._seconds += time.perf_counter() - self._started

    def on_test_end(self, logs: dict | None = None) -> None:
        """Restart the clock after validation."""
        if self._started is not None:
            self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Add the seconds to the logs."""
        now = time.perf_counter()
        self._seconds, self._started = self._seconds + now - self._started, now
        if logs is not None:
            logs["seconds"] = self._seconds

    def on_train_end(self, logs: dict | None = None) -> None:
        """Stop the clock."""
        self._started = None
