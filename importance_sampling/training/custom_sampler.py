"""`SamplerTraining`: training with the user's own sampler, or with a sampler of the library that has no trainer.

A sampler subclasses `BaseSampler` and implements `_candidates`, which returns the scores of the candidates, and
`update`, which receives the scores that a training step measured. The trainer handles everything else: the data, the
weights, the state and the reported figures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from importance_sampling.samplers import BaseSampler
from importance_sampling.samplers.checks import check_saved
from importance_sampling.training.indexed import IndexedTrainer


class SamplerTraining(IndexedTrainer):
    """Train with your own sampler: it draws every batch, and its `update` receives the measured scores.

    The bias, and the cases in which training loses, depend on the sampler. A step costs as much as a uniform step plus
    the cost of the sampler. There is no gate unless `tau_th` is set.

    Args:
        model: a compiled `keras.Model`; `fit` trains this object.
        sampler: function `sampler(dataset, model, seed)` that returns a `BaseSampler` whose policy needs no measured
            scores. It is called before the first importance step on each data set. `dataset.train_data[idxs]` returns
            `(x, y)` for rows of the data passed to `fit`, and `model.score(x, y, batch_size=128)` returns the model's
            scores for them; the library's samplers are constructed from these two.
        score, layer, forward_batch_size, seed: as for `ImportanceTraining`; `score` is the score that is measured.
        tau_th: float or None, default None; the gate's threshold on tau. None: no gate.

    Raises:
        ValueError: an argument is out of its range; in `fit`, the data have no row indices, or `sampler` doesn't return
            a `BaseSampler` with such a policy.

    Example:
        >>> class Alternating(BaseSampler):  # one half of the rows, then the other half
        ...     def _candidates(self, batch_size):
        ...         self.half = 1 - getattr(self, "half", 0)
        ...         indices = self._rng.permutation(self.size)
        ...         return indices, (indices % 2 == self.half).astype(float)
        >>> trainer = SamplerTraining(model, lambda dataset, model, seed: Alternating(dataset, UNBIASED, seed=seed))
        >>> trainer.fit(x_train, y_train, batch_size=128, epochs=10)
        >>> trainer = SamplerTraining(model, lambda dataset, model, seed: CacheSampler(dataset, UNBIASED, seed=seed))
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
                "`sampler` must be a function `sampler(dataset, model, seed)` that returns a new sampler for each data "
                f"set. Received: sampler={sampler!r} (of type {type(sampler)})"
            )
        super().__init__(
            model, score=score, layer=layer, tau_th=tau_th, seed=seed, forward_batch_size=forward_batch_size
        )
        self.make_sampler = sampler

    def _make_sampler(self, rows: Any) -> BaseSampler:
        sampler = self.make_sampler(rows, rows, self._state.seed)
        if not isinstance(sampler, BaseSampler):
            raise ValueError(
                f"`sampler(dataset, model, seed)` must return a `samplers.BaseSampler`. Received: {sampler!r}"
            )
        if sampler.reweighting.weight_size != 1:
            raise ValueError(
                "The reweighting policy of `sampler` must not need measured scores. Use another policy, or use this "
                "one in your own training loop with an `OracleWrapper`. "
                f"Received: a sampler with reweighting={sampler.reweighting!r}"
            )
        check_saved(sampler)  # now, and not only when a checkpoint is written
        return sampler
