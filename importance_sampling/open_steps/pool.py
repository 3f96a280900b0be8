"""Open steps of samplers that look before they pick: pools of candidates through one compiled function.

Source: [KF18] (arXiv 1803.00942), Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from importance_sampling import backend
from importance_sampling.conditions import Signals, Terms
from importance_sampling.events import Listeners
from importance_sampling.fit import eligibility
from importance_sampling.model_wrappers import ImportanceStep, pool_signals
from importance_sampling.open_steps.base import OpenSteps
from importance_sampling.samplers.pool import PoolSampler
from importance_sampling.scores import Scoring, flat
from importance_sampling.state import TrainerState
from importance_sampling.weighted_loss import Unsupported


class PoolSteps(OpenSteps):
    """Score a pool, pick, train on the picked.

    Args:
        sampler: a `PoolSampler`.
        presamples: as for `pool_signals`.
        Others: as for `OpenSteps`.
    """

    def __init__(
        self,
        model: keras.Model,
        keras_function: Callable,
        sampler: PoolSampler,
        state: TrainerState,
        scoring: Scoring,
        presamples: tuple[float, ...] = (),
    ):
        super().__init__(model, keras_function, sampler, sampler.batch_size, state, scoring)
        self.presamples = presamples
        self._steps: dict[bool, Callable] = {}
        self._pools: Any = None

    def check(self, batch: tuple) -> None:
        """Check once, on a batch, that samples can be weighted and that the model accepts the sizes in use.

        A model that accepts one batch size only has its pools scored in batches of that size.
        """
        if not self._checked:
            pool, trained = self.sampler.pool_size, self.sampler.batch_size
            usual = flat(batch[0])[0][0].shape[0]
            if not eligibility.accepts(self.model, batch, min(self.scoring.slice_size or pool, pool)):
                if pool % usual:
                    raise Unsupported(
                        f"it accepts {usual} rows only, and a pool of {pool} candidates can't be scored in batches of "
                        "that size. Leave the batch size open in the layers of the model, or choose a whole `presample`"
                    )
                self.scorer.slice_size = usual
            if not eligibility.accepts(self.model, batch, trained):
                raise Unsupported(
                    f"it accepts {usual} rows only, and steps of {trained} rows can't be taken. Leave the batch size "
                    "open in the layers of the model"
                )
        super().check(batch)

    def ready(self, n: int, draw: Callable, give_back: Callable) -> int:
        """Have n pools ready, or as many as the data give."""
        if self._pools is None:
            self.prepare()
            self._pools = self.prepared.source.pools(
                self.sampler.pool_size, self.state.seed, self.state.counters["pools"], draw, give_back
            )
        return self._pools.fill(n)

    def follow(self, other: PoolSteps) -> None:
        """Go on where steps of another size have read to."""
        if other._pools is not None:
            self.prepare()
            self._pools, other._pools = other._pools.resized(self.sampler.pool_size), None

    def take(self, iterator: Any, n: int, listeners: Listeners) -> dict:
        """Take n open steps."""
        logs, drawn = self._compiled(listeners.needs_draws)(self._pools.iterator, n)
        self.state.counters["pools"] += n
        self.spend(scored=n * self.sampler.pool_size)
        if drawn:
            for indices, weights, scores, pool_scores in zip(*map(np.asarray, drawn), strict=True):
                listeners.notify_scores(self.sampler, pool_scores)
                listeners.notify_sample(self.sampler, indices, weights, scores)
        return logs

    def offer(self, signals: Signals) -> tuple[Signals, Terms]:
        """What these steps promise a gate, and on which terms."""
        return signals, self.cost.terms(self.scorer.passes * self.sampler.presample)

    def signals(self, scores: Any) -> Signals:
        """What the scores say of drawing from pools."""
        return pool_signals(scores, self.sampler, self.presamples)

    def release(self) -> None:
        """Stop reading ahead: a reader that goes on while Python shuts down would hang it."""
        if self._pools is not None:
            self._pools.close()
            self._pools = None

    def _compiled(self, listening: bool) -> Callable:
        """`steps(pools, n) -> (logs, drawn)`."""
        if listening not in self._steps:
            step = ImportanceStep(
                self.model, self.scorer, self.points, self.sampler, self.state, listening, self.presamples
            )
            pack = self.prepared.source.pack
            self._steps[listening] = backend.run_steps(
                lambda indices, *columns: step(indices, pack(columns)), self.model
            )
        return self._steps[listening]
