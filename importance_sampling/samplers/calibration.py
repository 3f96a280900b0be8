"""What a score that was seen some time ago says of the score to be seen next, learnt from what training steps measure.

A score grows old, and under dropout or batch normalisation one forward pass is a poor guess at the next. What variance
asks for is the root mean square of the next score; that is kept for every size and age of the last one. It is this
library's own, in the spirit of Johnson & Guestrin, Training Deep Models Faster with Robust, Approximate Importance
Sampling, NeurIPS 2018, who learn how far a score can be trusted. Nothing is drawn here.
"""

from __future__ import annotations

import numpy as np

SIZES = 128  # half octaves of the score
AGES = 8  # octaves of the age, from an eighth of an epoch on
UNIT = 84  # the size of a score of 1
SMALLEST = 2.0 ** (-UNIT / 2)
NARROW, WIDE = 1.5, 6.0  # standard deviations of the smoothing over sizes, in half octaves
PRIOR = 5.0  # how many observations the wide average, over all ages, counts as
MEMORY = 500  # batches, over which observations are forgotten


class Calibration:
    """The mean square of the next score, by the size and age of the last one.

    Cells are numbered; the last one is that of samples not seen yet.

    Attributes:
        squares: float64 `(cells,)`, sums of squared scores, of observations that fade over `MEMORY` batches.
        counts: float64 `(cells,)`, of these observations.
    """

    def __init__(self) -> None:
        self.squares = np.zeros(AGES * SIZES + 1)
        self.counts = np.zeros(AGES * SIZES + 1)

    def state(self) -> dict[str, np.ndarray]:
        """What was observed, to be saved."""
        return {"squares": self.squares.copy(), "counts": self.counts.copy()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `state` returned."""
        self.squares, self.counts = state["squares"].copy(), state["counts"].copy()

    def observe(self, cells: np.ndarray, scores: np.ndarray) -> None:
        """Learn what the scores of a batch turned out to be.

        Args:
            cells: int `(b,)`, of the scores that had been seen before.
            scores: float `(b,)`, finite and >= 0.
        """
        fade = 1.0 - 1.0 / MEMORY
        self.squares *= fade
        self.counts *= fade
        np.add.at(self.squares, cells, np.square(np.asarray(scores, "float64")))
        np.add.at(self.counts, cells, 1.0)

    def expected(self) -> np.ndarray:
        """The root mean square of the next score for every cell, float64 `(cells,)`, in no unit before any observation.

        A cell's own observations are averaged with its neighbours' in size, and with a few that stand for the sizes
        around at any age. Where there are none, sqrt(s m) is taken of a score s, m being the root mean square of all:
        half way, in logarithms, from trusting it to taking no notice. Samples not seen yet are told by those of them
        that were drawn.
        """
        squares, counts = (sums[:-1].reshape(AGES, SIZES) for sums in (self.squares, self.counts))
        overall = self.squares.sum() / self.counts.sum() if self.counts.any() else 1.0
        wide, narrow = _kernel(WIDE), _kernel(NARROW)
        around = _over_sizes(counts.sum(axis=0), wide)
        guess = np.sqrt(overall) * np.exp2((np.arange(SIZES) + 0.5 - UNIT) / 2)
        prior = (_over_sizes(squares.sum(axis=0), wide) + 1e-3 * guess) / (around + 1e-3)
        rows = [
            (_over_sizes(s, narrow) + PRIOR * prior) / (_over_sizes(c, narrow) + PRIOR)
            for s, c in zip(squares, counts, strict=True)
        ]
        unseen = (self.squares[-1] + 1e-3 * overall) / (self.counts[-1] + 1e-3)
        return np.sqrt(np.append(np.concatenate(rows), unseen))


def cells(scores: np.ndarray, ages: np.ndarray) -> np.ndarray:
    """The cells of last seen scores.

    Args:
        scores: float `(n,)`, >= 0; NaN where a sample wasn't seen yet.
        ages: float `(n,)`, how many epochs ago they were seen.

    Returns:
        int16 `(n,)`.

    Example:
        >>> cells(np.array([1.0, 2.0, np.nan]), np.array([1.0, 4.0, 0.0]))  # sizes 84 and 86, ages 3 and 5
        array([ 468,  726, 1024], dtype=int16)
    """
    unseen = np.isnan(scores)
    size = np.log2(np.maximum(np.where(unseen, 1.0, scores), SMALLEST)) * 2 + UNIT
    age = np.log2(np.maximum(ages, 0.125)) + 3
    cell = np.clip(age, 0, AGES - 1).astype("int16") * SIZES + np.clip(size, 0, SIZES - 1).astype("int16")
    return np.where(unseen, AGES * SIZES, cell).astype("int16")


def _kernel(deviation: float) -> np.ndarray:
    reach = np.arange(-int(3 * deviation), int(3 * deviation) + 1)
    return np.exp(-0.5 * np.square(reach / deviation))


def _over_sizes(sums: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return np.convolve(sums, kernel, "same")
