"""Warn for the line of the user's code, also from a step that a framework traces or a callback that Keras calls."""

from __future__ import annotations

import sys
import warnings
from typing import Any

# Packages and modules that may stand between the user's line and a warning.
FRAMEWORKS = ("keras", "tensorflow", "jax", "torch", "optree")
INNER = (__name__.partition(".")[0], *FRAMEWORKS, "concurrent", "contextlib", "functools", "threading")


def caller() -> dict[str, Any]:
    """Return the line of the user's code that is being executed, as arguments of `warnings.warn_explicit`."""
    frame = sys._getframe()
    while frame.f_back is not None and _package(frame.f_globals) in INNER:
        frame = frame.f_back
    return dict(
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=frame.f_globals.get("__name__"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def warn_caller(message: str) -> None:
    """Issue a `UserWarning` for the line of the user's code that is being executed."""
    warnings.warn_explicit(message, UserWarning, **caller())


def _package(module: dict[str, Any]) -> str:
    return (module.get("__name__") or "").partition(".")[0]
