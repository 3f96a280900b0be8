"""Predict the next score of a sample from the magnitude and the age of its last score.

Scores go out of date. With dropout or batch normalisation, a single forward pass is also a noisy estimate of the next
score. The variance of the gradient estimate is minimised by the root mean square of the next score, which is estimated
here for every magnitude and age of the last score.

Source: this library, after the idea of Johnson & Guestrin, Training Deep Models Faster with Robust, Approximate
Importance Sampling, NeurIPS 2018, to learn how far a score can be trusted.
"""

from __future__ import annotations

import numpy as np

# The last score's magnitude is divided into half octaves, its age into octaves from an eighth of an epoch on.
NUM_MAGNITUDES = 128
NUM_AGES = 8
UNSEEN = NUM_AGES * NUM_MAGNITUDES  # the cell of samples without a score
UNIT_MAGNITUDE = 84  # the magnitude of a score of 1
MIN_SCORE = 2.0 ** (-UNIT_MAGNITUDE / 2)
NARROW, WIDE = 1.5, 6.0  # standard deviations of the smoothing kernels over magnitudes, in half octaves
PRIOR_COUNT = 5.0  # number of observations that the wide average over all ages counts as
MEMORY = 500  # time constant of the decay of observations, in batches
DECAY = 1.0 - 1.0 / MEMORY


class Calibration:
    """The mean square of the next score, by the magnitude and the age of the last score.

    Magnitudes and ages are numbered as cells, see `cells`. The last cell is for samples without a score.

    Attributes:
        squares: float64 `(cells,)`, sums of squared scores. They decay with a time constant of `MEMORY` batches.
        counts: float64 `(cells,)`, the number of observations, with the same decay.
    """

    def __init__(self) -> None:
        self.squares = np.zeros(NUM_AGES * NUM_MAGNITUDES + 1)
        self.counts = np.zeros(NUM_AGES * NUM_MAGNITUDES + 1)

    def state(self) -> dict[str, np.ndarray]:
        """Return copies of the observations."""
        return {"squares": self.squares.copy(), "counts": self.counts.copy()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Set the observations to those that `state` returned."""
        self.squares, self.counts = state["squares"].copy(), state["counts"].copy()

    def update(self, cells: np.ndarray, scores: np.ndarray) -> None:
        """Record the measured scores of a batch.

        Args:
            cells: int `(b,)`, the cells of the samples' previous scores.
            scores: float `(b,)`, the measured scores, finite and >= 0.
        """
        self.squares *= DECAY
        self.counts *= DECAY
        np.add.at(self.squares, cells, np.square(np.asarray(scores, "float64")))
        np.add.at(self.counts, cells, 1.0)

    def expected_scores(self) -> np.ndarray:
        """Estimate the root mean square of the next score for every cell.

        The observations of a cell are averaged with those of cells of the same age and a similar magnitude, and with a
        prior that counts as `PRIOR_COUNT` observations: the average over a wider range of magnitudes and all ages. If
        that range has no observations, the prior is s m, where s is the cell's score and m the root mean square of all
        scores. Its root is the geometric mean of s and m. The cell of samples without a score is estimated by the first
        scores that such samples showed.

        Returns:
            float64 `(cells,)`. The unit is arbitrary before the first observation.
        """
        squares, counts = (sums[:-1].reshape(NUM_AGES, NUM_MAGNITUDES) for sums in (self.squares, self.counts))
        overall = self.squares.sum() / self.counts.sum() if self.counts.any() else 1.0
        wide, narrow = _kernel(WIDE), _kernel(NARROW)
        wide_counts = _smooth(counts.sum(axis=0), wide)
        default = np.sqrt(overall) * np.exp2((np.arange(NUM_MAGNITUDES) + 0.5 - UNIT_MAGNITUDE) / 2)
        prior = (_smooth(squares.sum(axis=0), wide) + 1e-3 * default) / (wide_counts + 1e-3)
        mean_squares = [
            (_smooth(s, narrow) + PRIOR_COUNT * prior) / (_smooth(c, narrow) + PRIOR_COUNT)
            for s, c in zip(squares, counts, strict=True)
        ]
        unseen = (self.squares[-1] + 1e-3 * overall) / (self.counts[-1] + 1e-3)
        return np.sqrt(np.append(np.concatenate(mean_squares), unseen))


def cells(scores: np.ndarray, ages: np.ndarray) -> np.ndarray:
    """Return the cells of last scores.

    Args:
        scores: float `(n,)`, >= 0; NaN for samples without a score.
        ages: float `(n,)`, in epochs.

    Returns:
        int16 `(n,)`.

    Example:
        >>> cells(np.array([1.0, 2.0, np.nan]), np.array([1.0, 4.0, 0.0]))  # magnitudes 84 and 86, ages 3 and 5
        array([ 468,  726, 1024], dtype=int16)
    """
    unseen = np.isnan(scores)
    magnitude = np.log2(np.maximum(np.where(unseen, 1.0, scores), MIN_SCORE)) * 2 + UNIT_MAGNITUDE
    age = np.log2(np.maximum(ages, 0.125)) + 3
    cell = np.clip(age, 0, NUM_AGES - 1).astype("int16") * NUM_MAGNITUDES
    cell = cell + np.clip(magnitude, 0, NUM_MAGNITUDES - 1).astype("int16")
    return np.where(unseen, UNSEEN, cell).astype("int16")


def _kernel(deviation: float) -> np.ndarray:
    """Return a Gaussian kernel, not normalised, up to three standard deviations."""
    distances = np.arange(-int(3 * deviation), int(3 * deviation) + 1)
    return np.exp(-0.5 * np.square(distances / deviation))


def _smooth(sums: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Smooth sums over magnitudes."""
    return np.convolve(sums, kernel, "same")
