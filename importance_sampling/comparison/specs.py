"""Parser of the specifications on the command line: a name with options, and names of wrappers with options.

    NAME[,option=value]...[+NAME[,option=value]...]...

A value is a Python literal, a float such as `inf`, or text. The module `registry` defines the names.
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
    """Parse a specification into its parts.

    Args:
        text: str, the specification.

    Returns:
        List of `Part`, in the order of the text.

    Raises:
        ValueError: an option has no value, or a part has no name.

    Example:
        >>> parse("cifar10+augmented,N=100000,horizontal_flip=True")
        [Part(name='cifar10', options={}), Part(name='augmented', options={'N': 100000, 'horizontal_flip': True})]
    """
    return [_part(part, text) for part in _split(text, "+")]


def call(part: Part, registry: Mapping[str, Callable], category: str, *args: Any, **fixed: Any) -> Any:
    """Call the function or class that a part names, with the options of the part.

    Args:
        part: `Part`.
        registry: mapping from names to functions or classes.
        category: str, the name of the entries of `registry`, for error messages.
        *args: positional arguments before the options.
        **fixed: keyword arguments that can't be set by options; passed only if the function accepts them.

    Raises:
        ValueError: the name or an option is unknown, or the function raises a ValueError.
    """
    accepted = options_of(lookup(part.name, registry, category), len(args))
    names = [name for name in accepted if name not in fixed]
    if unknown := [name for name in part.options if name not in names]:
        raise ValueError(
            f"{part.name} has no option `{unknown[0]}`. Its options: {', '.join(names) or 'none'}. "
            f"Received: {unknown[0]}={part.options[unknown[0]]!r}"
        )
    return registry[part.name](*args, **part.options, **{name: fixed[name] for name in fixed if name in accepted})


def lookup(name: str, registry: Mapping[str, Any], category: str) -> Any:
    """Return the entry of a name.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in registry:
        raise ValueError(f"The {category} must be one of {', '.join(registry)}. Received: {name!r}")
    return registry[name]


def options_of(function: Callable, num_args: int = 0) -> dict[str, inspect.Parameter]:
    """Return the options of a function or class: its named parameters, without the first `num_args`.

    If a class has a `**` parameter, the keyword-only parameters of its base classes are included.
    """
    parameters = list(inspect.signature(function).parameters.values())[num_args:]
    options = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if inspect.isclass(function) and any(p.kind is p.VAR_KEYWORD for p in parameters):
        for base in function.__mro__[1:-1]:
            inherited = inspect.signature(base).parameters.values()
            options = {p.name: p for p in inherited if p.kind is p.KEYWORD_ONLY} | options
    return options


def _part(part: str, text: str) -> Part:
    name, *pairs = _split(part, ",")
    options = {}
    for pair in pairs:
        option, equals, value = pair.partition("=")
        if not equals or not option.strip():
            raise ValueError(f"Write options as option=value, separated by commas. Received: {pair!r} in {text!r}")
        options[option.strip()] = _value(value.strip())
    if not name.strip():
        raise ValueError(f"Write a name before the options. Received: {text!r}")
    return Part(name.strip(), options)


def _split(text: str, separator: str) -> list[str]:
    """Split at a separator that isn't inside brackets or part of a number such as 1e+3."""
    return re.split(rf"(?<![0-9]e){re.escape(separator)}(?![^(\[]*[)\]])", text)


def _value(text: str) -> Any:
    for read in (ast.literal_eval, float):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            pass
    return text
