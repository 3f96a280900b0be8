"""How far old scores can be trusted: an uncertainty set for the squares of the next scores, learned from measured ones.

The square u of a sample's next score is expected to be c, and deviates by d, where c and d are linear in features of
the last score. The features are the square of the last score, and the mean square of all scores, each with a
coefficient >= 0 for every age of the last score. With p the probabilities, the set contains the squares for which

    sum((u - c)^2 / (d p)) <= width^2 sum(d / p).

The variance of the gradient is sum(u / p) up to constants. Its maximum over the set is sum((c + width d) / p), at
u = c + width d, for any p. So the probabilities that minimise the maximum are proportional to sqrt(c + width d).

Source: [JG18] Johnson & Guestrin, Training Deep Models Faster with Robust, Approximate Importance Sampling, NeurIPS
2018. The set, the features and the fits are this library's versions. Multiplicative updates: [F09] Fevotte et al.,
Nonnegative Matrix Factorization with the Itakura-Saito Divergence, 2009.
"""

from __future__ import annotations

import numpy as np

from importance_sampling.samplers.calibration import (
    DECAY,
    NUM_AGES,
    NUM_MAGNITUDES,
    PRIOR_COUNT,
    UNIT_MAGNITUDE,
    Calibration,
)
from importance_sampling.utils.validation import check_non_negative

ITERATIONS = 100  # of a fit
EQUAL_TRUST = 0.5  # coefficient of all features before the first observation
MIN_COEFFICIENT = 1e-6


class UncertaintySet(Calibration):
    """An uncertainty set for the squares of the next scores, by the magnitude and the age of the last score.

    Attributes:
        fourths: float64 `(cells,)`, sums of the fourth powers of scores, with the same decay as `squares`.

    Args:
        width: float >= 0, default 1; the size of the set. At 1 the observed deviations just lie in it; at 0 only the
            expected squares count.
    """

    def __init__(self, width: float = 1.0):
        super().__init__()
        check_non_negative(width=width)
        self.width = float(width)
        self.fourths = np.zeros_like(self.squares)

    def state(self) -> dict[str, np.ndarray]:
        """Return copies of the observations."""
        return super().state() | {"fourths": self.fourths.copy()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Set the observations to those that `state` returned."""
        super().restore(state)
        self.fourths = state["fourths"].copy()

    def update(self, cells: np.ndarray, scores: np.ndarray) -> None:
        """Record the measured scores of a batch; the arguments are those of `Calibration.update`."""
        super().update(cells, scores)
        self.fourths *= DECAY
        np.add.at(self.fourths, cells, np.asarray(scores, "float64") ** 4)

    def expected_scores(self) -> np.ndarray:
        """Return sqrt(c + width d) for every cell: what the probabilities are proportional to.

        An age with few observations is fitted together with `PRIOR_COUNT` observations of the distribution of all
        ages.

        Returns:
            float64 `(cells,)`; ones before the first score above 0.
        """
        if not self.squares.any():
            return np.ones_like(self.squares)
        sums = np.stack([self.counts, self.squares, self.fourths])
        mean = self.squares.sum() / self.counts.sum()
        by_age = sums[:, :-1].reshape(3, NUM_AGES, NUM_MAGNITUDES)
        overall = by_age.sum(axis=1, keepdims=True)
        counts, squares, fourths = by_age + PRIOR_COUNT * overall / max(overall[0].sum(), 1e-9)
        features = np.stack([np.exp2(np.arange(NUM_MAGNITUDES) + 0.5 - UNIT_MAGNITUDE), np.full(NUM_MAGNITUDES, mean)])
        c = fit_expected(features, counts, squares) @ features
        d = fit_deviation(features, counts, squares, fourths, c) @ features
        count, square, fourth = sums[:, -1]  # of the samples without a score
        unseen = square / count if square else mean
        deviation = np.sqrt(max(fourth / count - unseen**2, 0.0)) if square else 0.0
        return np.sqrt(np.append(c + self.width * d, unseen + self.width * deviation))


def fit_expected(features: np.ndarray, counts: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Fit the expected squares c = coefficients @ features, one line of coefficients per age.

    They minimise sum(u / c + log(c)) over the observations u: relative errors count, because they are what raises the
    variance. ([JG18] uses least squares with importance weights.)

    Args:
        features: float `(k, cells)`, > 0.
        counts, squares: float `(ages, cells)`, the numbers of observations and the sums of u.

    Returns:
        float `(ages, k)`, > 0; 0.5 for an age without observations.
    """
    coefficients = np.full((len(counts), len(features)), EQUAL_TRUST)
    for _ in range(ITERATIONS):
        c = coefficients @ features
        coefficients = _updated(coefficients, (squares / c**2) @ features.T, (counts / c) @ features.T)
    return coefficients


def fit_deviation(
    features: np.ndarray, counts: np.ndarray, squares: np.ndarray, fourths: np.ndarray, c: np.ndarray
) -> np.ndarray:
    """Fit the deviations d = coefficients @ features of the smallest set that contains the observations.

    They minimise sum(((u - c)^2 / d + d) / c), at which sum((u - c)^2 / (d c)) = sum(d / c). An observation was drawn
    with a probability about proportional to sqrt(c): so 1/c is its importance weight, times 1/p of the set.

    Args:
        features, counts, squares: as for `fit_expected`.
        fourths: float `(ages, cells)`, the sums of u^2.
        c: float `(ages, cells)`, the expected squares.

    Returns:
        float `(ages, k)`, > 0; 0 for an age without observations.
    """
    deviations = np.maximum(fourths - 2.0 * c * squares + c**2 * counts, 0.0)
    coefficients = np.full((len(counts), len(features)), EQUAL_TRUST)
    for _ in range(ITERATIONS):
        d = coefficients @ features
        coefficients = _updated(coefficients, (deviations / (c * d**2)) @ features.T, (counts / c) @ features.T)
    return np.where(counts.any(axis=1, keepdims=True), coefficients, 0.0)


def _updated(coefficients: np.ndarray, rising: np.ndarray, falling: np.ndarray) -> np.ndarray:
    """Return the coefficients after a multiplicative update, which never raises the minimised sum."""
    ratio = np.divide(rising, falling, out=np.ones_like(rising), where=falling > 0)
    return np.maximum(coefficients * np.sqrt(ratio), MIN_COEFFICIENT)
