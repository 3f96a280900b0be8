"""Warnings about a `fit` that wait until Keras has accepted its arguments.

Keras checks data, arguments and model as late as in the first step. If it refuses them, its error stands alone, without
a warning about importance sampling ahead of it.
"""

from __future__ import annotations

import sys
import warnings

PACKAGE = __name__.partition(".")[0]


class DeferredWarnings:
    """Collects warnings, and issues them at the line that called the library when the object was made."""

    def __init__(self) -> None:
        frame = sys._getframe()
        while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE:
            frame = frame.f_back
        self._place = dict(
            filename=frame.f_code.co_filename,
            lineno=frame.f_lineno,
            module=frame.f_globals.get("__name__"),
            registry=frame.f_globals.setdefault("__warningregistry__", {}),
        )
        self._waiting: list[str] = []
        self._is_released = False

    def add(self, message: str) -> None:
        """Issue a `UserWarning` on release, or at once after it."""
        self._waiting.append(message)
        if self._is_released:
            self.release()

    def release(self) -> None:
        """Issue the collected warnings; later ones are issued at once."""
        self._is_released = True
        while self._waiting:
            warnings.warn_explicit(self._waiting.pop(0), UserWarning, **self._place)
