"""Steps along variance-reduced gradients, on uniformly drawn rows, with a snapshot of the weights now and then.

Source: [JZ13] Johnson & Zhang, 2013, with snapshots over all rows; [LJ17] Lei & Jordan, 2017, over a part of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from importance_sampling.conditions.signals import row_signals
from importance_sampling.core.scoring import Scoring
from importance_sampling.fit.state import TrainerState
from importance_sampling.model_wrappers import SVRGWrapper
from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import SCSGSampler
from importance_sampling.strategies.dataset_rows import DatasetRows
from importance_sampling.strategies.indexed import IndexedStrategy


class SnapshotRows(DatasetRows):
    """Rows as a snapshot reads them: with the user's sample weights, and counted as trained on."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._trained = 0

    def __getitem__(self, indices: np.ndarray) -> tuple:
        self._trained += len(indices)
        return self.source.read(indices)

    def take_trained(self) -> int:
        """Return the number of rows read for snapshots since the last call."""
        trained, self._trained = self._trained, 0
        return trained


class SnapshotStrategy(IndexedStrategy):
    """Trains on uniformly drawn rows with a model wrapper that keeps snapshots; the measured scores are the losses.

    Args:
        model, batch_size, state: as for `Strategy`.
        make_wrapper: returns an `SVRGWrapper` of the model; called once for every data set.
        B, B_over_b, B_rate: as for `SCSGSampler`.
    """

    rows_class = SnapshotRows
    draws_by_score = False
    accepts_negative_scores = True
    supports_replicas = False

    def __init__(
        self,
        model: keras.Model,
        make_wrapper: Callable[[], SVRGWrapper],
        B: int,
        B_over_b: int,
        B_rate: float,
        batch_size: int,
        state: TrainerState,
    ):
        def make_sampler(rows: DatasetRows) -> SCSGSampler:
            self.wrapper = make_wrapper()
            self._step, self._repeated = None, {}  # compiled for the wrapper before
            self._register("gradients", self.wrapper)
            return SCSGSampler(rows, UNBIASED, self.wrapper, B, B_over_b, B_rate, seed=state.seed)

        super().__init__(model, make_sampler, batch_size, state, Scoring("loss"))

    def describe(self, name: str, importance_steps: int, steps: int) -> str:
        """Return the summary of a `fit`."""
        return (
            f"{name} took {importance_steps / steps:.0%} of {steps} steps, with a new snapshot every "
            f"{self.sampler.B_over_b}; the last one's mean gradient is over {self.wrapper.snapshot_rows} of "
            f"{self.sampler.size} samples."
        )

    def _trained_beside(self, n: int) -> int:
        """Return the rows whose gradients were taken at the snapshot."""
        return n * self.batch_size + self.rows.take_trained()

    def _make_step(self) -> Callable:
        """Return `step(data, weights, unbiased_weights, is_biased) -> (logs, losses)`."""

        def step(data: tuple, weights: Any, unbiased: Any, is_biased: bool) -> tuple:
            logs, losses = self.wrapper.step(data)
            self.state.update_averages(row_signals(losses, weights), 1)
            self.state.record_weights(weights, ops.all(ops.isfinite(losses)))
            return logs, losses

        return step
