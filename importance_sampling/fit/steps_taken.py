"""Count the steps of a model's optimizer: by them a saved model and a saved state of its trainer are matched."""

from __future__ import annotations

import keras

from importance_sampling import backend
from importance_sampling.backend import keras_internals


def steps_taken(model: keras.Model) -> int | None:
    """Return how many steps the optimizer of a model has taken; None for a model without an optimizer."""
    if model.optimizer is None:
        return None
    return int(backend.to_host(keras_internals.optimizer_steps(model.optimizer)))
