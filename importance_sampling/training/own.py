"""The trainer of whatever sampler the user brings, and of the library's that have no trainer of their own.

A sampler is a `BaseSampler`: fill in `_candidates`, which says how important every candidate is, and `update`, which is
told what a training step measured. Draws, weights, state and figures are the library's. Nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from importance_sampling.samplers import BaseSampler
from importance_sampling.training.tables import TableTrainer


class SamplerTraining(TableTrainer):
    """Train by a sampler of one's own: every batch is what it draws, every measured score goes to its `update`.

    Bias, and where it loses, are the sampler's. A step costs what a plain one does, and what the sampler does beside.
    There is no gate unless `tau_th` is given.

    Args:
        model: a compiled `keras.Model`; it stays the user's own.
        sampler: called as `sampler(dataset, model, seed)` when the first step is taken and for further data, returns a
            `BaseSampler` whose policy needs no measured scores. `dataset.train_data[idxs]` is `(x, y)` of the rows that
            `fit` was given, and `model.score(x, y, batch_size=128)` their scores by the model: what the library's
            samplers are constructed with.
        score, layer, forward_batch_size, seed: as for `ImportanceTraining`; the score is what is measured.
        tau_th: float or None (default): no gate.

    Raises:
        ValueError: an argument is out of its range; in `fit`, data without rows by index, or what `sampler` returns is
            no such sampler.

    Example:
        >>> class Alternating(BaseSampler):  # one half of the rows after the other
        ...     def _candidates(self, batch_size):
        ...         self.turn = 1 - getattr(self, "turn", 0)
        ...         indices = self._rng.permutation(self.size)
        ...         return indices, (indices % 2 == self.turn).astype(float)
        >>> trainer = SamplerTraining(model, lambda dataset, model, seed: Alternating(dataset, UNBIASED, seed=seed))
        >>> trainer.fit(x_train, y_train, batch_size=128, epochs=10)
        >>> SamplerTraining(model, lambda dataset, model, seed: CacheSampler(dataset, UNBIASED, seed=seed))
    """

    def __init__(
        self,
        model: keras.Model,
        sampler: Callable[[Any, Any, int], BaseSampler],
        score: str | Callable = "gnorm",
        layer: keras.Layer | str | int | None = None,
        *,
        forward_batch_size: int | None = None,
        tau_th: float | None = None,
        seed: int | None = None,
    ):
        if not callable(sampler):
            raise ValueError(
                "`sampler` must be a function `sampler(dataset, model, seed)` that returns a sampler: it is made anew "
                f"for every data set. Received: sampler={sampler!r} (of type {type(sampler)})"
            )
        super().__init__(
            model, score=score, layer=layer, tau_th=tau_th, seed=seed, forward_batch_size=forward_batch_size
        )
        self.make_sampler = sampler

    def _sampler(self, rows: Any, seed: int) -> BaseSampler:
        sampler = self.make_sampler(rows, rows, seed)
        if not isinstance(sampler, BaseSampler):
            raise ValueError(
                f"`sampler(dataset, model, seed)` must return a `samplers.BaseSampler`. Received: {sampler!r}"
            )
        if sampler.reweighting.weight_size != 1:
            raise ValueError(
                "`sampler` must have a policy that weighs by what is known when a batch is drawn. One that waits for "
                "measured scores is for loops of your own, with an `OracleWrapper`. "
                f"Received: a sampler with reweighting={sampler.reweighting!r}"
            )
        return sampler
