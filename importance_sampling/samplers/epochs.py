"""Draw the rows of a whole epoch at once, and serve its batches from them.

Source: this library.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from importance_sampling.samplers.base import BaseSampler, Drawn, Smoothing


class EpochSampler(BaseSampler):
    """The base class of samplers that draw whole epochs: a subclass implements `_draw_epoch` and `_epoch_pool`.

    A subclass draws a batch from `_parts_of_batch`, and weighs each part by `_weighed`.

    Args:
        arguments, options: as for `BaseSampler`.
    """

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._order = np.zeros(self.size, "int32")  # the rows of the current epoch, at the end of the array
        self._cursor = self.size  # position in `_order`

    @property
    def samples_planned(self) -> int:
        """Samples left of the current epoch, whose draws don't depend on scores measured from now on."""
        return self.size - self._cursor

    def _draw_epoch(self, smooth: Smoothing, batch_size: int, samples_after: float) -> Any:
        """Draw the rows of the next epoch by smoothed scores, and pass them to `_begin_order`.

        Args:
            smooth: function from scores to smoothed ones.
            batch_size: int >= 1, the number of samples that are needed now.
            samples_after: float >= 0, the number of samples left in the training after these.
        """
        raise NotImplementedError

    def _epoch_pool(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores and the probabilities of all rows in the current epoch, float `(size,)` each."""
        raise NotImplementedError

    def _begin_order(self, rows: np.ndarray) -> np.ndarray:
        """Begin an epoch of these rows, int `(n,)` with n <= size; return the array to shuffle, a view."""
        self._cursor = self.size - len(rows)
        self._order[self._cursor :] = rows
        return self._order[self._cursor :]

    def _parts_of_batch(self, batch_size: int, smooth: Smoothing) -> Iterator[np.ndarray]:
        """Yield the row indices of a batch, int64, in parts: the rest of an epoch, and what the next one adds.

        The next epoch is drawn when the part before it has been used.
        """
        samples_after = max(self.samples_left - batch_size, 0)
        while batch_size > 0:
            if self._cursor == self.size:
                self._draw_epoch(smooth, batch_size, samples_after)
            indices = self._order[self._cursor : self._cursor + batch_size].astype("int64")
            self._cursor += len(indices)
            batch_size -= len(indices)
            yield indices

    def _weighed(self, indices: np.ndarray, p: np.ndarray, scores: np.ndarray) -> Drawn:
        """Return rows of the current epoch with their weights.

        Args:
            indices: int64 `(b,)`, row indices.
            p: float64 `(b,)`, the probabilities of these rows; the sum over all rows is 1.
            scores: float `(b,)`, >= 0, the scores of these rows.
        """
        if self.reweighting.weight_size == 1:
            weights = self.reweighting.batch_weights(p, self.size, scores)
        else:
            weights = self.reweighting.sample_weights(indices, *self._epoch_pool())
        unbiased = 1.0 / (self.size * p)
        return Drawn(indices, weights.astype("float32"), scores.astype("float32"), unbiased.astype("float32"))
