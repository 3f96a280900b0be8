"""What is known about a `fit` before its first step."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from importance_sampling.data.batches import DEFAULT_BATCH_SIZE


@dataclasses.dataclass(frozen=True)
class FitPlan:
    """Everything that is known about a `fit` before its first step.

    Attributes:
        arguments: the arguments for `keras.Model.fit`, by name.
        source: where importance steps read samples from; None if they can't.
        batch_size: int, rows of a uniform step; None if only the batches of a stream show it.
        batches_per_pass: int, uniform steps of a pass over the data; 0 if only Keras's iterator knows.
        order: the order of the rows in the current pass; None if no listener needs it or rows have no indices.
        reason: why importance sampling is impossible, as a clause; None if it is possible, if the trainer is switched
            off, or if Keras raises an error.
        warning: a warning about the data; None if there is none.
        full_epoch_steps: int, steps of an epoch of `fit`, if the strategy may take fewer; 0 if Keras alone sets them.
        class_weight: the user's argument, which `arguments` may have as a part of the sample weights.
        is_weighted: bool, True if the user passed sample weights or class weights.
    """

    arguments: dict[str, Any]
    source: Any = None
    batch_size: int | None = DEFAULT_BATCH_SIZE
    batches_per_pass: int = 0
    order: Any = None
    reason: str | None = None
    warning: str | None = None
    full_epoch_steps: int = 0
    class_weight: dict | None = None
    is_weighted: bool = False

    @functools.cached_property
    def has_validation_data(self) -> bool:
        """True if Keras evaluates the model on validation data."""
        return bool(self.arguments.get("validation_split")) or self.arguments.get("validation_data") is not None

    @property
    def allows_sampling(self) -> bool:
        """True if importance steps are possible, as far as that is known before the first step."""
        return self.source is not None and self.reason is None

    @property
    def signature(self) -> tuple:
        """The structure, shapes and dtypes that compiled steps depend on."""
        return () if self.source is None else self.source.signature
