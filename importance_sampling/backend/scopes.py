"""Contexts in which variables, or the attributes of an object, have other values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras


class NestedScope(keras.StatelessScope):
    """A `keras.StatelessScope` that reads unknown variables from the scope around it.

    Keras's own scope reads them from the variables themselves. In a compiled step that values are passed to, these are
    constants of the time when the step was traced.

    Args:
        state_mapping: list of `(variable, tensor)`, the values of variables inside the scope. Default None: all
            variables have the values that they have around the scope.
        collect_losses: bool, default False; as for `keras.StatelessScope`.

    Attributes:
        read: dict from id to variable, of the variables whose values were asked for in this scope.
    """

    def __init__(self, state_mapping: list[tuple] | None = None, collect_losses: bool = False):
        super().__init__(state_mapping, collect_losses)
        self._updated: dict[int, keras.Variable] = {}
        self.read: dict[int, keras.Variable] = {}

    def get_current_value(self, variable: keras.Variable) -> Any:
        """Return the value of a variable in this scope; None if neither this scope nor one around it has one."""
        self.read[id(variable)] = variable
        value = super().get_current_value(variable)
        outer = getattr(self, "original_scope", None)
        return outer.get_current_value(variable) if value is None and outer is not None else value

    def add_update(self, update: tuple) -> None:
        """Record a new value of a variable."""
        super().add_update(update)
        self._updated[id(update[0])] = update[0]

    def updated(self, variable: keras.Variable) -> Any:
        """Return the new value of a variable that was assigned in this scope; None if it wasn't."""
        return super().get_current_value(variable) if id(variable) in self._updated else None

    @property
    def updates(self) -> list[tuple]:
        """The variables that were assigned in this scope, with their new values: `(variable, tensor)`."""
        return [(variable, self.updated(variable)) for variable in self._updated.values()]


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
