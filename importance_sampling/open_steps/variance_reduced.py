"""Open steps along variance-reduced gradients, on uniform rows, with a snapshot taken every so many steps.

Source: [JZ13] Johnson & Zhang, 2013, with snapshots over all rows; [LJ17] Lei & Jordan, 2017, over a part. The steps
themselves are the model wrappers', when to take snapshots is the sampler's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from importance_sampling import backend
from importance_sampling.events import Listeners
from importance_sampling.model_wrappers import SVRGWrapper, row_signals
from importance_sampling.open_steps.rows import Rows, RowSteps
from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import SCSGSampler
from importance_sampling.scores import Scoring
from importance_sampling.state import TrainerState


class VarianceReducedSteps(RowSteps):
    """Train on uniform rows with a model wrapper that keeps snapshots; what is measured are the losses.

    Args:
        make_wrapper: returns an `SVRGWrapper` of the model, called when the first open step is taken.
        B, B_over_b, B_rate: as for `SCSGSampler`.
        Others: as for `OpenSteps`.
    """

    def __init__(
        self,
        model: keras.Model,
        keras_function: Callable,
        make_wrapper: Callable[[], SVRGWrapper],
        B: int,
        B_over_b: int,
        B_rate: float,
        batch_size: int,
        state: TrainerState,
    ):
        def make_sampler(rows: Rows) -> SCSGSampler:
            self.wrapper, self._step = make_wrapper(), None
            self._keep("gradients", self.wrapper)
            return SCSGSampler(_SnapshotRows(self), UNBIASED, self.wrapper, B, B_over_b, B_rate, seed=state.seed)

        super().__init__(model, keras_function, make_sampler, batch_size, state, Scoring("loss"))

    def take(self, iterator: Any, n: int, listeners: Listeners) -> dict:
        """Take n open steps."""
        logs = super().take(iterator, n, listeners)
        self.spend(trained=n * self.batch_size)  # the gradient at the snapshot
        return logs

    def summary(self, name: str, open_steps: int, steps: int) -> str:
        """What was done, in words."""
        return (
            f"{name} took {open_steps / steps:.0%} of {steps} steps, with a new snapshot every "
            f"{self.sampler.B_over_b}; the last one's mean gradient is over {self.wrapper.snapshot_rows} of "
            f"{self.sampler.size} samples."
        )

    def _compiled(self) -> Callable:
        """`step(weights, fair, indices, *columns) -> (logs, losses)`."""
        if self._step is None:

            def step(weights: Any, fair: Any, indices: Any, *columns: Any) -> tuple:
                logs, losses = self.wrapper.step(self.rows.gathered(indices, columns))
                self.state.observe(row_signals(losses, weights), 1)
                self.state.count(weights, ops.all(ops.isfinite(losses)))
                return logs, losses

            self._step = backend.compile_step(step, self.model)
        return self._step


class _SnapshotRows(Rows):
    """The rows as a snapshot is taken over them: with the user's own weights, and counted as trained on."""

    def __getitem__(self, indices: np.ndarray) -> tuple:
        self._steps.spend(trained=len(indices))
        return self._steps.prepared.source.read(indices)
