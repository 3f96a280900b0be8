"""Importance steps from pools whose sizes change during training, compiled for a few fixed sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from importance_sampling.conditions import GateContext, Signals
from importance_sampling.data.batches import PeekableBatches
from importance_sampling.fit.plan import FitPlan
from importance_sampling.fit.state import TrainerState
from importance_sampling.strategies.base import StepResult, Strategy
from importance_sampling.strategies.pool import PoolStrategy

PRESAMPLES = (2.0, 3.0, 5.0, 8.0)  # sizes of pools, in batches
FIRST_PRESAMPLE = 3.0  # before a gain was measured
IMPROVEMENT = 1.05  # factor in gain over cost that a change of size needs


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


class BestPoolStrategy(ResizedPoolStrategy):
    """Takes importance steps from pools of the size with the largest variance gain over cost.

    A size is kept until another one is 5 % better. The rule is this library's own.

    Args:
        make: `make(pool_size, batch_size)` returns a `PoolStrategy` that measures the gain at `PRESAMPLES`.
        batch_size: int.
        state: the trainer's state, which remembers the size.
    """

    def __init__(self, make: Callable[[int, int], PoolStrategy], batch_size: int, state: TrainerState):
        self.state, self.plan, self.batch_size = state, None, batch_size  # the sizes depend on them
        super().__init__(lambda: (round(self._presample() * batch_size), batch_size), make, batch_size)

    def update_sizes(self, signals: Signals) -> None:
        """Choose the size with the largest variance gain over cost."""
        presamples = self._possible()
        costs = [self._context(presample).cost for presample in presamples]
        best = best_size(signals.gain[: len(presamples)], costs, self._position())
        self.state.counters.presample = presamples[best]

    def gate_context(self, signals: Signals) -> tuple[Signals, GateContext]:
        """Return the signals of the current size and the context for the gate's decision."""
        return signals._replace(gain=signals.gain[self._position()]), self._context(self._presample())

    def notes(self) -> list[str]:
        """Return a line with the size of the pools."""
        return [f"Pools had {self.sampler.presample:g} batches at the end."]

    def _context(self, presample: float) -> GateContext:
        return self.cost.context(self.scorer.cost * presample)

    def _position(self) -> int:
        return self._possible().index(self._presample())

    def _presample(self) -> float:
        """Return the size chosen last, or the possible size closest to it."""
        wanted = self.state.counters.presample or FIRST_PRESAMPLE
        return min(self._possible(), key=lambda presample: abs(presample - wanted))

    def _possible(self) -> tuple[float, ...]:
        """Return the sizes that the data have enough rows for; all sizes for streams."""
        rows = getattr(getattr(self.plan, "source", None), "num_rows", 0) or float("inf")
        return tuple(p for p in PRESAMPLES if p * self.batch_size <= rows) or PRESAMPLES[:1]


def best_size(gains: list[float], costs: list[float], current: int) -> int:
    """Return the position of the size with the largest gain over cost; the current one unless that is 5 % better.

    Args:
        gains: variance gains of each size; NaN if not measured.
        costs: costs of a step with each size, in uniform steps.
        current: int, position of the current size.
    """
    ratios = np.divide(gains, costs)
    if np.isnan(ratios).any():
        return current
    best = int(np.argmax(ratios))
    return best if ratios[best] > IMPROVEMENT * ratios[current] else current
