"""Importance steps from pools whose sizes change during training, compiled for a few fixed sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from importance_sampling.conditions import GateContext, Signals
from importance_sampling.data.batches import PeekableBatches
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.strategies.base import StepResult, Strategy
from importance_sampling.strategies.pool import PoolStrategy


class ResizedPoolStrategy(Strategy):
    """Takes importance steps with the pool and batch size that suit the current signals.

    Args:
        sizes: returns the current `(pool_size, batch_size)`, one of a few pairs.
        make: `make(pool_size, batch_size)` returns a `PoolStrategy`; called once for each pair.
        batch_size: int, of a uniform step.
    """

    def __init__(self, sizes: Callable[[], tuple[int, int]], make: Callable[[int, int], PoolStrategy], batch_size: int):
        self._sizes = sizes
        self._make = make
        self._made: dict[tuple[int, int], PoolStrategy] = {}
        self._current = self._strategy_of(sizes())
        first = self._current
        super().__init__(first.model, first.sampler, batch_size, first.state, first.scoring)

    def use(self, plan: FitPlan) -> None:
        """Set the data of a `fit`."""
        super().use(plan)
        self._current.use(plan)

    def step(self, n: int, batches: PeekableBatches, steps_left: float, with_draws: bool) -> StepResult | None:
        """Take up to n importance steps, all of the current size."""
        chosen = self._strategy_of(self._sizes())
        if chosen is not self._current:
            chosen.use(self.plan)
            chosen.continue_from(self._current)
            self._current, self.sampler = chosen, chosen.sampler
        return self._current.step(n, batches, steps_left, with_draws)

    def gate_context(self) -> GateContext:
        """Return the context for the gate's decision, with the sizes that suit the current signals."""
        return self._strategy_of(self._sizes()).gate_context()

    def signals(self, scores: Any) -> Signals:
        """Compute the gate's signals for pools from the scores of uniformly drawn samples."""
        return self._current.signals(scores)

    def close(self) -> None:
        """Stop reading ahead."""
        self._current.close()

    def release(self) -> None:
        """Drop all references to the data, in every size."""
        super().release()
        for strategy in self._made.values():
            strategy.release()

    def _strategy_of(self, pair: tuple[int, int]) -> PoolStrategy:
        if pair not in self._made:
            strategy = self._make(*pair)
            if self._made:
                strategy.take_checks(self._current)
            self._made[pair] = strategy
        return self._made[pair]
