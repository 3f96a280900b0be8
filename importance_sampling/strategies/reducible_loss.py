"""Importance steps on the candidates of a pool whose loss is furthest above their irreducible loss.

Source: [M22] Mindermann et al., Prioritized Training on Points that are Learnable, Worth Learning, and Not Yet Learnt,
ICML 2022 (arXiv 2206.07137), Algorithm 1.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any

import numpy as np

from importance_sampling.data.arrays import ArraySource
from importance_sampling.data.batches import PeekableBatches, flatten
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.strategies.base import StepResult
from importance_sampling.strategies.irreducible_loss import IrreducibleLoss
from importance_sampling.strategies.pool import PoolStrategy
from importance_sampling.utils.validation import as_array


class ReducibleLossStrategy(PoolStrategy):
    """Takes importance steps from pools whose scores are the reducible losses.

    Args:
        irreducible: the irreducible losses, which a step measures first if they aren't known.
        arguments, options: as for `PoolStrategy`; the score is "loss".
    """

    reads_rows = True
    needs_probes = False
    accepts_negative_scores = True  # a negative loss has a reducible part like any other
    supports_replicas = False

    def __init__(self, irreducible: IrreducibleLoss, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._irreducible = irreducible

    def use(self, plan: FitPlan) -> None:
        """Set the data of a `fit`, and copy the model before its first step if that will be needed.

        Raises:
            ValueError: the irreducible losses have another number of rows, or Keras can't copy the model.
        """
        super().use(plan)
        self._irreducible.use(self.model, plan.source, plan.class_weight)
        self.state.register("irreducible", self._irreducible)
        self._irreducible.prepare_copies(self.model)

    def step(self, n: int, batches: PeekableBatches, steps_left: float, with_draws: bool) -> StepResult | None:
        """Take n importance steps; the first ones measure the irreducible losses."""
        if self._irreducible.losses is None:
            self.prepare()  # copies of a model that can't be used would be trained in vain
        arguments = self.plan.arguments
        epochs = arguments["epochs"] - arguments["initial_epoch"]
        cost = self._irreducible.measure(self.plan.source, self.batch_size, epochs, self.state.seed)
        result = super().step(n, batches, steps_left, with_draws)
        return result._replace(cost=result.cost + cost / self.batch_size)

    def release(self) -> None:
        """Drop all references to the data."""
        super().release()
        self._irreducible.release()

    def describe(self, name: str, importance_steps: int, steps: int) -> str:
        """Return the summary of a `fit`."""
        sampler, measured = self.sampler, self._irreducible.measured
        text = (
            f"{name} took {importance_steps / steps:.0%} of {steps} steps, each on the {sampler.batch_size} of "
            f"{sampler.pool_size} candidates whose loss is furthest above their irreducible loss."
        )
        if measured is not None and self._irreducible.was_measured:
            who = (
                "two copies, each on one half of the data" if len(measured.epochs) > 1 else "a copy on the holdout set"
            )
            epochs = " and ".join(f"{count} epoch{'s' * (count > 1)}" for count in measured.epochs)
            text += f" Before the first step it trained {who} ({epochs})."
        irreducible = self._irreducible.losses
        unusable = np.count_nonzero(~np.isfinite(irreducible)) if irreducible is not None else 0
        if unusable:
            verbs = ("sample has", "is") if unusable == 1 else ("samples have", "are")
            text += f" {unusable} {verbs[0]} no finite irreducible loss and {verbs[1]} selected last."
        return text

    def _candidates(self) -> ArraySource:
        return self.plan.source.with_column(np.asarray(self._irreducible.losses, "float32"))

    def _unpacker(self) -> Callable:
        pack = self.plan.source.pack
        return lambda columns: (pack(columns[:-1]), columns[-1])


def check_losses(values: Any) -> np.ndarray:
    """Return irreducible losses as float32 `(rows,)`.

    Raises:
        ValueError: they aren't one finite number per row.
    """
    values = as_array(values)
    if values.ndim != 1 or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise ValueError(
            "`irreducible_loss` must be an array with one finite number for each row. "
            f"Received: irreducible_loss of shape {values.shape} and dtype {values.dtype}"
        )
    return values.astype("float32")


def check_holdout(holdout: Any) -> tuple:
    """Return a holdout set as it is.

    Raises:
        ValueError: it isn't a tuple of arrays `(x, y)` or `(x, y, sample_weight)`.
    """
    is_tuple = isinstance(holdout, (tuple, list)) and len(holdout) in (2, 3)
    parts = [flatten((part,))[0] for part in holdout] if is_tuple else []
    if not (is_tuple and all(parts[:2]) and all(getattr(leaf, "shape", ()) for part in parts for leaf in part)):
        raise ValueError(
            "`holdout` must be a tuple (x, y) or (x, y, sample_weight) of arrays that aren't part of the training "
            f"data. Received: holdout={reprlib.repr(holdout)} (of type {type(holdout)})"
        )
    return tuple(holdout)
