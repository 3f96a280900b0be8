"""The plan of one `fit`: its data, the sizes of its batches and epochs, and why sampling is impossible, if it is."""

from __future__ import annotations

import dataclasses
import operator
from typing import Any

DEFAULT_BATCH_SIZE = 32  # Keras's


@dataclasses.dataclass(frozen=True)
class FitPlan:
    """Everything that is known about a `fit` before its first step.

    Attributes:
        arguments: the arguments for `keras.Model.fit`, by name.
        source: where importance steps read samples from; None if they can't.
        batch_size: int, rows of a uniform step; None if only the batches of a stream show it.
        batches_per_epoch: int, uniform steps of an epoch; 0 if only Keras's iterator knows.
        order: the order of the rows in the current epoch; None if no listener needs it or rows have no indices.
        reason: why samples of these data can't be drawn, as a clause; None if they can, or if Keras raises an error.
        warning: a warning about the data; None if there is none.
    """

    arguments: dict[str, Any]
    source: Any = None
    batch_size: int | None = DEFAULT_BATCH_SIZE
    batches_per_epoch: int = 0
    order: Any = None
    reason: str | None = None
    warning: str | None = None

    @property
    def signature(self) -> tuple:
        """The structure, shapes and dtypes that compiled steps depend on."""
        return () if self.source is None else self.source.signature


def as_batch_size(value: Any) -> int:
    """Return a batch size as an int; 32 for a value that isn't one, which Keras refuses."""
    try:
        return operator.index(value)
    except TypeError:
        return DEFAULT_BATCH_SIZE
