"""The language of the command line: a name with its options, and what is put around it.

    NAME[,option=value]...[+NAME[,option=value]...]...

Values are Python's literals, `inf`, or else text. Which names there are is the `catalogue`'s business.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Part(NamedTuple):
    """A name and its options."""

    name: str
    options: dict[str, Any]


def parse(text: str) -> list[Part]:
    """The parts of a text, in their order.

    Args:
        text: str.

    Raises:
        ValueError: an option has no value, or a part no name.

    Example:
        >>> parse("cifar10+augmented,N=100000,horizontal_flip=True")
        [Part(name='cifar10', options={}), Part(name='augmented', options={'N': 100000, 'horizontal_flip': True})]
    """
    return [_part(part, text) for part in _split(text, "+")]


def call(part: Part, known: Mapping[str, Callable], kind: str, *given: Any, **fixed: Any) -> Any:
    """Call what a part names with its options.

    Args:
        part: `Part`.
        known: from names to what is called.
        kind: str, what these are, for the errors.
        *given: what they are called with ahead of the options.
        **fixed: arguments that are no options, for those that take them.

    Raises:
        ValueError: the name or an option isn't known, or what is called raised one.
    """
    taken = options_of(lookup(part.name, known, kind), len(given))
    names = [name for name in taken if name not in fixed]
    if unknown := [name for name in part.options if name not in names]:
        raise ValueError(
            f"{part.name} has no option `{unknown[0]}`; it has {', '.join(names) or 'none'}. "
            f"Received: {unknown[0]}={part.options[unknown[0]]!r}"
        )
    return known[part.name](*given, **part.options, **{name: fixed[name] for name in fixed if name in taken})


def lookup(name: str, known: Mapping[str, Any], kind: str) -> Any:
    """What has that name.

    Raises:
        ValueError: nothing has.
    """
    if name not in known:
        raise ValueError(f"The {kind} must be one of {', '.join(known)}. Received: {name!r}")
    return known[name]


def options_of(function: Callable, given: int = 0) -> dict[str, inspect.Parameter]:
    """The options of a function or class: its named arguments but the first few, those of a base's `**options` too."""
    arguments = list(inspect.signature(function).parameters.values())[given:]
    found = {one.name: one for one in arguments if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    if inspect.isclass(function) and any(one.kind is one.VAR_KEYWORD for one in arguments):
        for base in function.__mro__[1:-1]:
            more = inspect.signature(base).parameters.values()
            found = {one.name: one for one in more if one.kind is one.KEYWORD_ONLY} | found
    return found


def _part(part: str, text: str) -> Part:
    name, *pairs = _split(part, ",")
    options = {}
    for pair in pairs:
        option, equals, value = pair.partition("=")
        if not equals or not option.strip():
            raise ValueError(
                f"Options are written option=value, after the name and a comma. Received: {pair!r} in {text!r}"
            )
        options[option.strip()] = _value(value.strip())
    if not name.strip():
        raise ValueError(f"A name is missing. Received: {text!r}")
    return Part(name.strip(), options)


def _split(text: str, separator: str) -> list[str]:
    """Split where it isn't between brackets, nor in a number such as 1e+3."""
    return re.split(rf"(?<![0-9]e){re.escape(separator)}(?![^(\[]*[)\]])", text)


def _value(text: str) -> Any:
    for read in (ast.literal_eval, float):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            pass
    return text
