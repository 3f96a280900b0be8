"""Read the state of Keras optimizers."""

from __future__ import annotations

import keras
import numpy as np


def learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """Return the current learning rate, the sum over the parts of an optimizer that consists of several."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    parts = [part for part in getattr(optimizer, "optimizers", [optimizer]) if part.built]
    return float(sum(np.asarray(part.learning_rate) for part in parts))
