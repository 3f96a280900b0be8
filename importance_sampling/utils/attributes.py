"""Replace an attribute of an object for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def replaced_attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute of an object inside this context; an attribute of its class is not copied to the object."""
    is_instance_attribute, original = name in vars(owner), getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if is_instance_attribute:
            setattr(owner, name, original)
        else:
            delattr(owner, name)
