"""What is trained on and what is tested on. It loads nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

from importance_sampling import backend


class Data(NamedTuple):
    """Arrays whose first axis is the row."""

    x_train: Any
    y_train: Any
    x_test: Any
    y_test: Any

    def resident(self) -> Data:
        """The same as tensors, so that everybody who trains on them shares one copy."""
        return Data(*map(backend.resident, self))
