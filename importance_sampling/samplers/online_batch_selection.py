"""Draw from the whole training set by the rank of each sample's last loss.

Source: [LH16] Loshchilov & Hutter, Online Batch Selection for Faster Training of Neural Networks, 2016 (arXiv
1511.06343), equations 3 to 7 and Algorithm 1. The paper doesn't weigh the batch; here the policy decides.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.history import TableSampler
from importance_sampling.utils.validation import as_array, check_positive, is_real


def check_pressure(s_e: tuple[float, float]) -> None:
    """Check that the selection pressures are two finite numbers >= 1."""
    if as_array(s_e).shape != (2,) or not all(is_real(s) and 1 <= s < float("inf") for s in s_e):
        raise ValueError(f"`s_e` must be two numbers of at least 1. Received: s_e={s_e!r}")


def pressure(epoch: int, s_e: tuple[float, float], n_epochs: int) -> float:
    """Compute the selection pressure s of an epoch. It goes exponentially from s_e[0] to s_e[1] in `n_epochs` epochs.

    Args:
        epoch: int >= 0.
        s_e: two floats >= 1, the ratio between the probabilities of the first and the last rank.
        n_epochs: int >= 1. Afterwards the pressure is s_e[1].

    Returns:
        float.

    Example:
        >>> [pressure(epoch, (100.0, 1.0), 2) for epoch in range(4)]
        [100.0, 10.0, 1.0, 1.0]

    Source: [LH16], equation 7.
    """
    return float(s_e[0] * (s_e[1] / s_e[0]) ** (min(epoch, n_epochs) / n_epochs))


def rank_probabilities(size: int, s: float) -> np.ndarray:
    """Compute p(r), proportional to exp(-r log(s) / N), for the ranks r = 0, ..., N - 1.

    Args:
        size: int, N.
        s: float >= 1, the selection pressure.

    Returns:
        float64 `(size,)`, with a sum of 1.
    """
    p = np.exp(-np.arange(size) * (np.log(s) / size))
    return p / p.sum()


class OnlineBatchSelectionSampler(TableSampler):
    """Draw the sample of rank r with p(r) proportional to exp(-r log(s) / N). Rank 0 has the highest last loss.

    The selection pressure s goes from s_e[0] to s_e[1] in `n_epochs` epochs. An epoch is `steps_per_epoch` batches.
    Ranks are computed at the start of each epoch. Every `recompute` epochs the model computes all losses first. Samples
    without a loss have the lowest rank numbers, in random order; equal losses are in a fixed random order.

    The probabilities are those of the paper, without a uniform share: an unbiased weight is at most (s - 1) / log(s).
    Unbiased with an unbiased policy; as published, with `UNWEIGHTED`, biased towards high losses. Cost: a sort per
    epoch, and a forward pass over the data every `recompute` epochs, also at the default s_e = (1, 1), which is uniform
    sampling with replacement. Not suited to wrong labels with a high s. With weights the variance gain is smaller than
    that of sampling by scores, since a rank doesn't depend on the size of the difference between two losses.

    Args:
        dataset: has `train_data`.
        reweighting: a `ReweightingPolicy`.
        model: has `score(x, y, batch_size=128)` -> float `(n,)`; can be None if `recompute` is 0.
        steps_per_epoch: int >= 1, default 300, in batches.
        recompute: int >= 0, default 2, in epochs; 0: never.
        s_e: two floats >= 1, default (1, 1), the selection pressure in the first epoch and after `n_epochs`.
        n_epochs: int >= 1, default 1, the number of epochs from s_e[0] to s_e[1].
        options: as for `BaseSampler`; alpha has no effect.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> wrapper = OracleWrapper(model, UNWEIGHTED)
        >>> sampler = OnlineBatchSelectionSampler(dset, UNWEIGHTED, wrapper, s_e=(100, 1), n_epochs=50)

    Source: [LH16], equations 3 to 7 and Algorithm 1.
    """

    _saved = ("_steps", "_order", "_draw_probabilities")
    _saved_keys = {"_draw_probabilities": "_p"}

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
        self._order = self.table.order  # row indices by rank
        self._draw_probabilities = rank_probabilities(self.size, self.s_e[0])  # by rank

    def _candidates(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        epoch, step = divmod(self._steps, self.steps_per_epoch)
        if step == 0:
            self._rank(epoch)
        self._steps += 1
        return self._order, self._draw_probabilities

    def _probabilities(self, scores: np.ndarray) -> np.ndarray:
        return scores / scores.sum()

    def _rank(self, epoch: int) -> None:
        """Compute the ranks and their probabilities for an epoch."""
        if self.recompute and epoch and epoch % self.recompute == 0:
            self._score_all(self.table.record)
        losses = np.where(self.table.seen, self.table.scores, np.inf)
        self._order = self.table.order[np.argsort(-losses, kind="stable")]
        self._draw_probabilities = rank_probabilities(self.size, pressure(epoch, self.s_e, self.n_epochs))
