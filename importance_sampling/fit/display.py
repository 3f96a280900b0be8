"""What a trainer shows: its summary, its representation in a console and in a notebook, and hints after mistakes."""

from __future__ import annotations

import difflib
import html
import inspect
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from importance_sampling.fit.state import TrainerState

MAX_LENGTH = 40  # characters of an argument


class Display:
    """What a trainer shows: the arguments that its constructor was called with, its steps, and hints after mistakes."""

    model: keras.Model
    _state: TrainerState | None
    _summary = "fit has not been called yet."
    _arguments: tuple[tuple, dict] = ((), {})

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Record the arguments of the constructor.

        Raises:
            TypeError: the constructor has no such argument.
        """
        _check_names(cls, kwargs)
        trainer = super().__new__(cls)
        trainer._arguments = (args[1:], {name: value for name, value in kwargs.items() if name != "model"})
        return trainer

    def __getattr__(self, name: str) -> Any:
        """Raise the error for an attribute that a trainer lacks; say so if the model has it."""
        if hasattr(type(self), name):  # a property, in which another attribute is missing
            return object.__getattribute__(self, name)
        message = f"{type(self).__name__!r} object has no attribute {name!r}"
        if not name.startswith("_") and hasattr(keras.Model, name):
            message += f". `fit` trains the model that was passed in: use `model.{name}`, or `trainer.model.{name}`"
        raise AttributeError(message, name=name, obj=self)

    def summary(self) -> str:
        """Return a description of the last `fit` until its end or an error.

        The first line says what was done and what it was worth, or why all steps were uniform steps. The other lines
        are the numbers, with their meanings.
        """
        return self._summary

    def __repr__(self) -> str:
        args, kwargs = self._arguments
        names = [name for name in inspect.signature(type(self)).parameters if name != "model"]
        arguments = dict(zip(names, args, strict=False)) | kwargs
        texts = [f"<{type(self.model).__name__} {self.model.name!r}>"]
        texts += [f"{name}={_shortened(value)}" for name, value in arguments.items()]
        return f"{type(self).__name__}({', '.join(texts)}), {self._steps_text()}"

    def _repr_html_(self) -> str:
        first, *others = self.summary().splitlines()
        details = f"<pre>{html.escape(chr(10).join(others))}</pre>" if others else ""
        return f"<p><code>{html.escape(repr(self))}</code></p><p><b>{html.escape(first)}</b></p>{details}"

    def _steps_text(self) -> str:
        if self._state is None or not self._state.counters.steps:
            return "not trained yet"
        counters = self._state.counters
        return f"trained for {counters.steps} steps, {counters.importance_steps / counters.steps:.0%} importance steps"


def _check_names(cls: type, names: Collection[str]) -> None:
    """Raise a `TypeError` with the nearest match if a constructor has no arguments of some names."""
    parameters = inspect.signature(cls.__init__, follow_wrapped=False).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in names:
        if name not in parameters:
            nearest = difflib.get_close_matches(name, parameters, n=1)
            hint = f"Did you mean `{nearest[0]}`?" if nearest else f"It has: {', '.join(list(parameters)[1:])}."
            raise TypeError(f"{cls.__name__} got an unexpected argument. {hint} Received: {name}")


def _shortened(value: Any) -> str:
    if getattr(value, "ndim", 0):
        return f"<array of shape {tuple(value.shape)}>"
    if isinstance(value, tuple):
        return f"({', '.join(map(_shortened, value))})"
    text = getattr(value, "__name__", None) or repr(value)
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."
