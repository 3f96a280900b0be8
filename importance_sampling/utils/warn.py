"""Warn for the line of the user's code, and of public names and options that are gone.

Names that were renamed are accepted for one release.
"""

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


def warn_renamed(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn that an old name is used.

    Args:
        old, new: the names.
        stacklevel: int, default 3, the caller of the calling function; as for `warnings.warn`.
    """
    warnings.warn(
        f"`{old}` is deprecated and will be removed in the next release. Use `{new}`.",
        DeprecationWarning,
        stacklevel=stacklevel,
    )


def warn_gone(option: str, effect: str) -> None:
    """Warn the caller of a constructor that an option is gone.

    Args:
        option: the argument, with its value if only that is gone.
        effect: what happens instead, as a sentence without its full stop.
    """
    warnings.warn(
        f"`{option}` is gone and will be refused in the next release. {effect}.", DeprecationWarning, stacklevel=3
    )


def renamed(module: str, name: str, names: dict[str, Any]) -> Any:
    """Return an object of a module by its former name, with a warning; for the module's `__getattr__`.

    Args:
        module: the module's name.
        name: the name that was asked for.
        names: the objects by their former names.

    Raises:
        AttributeError: the module never had the name.
    """
    if name not in names:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    new = names[name]
    warn_renamed(f"{module}.{name}", new.__name__, stacklevel=4)
    return new


def _package(module: dict[str, Any]) -> str:
    return (module.get("__name__") or "").partition(".")[0]
