"""Skip well-learned samples: leave them out of an epoch at random, and weigh the samples that remain.

Functions map losses and random numbers to inclusion probabilities and rows; `SkippingSampler` holds the state.

Source: [Q24] Qin et al., InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning, ICLR 2024
(arXiv 2303.04947), for the threshold at the mean loss. The smooth rule and the epochs of whole batches are this
library's own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.base import Drawn, Smoothing, joined
from importance_sampling.samplers.checks import usable_measurements
from importance_sampling.samplers.epochs import EpochSampler
from importance_sampling.samplers.resampling import SystematicResampling
from importance_sampling.utils.validation import check_flag, check_fraction

DEFAULT_SKIP, DEFAULT_SMOOTH_SKIP = 0.5, 2.0 / 3.0
RESAMPLING = SystematicResampling()


def checked_skip_probability(skip_probability: float | None, smooth: bool) -> float:
    """Return the probability, or its default for None.

    Raises:
        ValueError: it isn't in [0, 1).
    """
    if skip_probability is None:
        return DEFAULT_SMOOTH_SKIP if smooth else DEFAULT_SKIP
    check_fraction(skip_probability=skip_probability)
    return float(skip_probability)


def threshold_inclusion(losses: np.ndarray, skip_probability: float) -> np.ndarray:
    """Return inclusion probabilities of 1 - q for losses below their mean, and of 1 for all others.

    Args:
        losses: float `(n,)`, the last losses; NaN for samples without one, which are included.
        skip_probability: float in [0, 1), q.

    Returns:
        float64 `(n,)`.

    Example:
        >>> threshold_inclusion(np.array([1.0, 2.0, 6.0, 3.0, np.nan]), 0.25)  # the mean is 3
        array([0.75, 0.75, 1.  , 1.  , 1.  ])
    """
    return np.where(losses < mean_of_known(losses), 1.0 - skip_probability, 1.0)


def smooth_inclusion(losses: np.ndarray, skip_probability: float) -> np.ndarray:
    """Return inclusion probabilities of loss / mean loss, at least 1 - q and at most 1.

    Args:
        losses: float `(n,)`, >= 0, the last losses; NaN for samples without one, which are included.
        skip_probability: float in [0, 1), q.

    Returns:
        float64 `(n,)`.

    Example:
        >>> smooth_inclusion(np.array([1.0, 2.25, 6.0, 2.75, np.nan]), 0.5)  # the mean is 3
        array([0.5       , 0.75      , 1.        , 0.91666667, 1.        ])
    """
    mean = mean_of_known(losses)
    relative = losses / mean if mean > 0 else np.ones(len(losses))
    return np.where(np.isnan(relative), 1.0, np.clip(relative, 1.0 - skip_probability, 1.0))


def mean_of_known(losses: np.ndarray) -> float:
    """Return the mean of the losses that aren't NaN, which is exact for equal losses; NaN if there are none."""
    known = losses[~np.isnan(losses)].astype("float64")
    if not known.size:
        return math.nan
    # Rounding can move the mean of equal numbers above them, and all samples would be below it.
    return float(np.clip(known.mean(), known.min(), known.max()))


def with_whole_batches(inclusion: np.ndarray, batch_size: int) -> np.ndarray:
    """Raise inclusion probabilities so that the expected number of samples makes whole batches.

    The distances to 1 are multiplied by a common factor of at most 1.

    Args:
        inclusion: float `(n,)`, in (0, 1].
        batch_size: int >= 1.

    Returns:
        float64 `(n,)`, with a sum that is a multiple of `batch_size`; ones if that is more than n.

    Example:
        >>> with_whole_batches(np.array([0.5, 0.5, 0.5, 1.0, 1.0]), 2)  # from 3.5 to 4 samples
        array([0.66666667, 0.66666667, 0.66666667, 1.        , 1.        ])
    """
    size, expected = len(inclusion), float(inclusion.sum())
    rows = math.ceil(expected / batch_size - 1e-9) * batch_size
    if rows >= size:
        return np.ones(size)
    return 1.0 - (1.0 - inclusion) * (size - rows) / (size - expected)


def included_rows(inclusion: np.ndarray, order: np.ndarray, uniform: float) -> np.ndarray:
    """Draw rows without duplicates, each with its inclusion probability.

    Args:
        inclusion: float `(n,)`, in (0, 1], with a sum that is a whole number.
        order: int `(n,)`, a random permutation of the rows.
        uniform: float, a random number in [0, 1).

    Returns:
        int64 `(sum(inclusion),)`, row indices.

    Example:
        >>> included_rows(np.array([0.5, 1.0, 0.5, 0.5, 0.5]), np.array([4, 2, 1, 3, 0]), 0.25)
        array([1, 4, 3])
    """
    is_certain = inclusion[order] >= 1.0
    certain, others = order[is_certain], order[~is_certain]
    expected = inclusion[others].sum()
    number = round(float(expected))
    if not number:
        return certain.astype("int64")
    drawn = others[RESAMPLING.positions(inclusion[others] / expected, np.array([uniform]), number)]
    return np.concatenate([certain, drawn]).astype("int64")


class SkippingSampler(EpochSampler):
    """Draw shuffled epochs from which samples with low losses are left out at random. No sample occurs twice.

    By default a sample is left out with the probability `skip_probability` if its last loss is below the mean of all
    last losses. `smooth=True`: it is included with the probability loss / mean loss, but at least
    1 - `skip_probability`. Samples without a loss are always included, so the first epoch has all samples. The
    probabilities are raised slightly so that an epoch consists of whole batches.

    With K of N samples in the epoch and the inclusion probability p_i, unbiased weights are K / (N p_i): the weighted
    mean of a batch is an unbiased estimate of the mean over the data. Cost: 12 bytes per sample and a few NumPy
    operations on N numbers per epoch; a step costs as much as a uniform step. Samples with wrong labels have high
    losses and are not left out.

    Args:
        dataset: has `train_data`.
        reweighting: a `ReweightingPolicy`.
        skip_probability: float in [0, 1), or None (default): 0.5, and 2/3 with `smooth=True`.
        smooth: bool, default False.
        seed: as for `BaseSampler`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> sampler = SkippingSampler(dset, UNBIASED, seed=0)
        >>> indices, (x, y), weights = sampler.sample(128)
        >>> sampler.update(indices, losses)  # the losses that the training step measured

    Source: [Q24], section 3.
    """

    needs_scores = True
    _saved = ("_losses", "_mean_loss", "_inclusion", "_included", "_order", "_cursor")

    def __init__(
        self,
        dataset: Any,
        reweighting: ReweightingPolicy,
        skip_probability: float | None = None,
        smooth: bool = False,
        *,
        seed: int | None = None,
    ):
        super().__init__(dataset, reweighting, seed=seed)
        check_flag(smooth=smooth)
        self.skip_probability = checked_skip_probability(skip_probability, smooth)
        self.smooth = bool(smooth)
        self._losses = np.full(self.size, np.nan, "float32")  # by row index
        self._mean_loss = 1.0  # at the beginning of the current epoch, for samples without a loss
        self._inclusion = np.ones(self.size, "float32")  # of the current epoch, by row index
        self._included = self.size  # number of samples of the current epoch

    def begin_epoch(self, batch_size: int, is_full: bool = False) -> int:
        """Draw the samples of the next epoch; what is left of the current one is dropped.

        Args:
            batch_size: int >= 1, of the batches that will be drawn.
            is_full: bool, default False; True includes all samples.

        Returns:
            int, the number of samples.
        """
        return self._draw_included(batch_size, is_full, lambda losses: losses)

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Record measured losses."""
        indices, losses = usable_measurements(indices, scores)
        self._losses[indices] = losses

    def inclusion_probabilities(self, losses: np.ndarray) -> np.ndarray:
        """Return the probabilities with which samples are included in an epoch.

        Args:
            losses: float `(n,)`, >= 0, the last losses; NaN for samples without one.

        Returns:
            float64 `(n,)`, in (0, 1].
        """
        rule = smooth_inclusion if self.smooth else threshold_inclusion
        return rule(losses, self.skip_probability)

    def _draw_included(self, batch_size: int, is_full: bool, smoothing: Smoothing) -> int:
        mean = mean_of_known(self._losses)
        self._mean_loss = 1.0 if math.isnan(mean) else mean
        inclusion = np.ones(self.size)
        if not is_full:
            losses = np.where(np.isnan(self._losses), np.nan, smoothing(self._filled(self._losses)))
            inclusion = with_whole_batches(self.inclusion_probabilities(losses), batch_size)
        rows = included_rows(inclusion, self._rng.permutation(self.size), self._rng.random())
        self._inclusion = inclusion.astype("float32")
        self._included = len(rows)
        self._begin_order(self._rng.permutation(rows))
        return len(rows)

    def _filled(self, losses: np.ndarray) -> np.ndarray:
        """Return losses with the mean of all known ones in the place of NaN."""
        return np.where(np.isnan(losses), self._mean_loss, losses.astype("float64"))

    def _draw_epoch(self, smooth: Smoothing, batch_size: int, samples_after: float) -> None:
        self._draw_included(batch_size, False, smooth)

    def _draw(self, batch_size: int, smooth: Smoothing) -> Drawn:
        parts = []
        for indices in self._parts_of_batch(batch_size, smooth):
            losses = self._losses[indices]
            p = self._inclusion[indices].astype("float64") / self._included  # of a draw: they sum to 1 over all samples
            parts.append(self._weighed(indices, p, self._filled(losses))._replace(scores=losses))
        return joined(parts)

    def _epoch_pool(self) -> tuple[np.ndarray, np.ndarray]:
        return self._filled(self._losses), self._inclusion / self._included
