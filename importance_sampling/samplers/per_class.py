"""Draw by what is known of a sample's class: a running mean and variance of its score.

Source: the sampler of that name of earlier versions of the method's library. No sample is scored to be drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.datasets.base import is_real
from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.base import measurements
from importance_sampling.samplers.labels import Labels
from importance_sampling.samplers.model import check_positive
from importance_sampling.samplers.uniform import ShufflingSampler


class PerClassGaussian(ShufflingSampler):
    """Draw from a uniform pool with scores mean + std of the sample's class.

    Mean and mean square of a class's scores are moving averages over the batches in which it comes, which start at the
    first one; std^2 is the mean square less the square of the mean. Classes not seen yet score what the seen ones do on
    average. The uniform share is a tenth.

    Unbiased with an unbiased policy. It costs 12 bytes a sample, and reads each sample once for its label. It loses
    where scores differ within classes and not between them, as they mostly do.

    Args:
        dataset: has `train_data` with classes as targets.
        reweighting: a `ReweightingPolicy`.
        alpha: float in [0, 1), default 0.9; what the averages keep of themselves (not the uniform share).
        presample: int >= 1, default 2048; the pool's size, at most all rows.
        options: as `BaseSampler`.

    Raises:
        ValueError: an argument is out of its range, or targets aren't classes.

    Example:
        >>> sampler = PerClassGaussian(dset, UNBIASED)
        >>> indices, (x, y), weights = sampler.sample(128)
        >>> sampler.update(indices, scores)  # what training on them measured
    """

    needs_scores = True
    _saved = (*ShufflingSampler._saved, "_moments")

    def __init__(
        self,
        dataset: Any,
        reweighting: ReweightingPolicy,
        alpha: float = 0.9,
        presample: int = 2048,
        **options: Any,
    ):
        super().__init__(dataset, reweighting, **options)
        if not is_real(alpha) or not 0 <= alpha < 1:
            raise ValueError(f"`alpha` must be a number in [0, 1). Received: alpha={alpha!r}")
        check_positive(presample=presample)
        self.momentum, self.presample = float(alpha), int(presample)
        self.labels = Labels(dataset)
        self._moments = np.full((2, self.labels.count), np.nan)  # mean and mean square by class, NaN until seen

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Take the batch into the averages of its classes."""
        indices, scores = measurements(indices, scores)
        classes = self.labels.of(indices)
        counts = np.bincount(classes, minlength=self.labels.count)
        seen = counts > 0
        for average, values in zip(self._moments, (scores, scores**2), strict=True):
            batch = np.bincount(classes, values, minlength=self.labels.count)[seen] / counts[seen]
            kept = np.where(np.isnan(average[seen]), 0.0, self.momentum)
            average[seen] = kept * np.nan_to_num(average[seen]) + (1.0 - kept) * batch

    def class_scores(self) -> np.ndarray:
        """mean + std by class, float64 `(classes,)`; ones until a class was seen."""
        mean, square = self._moments
        scores = mean + np.sqrt(np.maximum(square - mean**2, 0.0))
        seen = np.isfinite(scores)
        return np.where(seen, scores, scores[seen].mean() if seen.any() else 1.0)

    def _candidates(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        indices = self._next(min(self.presample, self.size))
        return indices, self.class_scores()[self.labels.of(indices)]
