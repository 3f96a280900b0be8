"""Draw from the whole training set by the rank of the last seen loss.

Source: [LH16] Loshchilov & Hutter, Online Batch Selection (arXiv 1511.06343), equations 3 to 7 and Algorithm 1. Their
batches are unweighted; here the policy decides. Losses between two looks at a sample aren't guessed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.datasets.base import is_real
from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.history import TableSampler
from importance_sampling.samplers.model import check_positive


def check_pressure(s_e: tuple[float, float]) -> None:
    """Raise unless it is two numbers of at least 1."""
    if np.shape(s_e) != (2,) or not all(is_real(s) and 1 <= s < float("inf") for s in s_e):
        raise ValueError(f"`s_e` must be two numbers of at least 1. Received: s_e={s_e!r}")


def pressure(epoch: int, s_e: tuple[float, float], n_epochs: int) -> float:
    """s in an epoch: from s_e[0] in the first to s_e[1] after `n_epochs`, exponentially, and then there.

    Args:
        epoch: int >= 0.
        s_e: two floats >= 1, by how much the first rank is likelier than the last.
        n_epochs: int >= 1.

    Example:
        >>> [pressure(epoch, (100.0, 1.0), 2) for epoch in range(4)]
        [100.0, 10.0, 1.0, 1.0]
    """
    return float(s_e[0] * (s_e[1] / s_e[0]) ** (min(epoch, n_epochs) / n_epochs))


def rank_probabilities(size: int, s: float) -> np.ndarray:
    """p(r) proportional to exp(-r log(s) / N), r = 0, ..., N - 1; float64 `(size,)`, summing to 1."""
    p = np.exp(-np.arange(size) * (np.log(s) / size))
    return p / p.sum()


class OnlineBatchSelectionSampler(TableSampler):
    """Draw rank r, by last seen loss from the highest on, with p(r) proportional to exp(-r log(s) / N).

    s goes from s_e[0] to s_e[1] over `n_epochs`. Ranks are sorted anew each epoch of `steps_per_epoch` batches; every
    `recompute` epochs all losses are computed anew first. Samples not seen yet rank above all others, in random order.
    Equal losses rank in a fixed random order.

    The probabilities are the formula's own, with no uniform share: an unbiased weight is at most (s - 1) / log(s).
    Unbiased with an unbiased policy; as published, with `UNWEIGHTED`, biased towards high losses. It costs a sort an
    epoch and a forward pass over the data every `recompute` epochs. At the default s_e = (1, 1) it is uniform sampling
    with replacement, at that price. With a high s it loses where high losses are wrong labels, and weighted ones have
    less to gain than by score: a rank knows nothing of by how much.

    Args:
        dataset: has `train_data`.
        reweighting: a `ReweightingPolicy`.
        model: has `score(x, y, batch_size=128)` -> float `(n,)`; may be None if `recompute` is 0.
        steps_per_epoch: int, default 300; in batches.
        recompute: int >= 0, default 2; in epochs. 0: never.
        s_e: two floats >= 1, default (1, 1); the selection pressure in the first and last epoch.
        n_epochs: int >= 1, default 1; over how many s goes from the one to the other.
        options: as `BaseSampler`; alpha has no effect.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> sampler = OnlineBatchSelectionSampler(dset, UNWEIGHTED, model, s_e=(100, 1), n_epochs=50)
    """

    _saved = ("_steps", "_order", "_p")

    def __init__(
        self,
        dataset: Any,
        reweighting: ReweightingPolicy,
        model: Any = None,
        steps_per_epoch: int = 300,
        recompute: int = 2,
        s_e: tuple[float, float] = (1, 1),
        n_epochs: int = 1,
        **options: Any,
    ):
        super().__init__(dataset, reweighting, model, recompute, **options)
        check_positive(steps_per_epoch=steps_per_epoch, n_epochs=n_epochs)
        check_pressure(s_e)
        self.steps_per_epoch = int(steps_per_epoch)
        self.s_e = (float(s_e[0]), float(s_e[1]))
        self.n_epochs = int(n_epochs)
        self._steps = 0
        self._order = self.table.order
        self._p = rank_probabilities(self.size, self.s_e[0])

    def _candidates(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        epoch, step = divmod(self._steps, self.steps_per_epoch)
        if step == 0:
            self._begin(epoch)
        self._steps += 1
        return self._order, self._p

    def _probabilities(self, scores: np.ndarray) -> np.ndarray:
        return scores / scores.sum()

    def _begin(self, epoch: int) -> None:
        if self.recompute and epoch and epoch % self.recompute == 0:
            self._rescore(self.table.put)
        losses = np.where(self.table.seen, self.table.scores, np.inf)
        self._order = self.table.order[np.argsort(-losses, kind="stable")]
        self._p = rank_probabilities(self.size, pressure(epoch, self.s_e, self.n_epochs))
