"""Conditions: is importance sampling worth its price yet?

Source: [KF18] (arXiv 1803.00942), equations 23 to 26, for tau; the growth of the effective batch under systematic and
multinomial draws follows from the second moment of their counts. Nothing is timed here: decisions depend on scores
alone, so that the same seed gives the same weights on any machine.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from importance_sampling.samplers.pool import clean_scores
from importance_sampling.samplers.resampling import Resampling

HYSTERESIS = 0.95


class Signals(NamedTuple):
    """What the scores say; every field a float, NaN where it was not measured."""

    tau: Any  # >= 1
    growth: Any  # by how much the effective batch grows, by the scores at hand
    discount: Any  # what is left of it by what the training step saw, as a factor; measured only while open
    score: Any  # mean of the scores

    @property
    def trusted_growth(self) -> float:
        """The smaller of the two growths. The discount outlives the closing of the gate, or it would flap."""
        return float(self.growth) * float(np.fmin(self.discount, 1.0))


def tau(scores: Any) -> Any:
    """tau = sqrt(B sum(g^2)) = sqrt(1 + CV(s)^2), at least 1: how unequal the scores are.

    Args:
        scores: float `(pool_size,)`, >= 0.

    Returns:
        float32 scalar.

    Example:
        >>> tau(np.array([1.0, 2.0, 3.0, 0.0]))  # sqrt(4 * 14 / 36) = 1.247

    Source: [KF18], equation 26.
    """
    scores, _ = clean_scores(scores)
    return ops.sqrt(ops.mean(ops.square(scores))) / ops.mean(scores)


def growth(scores: Any, presample: float, alpha: float, resampling: Resampling) -> Any:
    """By how much a pool of `presample` batches makes the effective batch grow.

    growth = presample mean(s^2) / mean(v(q) s^2), where q = ((1 - alpha) s / mean(s) + alpha) / presample is how often
    a candidate is expected to be drawn and v(q) = E[count^2] / q^2 is the resampling's.

    Args:
        scores: float `(n,)`, >= 0, a pool or any fair sample of the data.
        presample: float, the pool's size in batches.
        alpha: float, the uniform share.
        resampling: the scheme in use.

    Returns:
        float32 scalar, at most `presample`; 1 at equal scores with systematic draws.
    """
    scores, _ = clean_scores(scores)
    q = ((1.0 - alpha) * scores / ops.mean(scores) + alpha) / presample
    square = ops.square(scores)
    return presample * ops.mean(square) / ops.mean(resampling.second_moment(q) * square)


def measured_growth(weights: Any, norms: Any, presample: float, resampling: Resampling) -> Any:
    """The growth by the gradient norms that the training step itself measured on the batch it drew.

    presample sum(w m^2) / sum(w v(q) m^2), where a weight w means q = 1 / (w presample): the importance weights turn
    sums over the batch into sums over the pool.

    Args:
        weights: float `(batch_size,)`, unbiased ones.
        norms: float `(batch_size,)`, m, in training mode.
        presample: float, the pool's size in batches.
        resampling: the scheme in use.

    Returns:
        float32 scalar, NaN where the norms are no use.
    """
    norms = ops.cast(norms, "float32")
    square = weights * ops.square(norms / ops.max(norms))
    q = 1.0 / (weights * presample)
    return presample * ops.sum(square) / ops.sum(resampling.second_moment(q) * square)


def moving_average(average: Any, value: Any, momentum: float, steps: int) -> Any:
    """Exponential moving average with `momentum` per step elapsed; it starts at the first value measured (not NaN)."""
    kept = momentum**steps
    mixed = kept * average + (1.0 - kept) * value
    return ops.where(ops.isnan(value), average, ops.where(ops.isnan(average), value, mixed))


class Condition:
    """A gate: it is shown signals and says whether to sample by importance.

    Attributes:
        satisfied: bool, whether importance sampling is on.
        previously_satisfied: bool, what it was before the last update.
        probes: whether it needs to see scores while closed.
    """

    probes = True

    def __init__(self) -> None:
        self.satisfied = False
        self.previously_satisfied = False

    def update(self, signals: Signals) -> bool:
        """Decide anew; returns `satisfied`."""
        self.previously_satisfied = self.satisfied
        self.satisfied = self._decide(signals)
        return self.satisfied

    def restore(self, satisfied: bool) -> None:
        """Stand as a saved state says."""
        self.satisfied = satisfied

    def _decide(self, signals: Signals) -> bool:
        raise NotImplementedError

    def explain(self, signals: Signals) -> str:
        """In words, what the condition compares."""
        raise NotImplementedError


class GrowthCondition(Condition):
    """Open while the effective batch grows by more than an open step costs: growth > cost = 1 + presample / 3.

    The cost is arithmetic, a backward pass counted as two forwards. Once open it closes below 0.95 of the cost, so
    that noise doesn't flip it at every look. At presample <= 1.5 growth never exceeds the cost.

    Args:
        presample: float, the pool's size in batches.
    """

    def __init__(self, presample: float):
        super().__init__()
        self.cost = 1.0 + presample / 3.0

    def _decide(self, signals: Signals) -> bool:
        return signals.trusted_growth > self.cost * (HYSTERESIS if self.satisfied else 1.0)

    def explain(self, signals: Signals) -> str:
        """The growth beside the cost."""
        return f"growth {signals.trusted_growth:.2f}, cost {self.cost:.2f}"


class VarianceReductionCondition(Condition):
    """The published rule: open while the moving average of tau exceeds a threshold.

    Args:
        vr_th: float, default 1.2; at most 1 is open from the first step, infinity never opens.

    Raises:
        ValueError: `vr_th` is not a number.

    Source: [KF18], section 3.3; the paper's threshold is (B + 3 b) / (3 b).
    """

    def __init__(self, vr_th: float = 1.2):
        super().__init__()
        if isinstance(vr_th, (bool, str)) or np.isnan(vr_th):
            raise ValueError(f"`tau_th` must be a number, or None for the default gate. Received: tau_th={vr_th!r}")
        self.vr_th = float(vr_th)
        self.satisfied = self.always = self.vr_th <= 1.0
        self.probes = np.isfinite(self.vr_th)

    def restore(self, satisfied: bool) -> None:
        """Stand as a saved state says, unless the threshold leaves no choice."""
        self.satisfied = satisfied or self.always

    def _decide(self, signals: Signals) -> bool:
        return self.always or bool(signals.tau > self.vr_th)

    def explain(self, signals: Signals) -> str:
        """tau beside its threshold."""
        return f"tau {float(signals.tau):.2f}, threshold {self.vr_th:.2f}"
