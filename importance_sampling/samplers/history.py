"""Draw from the whole training set by each sample's last seen score.

Source: the sampler of that name of earlier versions of the method's library; the idea is that of "history" baselines in
[KF18] (arXiv 1803.00942), section 4. No sample is scored to be drawn; how fast the scores grow stale isn't looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.table import RescoringSampler, ScoreTable


class TableSampler(RescoringSampler):
    """A sampler over a table of last seen scores, which a model fills anew now and then.

    Args:
        As for `RescoringSampler`.
    """

    _parts = ("table",)

    def __init__(self, dataset: Any, reweighting: ReweightingPolicy, model: Any, recompute: int, **options: Any):
        super().__init__(dataset, reweighting, model, recompute, **options)
        self.table = ScoreTable(self.size)

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Remember the scores."""
        self.table.put(indices, scores)


class HistorySampler(TableSampler):
    """Draw from all N samples with P_i = (1 - alpha) s_i / sum(s) + alpha / N, s_i the last seen score.

    Unseen samples get the mean of the seen. Scores are seen when a sample is trained on, and every `recompute` epochs
    all are scored anew; an epoch is N samples drawn. (Every `recompute` gradient steps would cost many times what the
    steps themselves do.)

    Unbiased with an unbiased policy, however stale the scores. It costs 25 bytes a sample, well below a millisecond a
    batch at N = 60000, and 1 / `recompute` of a forward pass over the data an epoch. It loses where scores go stale
    within that time: at a high learning rate, or on data sets so large that a sample is seen once or twice.

    Args:
        dataset: has `train_data`.
        reweighting: a `ReweightingPolicy`.
        model: has `score(x, y, batch_size=128)` -> float `(n,)`, >= 0; may be None if `recompute` is 0.
        recompute: int >= 0, default 2; in epochs. 0: never.
        options: as `BaseSampler`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> sampler = HistorySampler(dset, UNBIASED, OracleWrapper(model, UNBIASED))
        >>> indices, (x, y), weights = sampler.sample(128)
        >>> sampler.update(indices, scores)  # what training on them measured
    """

    _saved = ("_drawn",)

    def __init__(
        self, dataset: Any, reweighting: ReweightingPolicy, model: Any = None, recompute: int = 2, **options: Any
    ):
        super().__init__(dataset, reweighting, model, recompute, **options)
        self._drawn = 0  # since all were scored

    def _candidates(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        if self.recompute and self._drawn >= self.recompute * self.size:
            self._rescore(self.table.put)
            self._drawn = 0
        self._drawn += batch_size
        return self.table.order, self.table.filled()
