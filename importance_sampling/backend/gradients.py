"""The result type of `differentiate`, which every backend implements."""

from __future__ import annotations

from typing import Any, NamedTuple


class Gradients(NamedTuple):
    """The gradients of a scalar. An entry is None or zero where the scalar doesn't depend on the variable or tensor."""

    variables: list[Any]  # one per variable
    extra: list[Any]  # one per tensor that the function was called with
    tapped: list[Any]  # one per intermediate tensor that was marked, in the order of the calls
