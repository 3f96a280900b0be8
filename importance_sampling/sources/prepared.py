"""What is known of the data of a `fit` before it runs, and what Keras gets in their place. Nothing is read here."""

from __future__ import annotations

import operator
from typing import Any


class Prepared:
    """Data made ready.

    Attributes:
        arguments: dict, the arguments for `keras.Model.fit`.
        source: where candidates come from, or None where there are none to be had.
        reason: why there are none, a clause; None where Keras will raise anyway.
        batch_size: int, rows of a batch; None where only the first batch will tell.
        order: None, or the `Order` of the rows in the pass under way, where it is to be told which rows plain steps
            train on and rows have numbers.
        num_batches: int, batches in a pass; 0 where only Keras's iterator knows.
        warning: str or None, a warning about the data for the user.
    """

    def __init__(self, arguments: dict, reason: str | None = None, source: Any = None):
        self.arguments = arguments
        self.reason = reason
        self.source = source
        self.batch_size: int | None = as_batch_size(arguments["batch_size"] or 32)
        self.order: Any = None
        self.num_batches = 0
        self.warning: str | None = None

    def forget(self) -> None:
        """Let go of the data at once, not when Python's collector comes by: Keras's callbacks lead round to here."""
        if self.source is not None:
            self.source.forget()
        self.arguments, self.source, self.order = {}, None, None

    @property
    def signature(self) -> tuple:
        """What compiled steps depend on: structure, shapes and dtypes."""
        return () if self.source is None else self.source.signature


def as_batch_size(value: Any) -> int:
    """Return a batch size as an int; 32 for a value that isn't one, which Keras refuses."""
    try:
        return operator.index(value)
    except TypeError:
        return 32
