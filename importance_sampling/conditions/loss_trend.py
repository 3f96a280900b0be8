"""Decide from the losses measured so far whether a loss still falls, and compare it with that of training samples.

Source: polynomial-decay averages are those of Shamir & Zhang, Stochastic Gradient Descent for Non-smooth Optimization,
2013 (arXiv 1212.1824), section 4; comparing two of them is this library's own.
"""

from __future__ import annotations

import dataclasses
import math

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
        recent, longer: float, default 0; the averages.

    Example:
        >>> trend = LossTrend()
        >>> for loss in (1.0, 0.5, 0.3, 0.25):
        ...     trend.record(loss)
        >>> trend.change < 0
        True
    """

    count: int = 0
    recent: float = 0.0
    longer: float = 0.0

    def record(self, loss: float) -> None:
        """Add a measurement; NaN and infinity are ignored."""
        if not math.isfinite(loss):
            return
        self.count += 1
        self.recent += (loss - self.recent) * RECENT / (self.count + RECENT - 1)
        self.longer += (loss - self.longer) * LONGER / (self.count + LONGER - 1)

    @property
    def change(self) -> float:
        """The recent average minus the longer one: negative while the loss falls, 0 while it doesn't show a change."""
        return self.recent - self.longer if self.shows_change else 0.0

    @property
    def shows_change(self) -> bool:
        """True from the fourth measurement on: fewer are mostly noise."""
        return self.count >= FEWEST


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

    def record(self, held_out_loss: float, training_loss: float, ratio_error: float = 0.0) -> None:
        """Add a measurement; if one of the losses is NaN or infinite, both are ignored.

        Args:
            held_out_loss: float, the mean loss of held-out samples.
            training_loss: float, that of training samples; 0 if the two can't be compared.
            ratio_error: float >= 0, default 0; the standard error of the logarithm of the ratio of the two.
        """
        if not (math.isfinite(held_out_loss) and math.isfinite(training_loss)):
            return
        self.held_out.record(held_out_loss)
        self.training.record(training_loss)
        training, held_out = self.training.recent, self.held_out.recent
        can_compare = training > 0 and held_out > 0 and ratio_error <= 1
        self.ratio = training / held_out * math.exp(ratio_error) if can_compare else 0.0

    @property
    def generalised_share(self) -> float:
        """How much the held-out loss falls while the training loss falls by 1; NaN if the second doesn't fall."""
        fall = self.training.change
        return self.held_out.change / fall if fall < 0 else math.nan
