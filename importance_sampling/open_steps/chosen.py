"""Open steps whose pools are of the size that gains most: growth over cost, of a few sizes.

No source; it is this library's own. Growth is `conditions.growth` at each size, averaged; nothing is drawn here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from importance_sampling.conditions import Signals, Terms
from importance_sampling.open_steps.pool import PoolSteps
from importance_sampling.open_steps.sized import SizedPoolSteps
from importance_sampling.state import TrainerState

PRESAMPLES = (2.0, 3.0, 5.0, 8.0)  # pools, in batches
FIRST = 3.0  # before anything was measured
BETTER = 1.05  # times the gain of the size at hand, that another is worth changing for


class ChosenPoolSteps(SizedPoolSteps):
    """Pool steps of the size at which growth over cost is largest; a size is kept until another gains 5 % more.

    Args:
        make: `make(pool_size, batch_size) -> PoolSteps`, called once a size; all measure the growth at `PRESAMPLES`.
        batch_size: int.
        state: the trainer's; remembers the size.
    """

    def __init__(self, make: Callable[[int, int], PoolSteps], batch_size: int, state: TrainerState):
        self.state, self.prepared = state, None  # the sizes depend on them, which are asked for in `super()`
        super().__init__(lambda: (round(self._presample() * batch_size), batch_size), make, batch_size)

    def choose(self, signals: Signals) -> None:
        """Take the size that gains most."""
        fitting = self._fitting()
        costs = [self._terms(presample).cost for presample in fitting]
        best = most_gaining(signals.growth[: len(fitting)], costs, self._at())
        self.state.counters["presample"] = fitting[best]

    def offer(self, signals: Signals) -> tuple[Signals, Terms]:
        """What pools of the size chosen promise a gate, and on which terms."""
        return signals._replace(growth=signals.growth[self._at()]), self._terms(self._presample())

    def notes(self) -> list[str]:
        """Which size the pools had."""
        return [f"Pools were of {self.sampler.presample:g} batches at the end."]

    def _terms(self, presample: float) -> Terms:
        return self.cost.terms(self.scorer.passes * presample)

    def _at(self) -> int:
        return self._fitting().index(self._presample())

    def _presample(self) -> float:
        """The size chosen last, or what comes closest to it among those that the data have rows for."""
        wanted = self.state.counters["presample"] or FIRST
        return min(self._fitting(), key=lambda presample: abs(presample - wanted))

    def _fitting(self) -> tuple[float, ...]:
        """The sizes that the data have rows for, where one can know."""
        rows = getattr(getattr(self.prepared, "source", None), "num_rows", 0) or float("inf")
        return tuple(p for p in PRESAMPLES if p * self.batch_size <= rows) or PRESAMPLES[:1]


def most_gaining(growths: list[float], costs: list[float], now: int) -> int:
    """Which size gains most, growth over cost; the one at hand unless that is 5 % more.

    Args:
        growths, costs: of each size; growths are NaN where nothing was measured.
        now: int, the size at hand.

    Returns:
        int, its index.
    """
    gains = np.divide(growths, costs)
    if np.isnan(gains).any():
        return now
    best = int(np.argmax(gains))
    return best if gains[best] > BETTER * gains[now] else now
