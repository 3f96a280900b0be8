"""Draw from the whole training set by the last score of each sample.

Source: the sampler of the same name in earlier versions of the method's library, after the "history" baseline of [KF18]
(arXiv 1803.00942), section 4.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.table import RescoringSampler, ScoreTable


class TableSampler(RescoringSampler):
    """A sampler that draws by a table of last scores.

    Args:
        dataset, reweighting, model, recompute and options: as for `RescoringSampler`.
    """

    _parts = ("table",)

    def __init__(self, dataset: Any, reweighting: ReweightingPolicy, model: Any, recompute: int, **options: Any):
        super().__init__(dataset, reweighting, model, recompute, **options)
        self.table = ScoreTable(self.size)

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Record measured scores in the table."""
        self.table.record(indices, scores)


class HistorySampler(TableSampler):
    """Draw from all N samples with P_i = (1 - alpha) s_i / sum(s) + alpha / N, where s_i is the last score of sample i.

    Samples without a score get the mean of the known scores. A score is known after a training step on the sample, and
    every `recompute` epochs, when the model scores all samples. An epoch is N samples drawn. (Rescoring every
    `recompute` gradient steps would cost many times as much as the steps themselves.)

    Unbiased with an unbiased policy, also if scores are out of date. Cost: 25 bytes per sample, less than a millisecond
    per batch at N = 60000, and 1 / `recompute` of a forward pass over the data per epoch. Not suited to training in
    which scores change a lot within that time: high learning rates, or datasets so large that a sample is used once or
    twice.

    Args:
        dataset: has `train_data`.
        reweighting: a `ReweightingPolicy`.
        model: has `score(x, y, batch_size=128)` -> float `(n,)`, >= 0; can be None if `recompute` is 0.
        recompute: int >= 0, default 2, in epochs; 0: never.
        options: as for `BaseSampler`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> sampler = HistorySampler(dset, UNBIASED, OracleWrapper(model, UNBIASED))
        >>> indices, (x, y), weights = sampler.sample(128)
        >>> sampler.update(indices, scores)  # the scores that the training step measured
    """

    _saved = ("_samples_drawn",)
    _saved_keys = {"_samples_drawn": "_drawn"}

    def __init__(
        self, dataset: Any, reweighting: ReweightingPolicy, model: Any = None, recompute: int = 2, **options: Any
    ):
        super().__init__(dataset, reweighting, model, recompute, **options)
        self._samples_drawn = 0  # since the model last scored all samples

    def _candidates(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        if self.recompute and self._samples_drawn >= self.recompute * self.size:
            self._score_all(self.table.record)
            self._samples_drawn = 0
        self._samples_drawn += batch_size
        return self.table.order, self.table.imputed_scores()
