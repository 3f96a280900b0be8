"""Score a uniform pool with a model and draw the batch from it.

`ImportanceTraining` does the same in one compiled step. The samplers here are for training loops of your own.

Source: [KF18] Katharopoulos & Fleuret, Not All Samples Are Created Equal, 2018 (arXiv 1803.00942), Algorithm 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.table import score_rows
from importance_sampling.samplers.uniform import ShufflingSampler
from importance_sampling.utils.validation import check_positive, check_scoring_model


class ScoringSampler(ShufflingSampler):
    """A sampler that scores uniform candidates with a model.

    Args:
        dataset, reweighting and options: as for `BaseSampler`.
        model: has `score(x, y, batch_size=128)` -> float `(n,)`, >= 0.
        forward_batch_size: int >= 1, default 128, the number of rows per forward pass.
    """

    needs_model = True

    def __init__(
        self,
        dataset: Any,
        reweighting: ReweightingPolicy,
        model: Any,
        forward_batch_size: int = 128,
        **options: Any,
    ):
        super().__init__(dataset, reweighting, **options)
        check_scoring_model(model)
        check_positive(forward_batch_size=forward_batch_size)
        self.model = model
        self.forward_batch_size = int(forward_batch_size)

    def _score_candidates(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the next n row indices, at most all rows, and their scores."""
        indices = self._next_indices(min(n, self.size))
        return indices, score_rows(self.model, self.dataset, indices, self.forward_batch_size)


class ModelSampler(ScoringSampler):
    """Score a uniform pool of `large_batch` samples and draw from it with P_i = (1 - alpha) s_i / sum(s) + alpha / B.

    Unbiased with an unbiased policy. Cost: a forward pass over `large_batch` samples per batch. Not suited to the start
    of training, when scores are nearly equal.

    Args:
        dataset: has `train_data`.
        reweighting: a `ReweightingPolicy`.
        model: has `score(x, y, batch_size=128)` -> float `(n,)`, >= 0.
        large_batch: int >= 1, default 1024, the size of the pool in samples; at most all rows are used.
        forward_batch_size: int >= 1, default 128, the number of rows per forward pass.
        options: as for `BaseSampler`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> sampler = ModelSampler(dset, UNBIASED, OracleWrapper(model, UNBIASED, score="gnorm"), large_batch=384)
        >>> indices, (x, y), weights = sampler.sample(128)

    Source: [KF18], Algorithm 1, where alpha is 0 and draws are multinomial.
    """

    def __init__(
        self,
        dataset: Any,
        reweighting: ReweightingPolicy,
        model: Any,
        large_batch: int = 1024,
        forward_batch_size: int = 128,
        **options: Any,
    ):
        super().__init__(dataset, reweighting, model, forward_batch_size, **options)
        check_positive(large_batch=large_batch)
        self.large_batch = int(large_batch)

    def _candidates(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        return self._score_candidates(self.large_batch)
