"""Decide from the losses measured so far whether a loss still falls, and compare it with that of training samples.

Every measurement is of the same samples, in groups: how much the groups differ gives the standard error of a change.

Source: polynomial-decay averages are those of Shamir & Zhang, Stochastic Gradient Descent for Non-smooth Optimization,
2013 (arXiv 1212.1824), section 4; bounds of a ratio are those of Fieller, Some Problems in Interval Estimation, 1954;
their use for comparing losses is this library's own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

# An average with exponent p weights measurement i of n about in proportion to i^(p - 1). The mean age of the
# measurements in it is n / (p + 1): a tenth and a quarter of the time measured so far. With less between the two, noise
# would decide about the sign of their difference.
RECENT, LONGER = 9, 3
FEWEST = 4  # measurements that show a change


@dataclasses.dataclass
class LossTrend:
    """Two averages of a series of losses: of about its last tenth, and of about its last quarter.

    The averages reach back in proportion to the number of measurements, so no time scale has to be chosen, and they
    take no more memory for longer series.

    Attributes:
        count: int >= 0, default 0; the number of measurements.
        recent, longer: list of floats, default [0]; the averages, of each group of samples.

    Example:
        >>> trend = LossTrend()
        >>> for loss in (1.0, 0.5, 0.3, 0.25):
        ...     trend.record([loss, 2 * loss])
        >>> trend.change < 0, trend.lowest_change < trend.change
        (True, True)
    """

    count: int = 0
    recent: list[float] = dataclasses.field(default_factory=lambda: [0.0])
    longer: list[float] = dataclasses.field(default_factory=lambda: [0.0])

    def record(self, losses: float | Sequence[float] | np.ndarray) -> None:
        """Add a measurement; it is ignored if it contains NaN or infinity.

        Args:
            losses: float `(groups,)`, the mean losses of groups of equal size, always of the same samples; or a float.
        """
        losses = np.atleast_1d(np.asarray(losses, "float64"))
        if not np.isfinite(losses).all():
            return
        self.count += 1
        self.recent = _moved(self.recent, losses, RECENT / (self.count + RECENT - 1))
        self.longer = _moved(self.longer, losses, LONGER / (self.count + LONGER - 1))

    @property
    def mean(self) -> float:
        """The recent average over all samples."""
        return float(np.mean(self.recent))

    @property
    def change(self) -> float:
        """The recent average minus the longer one: negative while the loss falls, 0 while it doesn't show a change."""
        return float(np.mean(self._changes)) if self.shows_change else 0.0

    @property
    def error(self) -> float:
        """The standard error of `change` as an estimate for other samples; 0 if there is only one group."""
        changes = self._changes
        return float(changes.std(ddof=1) / math.sqrt(len(changes))) if len(changes) > 1 else 0.0

    @property
    def lowest_change(self) -> float:
        """The change minus a standard error: above 0 if the loss rises by more than the samples differ by chance."""
        return self.change - self.error if self.shows_change else 0.0

    @property
    def shows_change(self) -> bool:
        """True from the fourth measurement on: fewer are mostly noise."""
        return self.count >= FEWEST

    @property
    def _changes(self) -> np.ndarray:
        return np.subtract(self.recent, self.longer)


@dataclasses.dataclass
class LossComparison:
    """The losses of held-out samples beside those of training samples at the same times.

    Attributes:
        held_out, training: `LossTrend`; the second has losses of 0 where the two can't be compared.
        ratio: float >= 0, default 0; the recent training loss divided by that of held-out samples, plus one standard
            error; 0 if they can't be compared, or if the error is larger than the ratio.
    """

    held_out: LossTrend = dataclasses.field(default_factory=LossTrend)
    training: LossTrend = dataclasses.field(default_factory=LossTrend)
    ratio: float = 0.0

    def record(
        self,
        held_out_losses: float | Sequence[float] | np.ndarray,
        training_losses: float | Sequence[float] | np.ndarray,
        ratio_error: float = 0.0,
    ) -> None:
        """Add a measurement; if one of the losses is NaN or infinite, all are ignored.

        Args:
            held_out_losses: float `(groups,)`, the mean losses of groups of held-out samples; or a float.
            training_losses: those of training samples; 0 if the two can't be compared.
            ratio_error: float >= 0, default 0; the standard error of the logarithm of the ratio of the two.
        """
        if not (np.isfinite(held_out_losses).all() and np.isfinite(training_losses).all()):
            return
        self.held_out.record(held_out_losses)
        self.training.record(training_losses)
        training, held_out = self.training.mean, self.held_out.mean
        can_compare = training > 0 and held_out > 0 and ratio_error <= 1
        self.ratio = training / held_out * math.exp(ratio_error) if can_compare else 0.0

    @property
    def generalised_share(self) -> float:
        """How much the held-out loss falls while the training loss falls by 1, plus a standard error.

        NaN if the training loss doesn't fall by more than its standard error.
        """
        return largest_ratio(-self.held_out.change, -self.training.change, self.held_out.error, self.training.error)


def largest_ratio(numerator: float, denominator: float, numerator_error: float, denominator_error: float) -> float:
    """Return the largest ratio r of two estimates that they don't contradict by more than a standard error.

    It is the larger solution of (numerator - r denominator)^2 = numerator_error^2 + r^2 denominator_error^2.

    Args:
        numerator, denominator: float, two independent estimates.
        numerator_error, denominator_error: float >= 0, their standard errors.

    Returns:
        float; NaN if the denominator isn't larger than its error.

    Example:
        >>> largest_ratio(1.0, 2.0, 0.0, 0.0), largest_ratio(1.0, 2.0, 1.0, 0.0), largest_ratio(1.0, 2.0, 0.0, 1.0)
        (0.5, 1.0, 1.0)
    """
    if denominator <= denominator_error:
        return math.nan
    # In units of the denominator, so that squares of small losses aren't rounded to zero.
    ratio, a, b = (value / denominator for value in (numerator, denominator_error, numerator_error))
    root = math.sqrt(ratio * ratio * a * a + b * b - a * a * b * b)
    return (ratio + root) / (1.0 - a * a)


def _moved(average: list[float], losses: np.ndarray, share: float) -> list[float]:
    """Return an average of groups after it has moved towards losses by a share of the distance."""
    return (np.asarray(average) + (losses - average) * share).tolist()
