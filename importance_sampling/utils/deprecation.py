"""Warn of public names that were renamed. An old name works for one release."""

from __future__ import annotations

import warnings


def warn_renamed(old: str, new: str) -> None:
    """Warn the caller of the calling function that it uses an old name."""
    warnings.warn(
        f"`{old}` is deprecated and will be removed in the next release. Use `{new}`.", DeprecationWarning, stacklevel=3
    )
