"""Defer warnings about a `fit` until Keras has accepted its arguments.

Keras checks data, arguments and model during the call, some of them in the first step. If Keras refuses them, its error
is then raised without a warning about importance sampling before it.
"""

from __future__ import annotations

import sys
import warnings

PACKAGE = __name__.partition(".")[0]


class DeferredWarnings:
    """Collects warnings and issues them for the line of the user's code that called the library."""

    def __init__(self) -> None:
        frame = sys._getframe()
        while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE:
            frame = frame.f_back
        self._location = dict(
            filename=frame.f_code.co_filename,
            lineno=frame.f_lineno,
            module=frame.f_globals.get("__name__"),
            registry=frame.f_globals.setdefault("__warningregistry__", {}),
        )
        self._pending: list[str] = []
        self._is_released = False

    def add(self, message: str) -> None:
        """Add a `UserWarning`, which is issued on release, or immediately if that has happened."""
        self._pending.append(message)
        if self._is_released:
            self.release()

    def release(self) -> None:
        """Issue the collected warnings; warnings added later are issued immediately."""
        self._is_released = True
        while self._pending:
            warnings.warn_explicit(self._pending.pop(0), UserWarning, **self._location)
