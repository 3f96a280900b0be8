"""Refuse a `fit` of a trainer while another one is running: both would use its state and random stream."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any


class RunningFit:
    """Knows whether a `fit` of a trainer is running, in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def enter(self, trainer: Any) -> Iterator[None]:
        """Run a `fit` of a trainer in this context.

        Raises:
            RuntimeError: another one is running.
        """
        if not self._lock.acquire(blocking=False):
            raise RuntimeError(
                "`fit` was called while another `fit` of this trainer is running, in a callback or another thread. "
                "There, call `model.fit` or the `fit` of another trainer. "
                f"Received: trainer={type(trainer).__name__} of model={trainer.model.name!r}"
            )
        try:
            yield
        finally:
            self._lock.release()
