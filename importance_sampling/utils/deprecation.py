"""Warn of public names that were renamed. An old name works for one release."""

from __future__ import annotations

import warnings
from typing import Any


def warn_renamed(old: str, new: str) -> None:
    """Warn the caller of the calling function that it uses an old name."""
    warnings.warn(
        f"`{old}` is deprecated and will be removed in the next release. Use `{new}`.", DeprecationWarning, stacklevel=3
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
    warnings.warn(
        f"`{module}.{name}` is deprecated and will be removed in the next release. Use `{new.__name__}`.",
        DeprecationWarning,
        stacklevel=3,
    )
    return new
