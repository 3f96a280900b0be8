"""Warn of public names that were renamed and of options that are gone. They are accepted for one release."""

from __future__ import annotations

import warnings
from typing import Any


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
