"""A trainer of any sampler that draws rows by index, so that samplers can be compared as they are.

Nothing is drawn here; the trainers of `importance_sampling.training` are what users want.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from importance_sampling.samplers import BaseSampler
from importance_sampling.training.tables import TableTrainer


class SamplerTraining(TableTrainer):
    """Train on the batches that a sampler draws, with its weights.

    Args:
        model: a compiled `keras.Model`; it stays the user's own.
        make: called as `make(rows, seed)`, `rows` being both the data set and the model that scores it; returns a
            `BaseSampler`. It is called once ahead of `fit`, on two rows, so that wrong options are found early.
        score, layer, seed: as for `ImportanceTraining`.
        tau_th: float or None (default): no gate.

    Raises:
        ValueError: an argument is out of its range, or what `make` raises.

    Example:
        >>> SamplerTraining(model, lambda rows, seed: CacheSampler(rows, UNBIASED, seed=seed)).fit(x_train, y_train)
    """

    def __init__(
        self,
        model: keras.Model,
        make: Callable[[Any, int], BaseSampler],
        *,
        score: str | Callable = "gnorm",
        layer: keras.Layer | str | int | None = None,
        tau_th: float | None = None,
        seed: int | None = None,
    ):
        super().__init__(model, score=score, layer=layer, tau_th=tau_th, seed=seed)
        make(_TwoRows(), 0)
        self._make = make

    def _sampler(self, rows: Any, seed: int) -> BaseSampler:
        return self._make(rows, seed)


class _TwoRows:
    """Two rows of two classes, as a data set and as a model."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, idxs: Any) -> tuple:
        rows = np.eye(2, dtype="float32")[idxs]
        return rows, rows

    @property
    def train_data(self) -> _TwoRows:
        return self

    def score_rows(self, indices: np.ndarray, batch_size: int) -> np.ndarray:
        return np.ones(len(indices), "float32")
