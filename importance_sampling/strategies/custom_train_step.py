"""Importance steps by a `train_step` that the model defines: it is given the weights as sample weights.

Such a step can't be entered, so it measures no scores, and its training metrics are those of the drawn samples. Rows by
index are therefore scored before each epoch, and pools before each step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.conditions.signals import uniform_signals
from importance_sampling.core.train_step_check import check_train_step, loss_ranks, with_weights
from importance_sampling.data.batches import PeekableBatches
from importance_sampling.samplers.base import Drawn
from importance_sampling.strategies.base import StepResult, Strategy
from importance_sampling.strategies.compiled_steps import CompiledSteps
from importance_sampling.strategies.dataset_rows import DatasetRows
from importance_sampling.strategies.indexed import IndexedStrategy
from importance_sampling.strategies.pool import PoolStep, PoolStrategy
from importance_sampling.utils.errors import Unsupported

METRICS = (
    "The training metrics of importance steps come from the `train_step` of the model: figures that it weights by "
    "`sample_weight`, as the loss, are unbiased; others, such as an unweighted accuracy, are those of the drawn "
    "samples, which are harder than the average"
)


class _CustomTrainStep(Strategy):
    """What strategies that call the model's own `train_step` share.

    Args:
        args, options: of the other base class.
        compiled: has Keras's training function, which calls `train_step`.
    """

    supports_replicas = False
    computes_metrics = False

    def __init__(self, *args: Any, compiled: CompiledSteps, **options: Any):
        super().__init__(*args, **options)
        self._keras_steps = compiled
        self._ranks: list[int] = []
        self._is_tried = False

    def check_replicas(self) -> None:
        """Check that the model trains on one replica."""
        count = backend.replicas(self.model)
        if count > 1:
            raise Unsupported(f"it trains on {count} replicas, and defines a `train_step`. Train on one replica")

    def step(self, n: int, batches: PeekableBatches, steps_left: float, with_draws: bool) -> StepResult | None:
        """Take up to n importance steps; before the first one, check that the `train_step` weights samples."""
        if not self._is_tried:
            batch = self.prepare()
            self._ranks = loss_ranks(self.model, batch)
            check_train_step(self.model, batch, self._ranks)
            self._is_tried = True
        return super().step(n, batches, steps_left, with_draws)

    def first_step_warning(self) -> str | None:
        """Return what the training metrics are from the first importance step on; None if all of them are weighted."""
        return f"{METRICS}." if keras_internals.has_unweighted_metrics(self.model) else None

    def notes(self) -> list[str]:
        """Return a line for the summary that says what the training metrics are."""
        return [f"{METRICS}."]

    def _train_on(self, batches: list) -> dict:
        """Take a step of Keras's training function on each batch; return the logs of the last."""
        return self._keras_steps.keras_function(iter(batches))


class _ScoredRows(DatasetRows):
    """Rows that keep the scores of scoring passes until they are taken."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._scores: list[np.ndarray] = []

    def score_rows(self, indices: np.ndarray, batch_size: int) -> np.ndarray:
        """Return the model's scores of rows; see `DatasetRows`."""
        scores = super().score_rows(indices, batch_size)
        self._scores.append(scores)
        return scores

    def take_scores(self) -> np.ndarray:
        """Return the scores of all rows scored by index since the last call, float32 `(n,)`."""
        scores, self._scores = self._scores, []
        return np.concatenate([np.zeros(0, "float32"), *scores])


class CustomIndexedStrategy(_CustomTrainStep, IndexedStrategy):
    """Draws rows with a sampler, and trains on them by the model's own `train_step`.

    Args:
        args, options: as for `IndexedStrategy`; the sampler must score all rows before each epoch.
        compiled: as for `CompiledSteps`.
    """

    rows_class = _ScoredRows
    measures_scores = False

    def __init__(self, *args: Any, compiled: CompiledSteps, **options: Any):
        super().__init__(*args, compiled=compiled, **options)
        self._gather: Callable | None = None

    def _train(self, draws: list[Drawn]) -> tuple[dict, None]:
        self._record_signals()
        if self._gather is None:
            self._gather = self.compile(self._weighted_rows, reduce_retracing=False)
        batches = []
        for drawn in draws:
            columns = self.rows.columns_of_step(self.rows.columns(drawn.indices[None]), 0)
            batches.append(self._gather(drawn.weights.astype("float32"), drawn.indices, *columns))
        return self._train_on(batches), None

    def _weighted_rows(self, weights: Any, indices: Any, *columns: Any) -> tuple:
        """Return `(x, y, sample_weight)` of rows, with the importance weights in the sample weights."""
        self.state.record_weights(weights, True)
        return with_weights(self.rows.gather(indices, columns), weights, self._ranks)

    def _record_signals(self) -> None:
        """Add the scores of a scoring pass to the averages of the gate's signals."""
        scores = self.rows.take_scores()
        if len(scores):
            self.state.update_averages(uniform_signals(scores, self.alpha), self.plan.batches_per_pass)


class CustomPoolStrategy(_CustomTrainStep, PoolStrategy):
    """Draws batches from pools, and trains on them by the model's own `train_step`.

    Args:
        args, options: as for `PoolStrategy`.
        compiled: as for `CompiledSteps`.
    """

    def _steps(self, with_draws: bool) -> Callable:
        if with_draws not in self._compiled:
            step = _PoolSelection(self.model, self.scorer, self.sampler, self.state, with_draws)
            unpack = self._unpacker()
            self._compiled[with_draws] = self.compile(
                lambda indices, *columns: step(indices, *unpack(columns), self._ranks)
            )

        def run(n: int, pools: Any) -> tuple[dict, tuple]:
            batches, draws = zip(*[self._compiled[with_draws](*next(pools)) for _ in range(n)], strict=True)
            return self._train_on(list(batches)), tuple(zip(*draws, strict=True))

        return run


class _PoolSelection(PoolStep):
    """Draws a batch from a pool without training on it."""

    def __call__(self, indices: Any, data: tuple, ranks: list[int]) -> tuple[tuple, tuple]:
        """Return `(x, y, sample_weight)` of the batch with its weights, and what listeners get."""
        scores = self.scorer(data).scores
        picked, batch = self.pick(scores, data)
        return with_weights(batch, picked.weights, ranks), self.record(indices, scores, picked, None)
