"""Draw by the class of a sample: by a moving mean and variance of the scores of each class.

Source: the sampler of the same name in earlier versions of the method's library.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.checks import usable_measurements
from importance_sampling.samplers.labels import Labels
from importance_sampling.samplers.uniform import ShufflingSampler
from importance_sampling.utils.validation import check_fraction, check_positive


class PerClassGaussian(ShufflingSampler):
    """Draw from a uniform pool. The score of a sample is the mean plus the standard deviation of its class's scores.

    The mean and the mean square of a class's scores are moving averages over the batches that contain the class, and
    start at the first such batch; std^2 is the mean square minus the squared mean. Classes without a score get the mean
    over the other classes. The uniform share is 0.1.

    Unbiased with an unbiased policy. Cost: 12 bytes per sample; each sample is read once for its label. Not suited to
    data whose scores differ within classes and not between them, which is the usual case.

    Args:
        dataset: has `train_data` with classes as targets.
        reweighting: a `ReweightingPolicy`.
        alpha: float in [0, 1), default 0.9, the momentum of the moving averages (not the uniform share).
        presample: int >= 1, default 2048, the size of the pool in samples; at most all rows are used.
        options: as for `BaseSampler`, without alpha.

    Raises:
        ValueError: an argument is out of its range, or targets are not classes.

    Example:
        >>> sampler = PerClassGaussian(dset, UNBIASED)
        >>> indices, (x, y), weights = sampler.sample(128)
        >>> sampler.update(indices, scores)  # the scores that the training step measured
    """

    needs_scores = True
    _saved = (*ShufflingSampler._saved, "_score_moments")
    _saved_keys = {**ShufflingSampler._saved_keys, "_score_moments": "_moments"}

    def __init__(
        self,
        dataset: Any,
        reweighting: ReweightingPolicy,
        alpha: float = 0.9,
        presample: int = 2048,
        **options: Any,
    ):
        super().__init__(dataset, reweighting, **options)
        check_fraction(alpha=alpha)
        check_positive(presample=presample)
        self.momentum, self.presample = float(alpha), int(presample)
        self.labels = Labels(dataset)
        # Mean and mean square by class; NaN: no score.
        self._score_moments = np.full((2, self.labels.num_classes), np.nan)

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Update the moving averages of the classes in the batch."""
        indices, scores = usable_measurements(indices, scores)
        classes = self.labels.classes(indices)
        counts = np.bincount(classes, minlength=self.labels.num_classes)
        seen = counts > 0
        for average, values in zip(self._score_moments, (scores, scores**2), strict=True):
            batch = np.bincount(classes, values, minlength=self.labels.num_classes)[seen] / counts[seen]
            momentum = np.where(np.isnan(average[seen]), 0.0, self.momentum)
            average[seen] = momentum * np.nan_to_num(average[seen]) + (1.0 - momentum) * batch

    def class_scores(self) -> np.ndarray:
        """Return mean + std of each class.

        Returns:
            float64 `(classes,)`; ones if no score is known.
        """
        mean, square = self._score_moments
        scores = mean + np.sqrt(np.maximum(square - mean**2, 0.0))
        seen = np.isfinite(scores)
        return np.where(seen, scores, scores[seen].mean() if seen.any() else 1.0)

    def _candidates(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        indices = self._next_indices(min(self.presample, self.size))
        return indices, self.class_scores()[self.labels.classes(indices)]
