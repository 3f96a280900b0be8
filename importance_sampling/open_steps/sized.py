"""Open steps whose pools and batches change in size: compiled for a few fixed sizes, chosen as the gate looks.

Which sizes suit a variance reduction is the samplers' arithmetic, not done here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from importance_sampling.conditions import Signals
from importance_sampling.events import Listeners
from importance_sampling.open_steps.base import OpenSteps
from importance_sampling.open_steps.pool import PoolSteps
from importance_sampling.sources import Prepared


class SizedPoolSteps(OpenSteps):
    """Pool steps of the sizes that suit what the gate saw last.

    Args:
        sizes: `sizes() -> (pool_size, batch_size)` as of now, one of a few pairs.
        make: `make(pool_size, batch_size) -> PoolSteps`, called once a pair.
        batch_size: int, of plain steps.
    """

    def __init__(self, sizes: Callable[[], tuple[int, int]], make: Callable[[int, int], PoolSteps], batch_size: int):
        self.batch_size = batch_size
        self._sizes = sizes
        self._make = make
        self._made: dict[tuple[int, int], PoolSteps] = {}
        self._current = self._of(sizes())
        first = self._current
        super().__init__(first.model, first.keras_function, first.sampler, batch_size, first.state, first.scoring)

    def use(self, prepared: Prepared) -> None:
        """Take the data of a `fit`."""
        super().use(prepared)
        self._current.use(prepared)

    def ready(self, n: int, draw: Callable, give_back: Callable) -> int:
        """Choose the size, and have up to n pools of it ready."""
        chosen = self._of(self._sizes())
        if chosen is not self._current:
            chosen.use(self.prepared)
            chosen.follow(self._current)
            self._current, self.sampler = chosen, chosen.sampler
        return self._current.ready(n, draw, give_back)

    def take(self, iterator: Any, n: int, listeners: Listeners) -> dict:
        """Take n open steps, all of one size."""
        self.spend(trained=n * (self.sampler.batch_size - self.batch_size))
        return self._current.take(iterator, n, listeners)

    def signals(self, scores: Any) -> Signals:
        """What the scores say of drawing from pools."""
        return self._current.signals(scores)

    def release(self) -> None:
        """Stop reading ahead."""
        self._current.release()

    def forget(self) -> None:
        """Let go of the data, in every size."""
        super().forget()
        for steps in self._made.values():
            steps.forget()

    def _of(self, pair: tuple[int, int]) -> PoolSteps:
        """The steps of a pool size and a batch size."""
        if pair not in self._made:
            self._made[pair] = self._make(*pair)
            self._made[pair].batch_size = self.batch_size  # what is spent is counted in plain batches
        return self._made[pair]
