"""The gates of trainers: the growth of the effective batch against its cost, and the published rule on tau.

Source: [KF18] (arXiv 1803.00942), section 3.3, for the rule on tau; the other is this library's.
"""

from __future__ import annotations

import numpy as np

from importance_sampling.conditions.base import Condition, ScoreCondition
from importance_sampling.conditions.signals import Signals, tau
from importance_sampling.datasets.base import is_real
from importance_sampling.probabilities import clean_scores

HYSTERESIS = 0.95


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


class VarianceReductionCondition(ScoreCondition):
    """The published rule: open while the moving average of tau = sqrt(B sum(g^2)) exceeds a threshold.

    It knows nothing of what is gained from tau: with small pools little is (see `GrowthCondition`).

    Args:
        vr_th: float, default 1.2; at most 1 is open from the first step, infinity never opens.
        momentum: float in [0, 1), default 0.9, of the average, per step.

    Raises:
        ValueError: `vr_th` is not a number, or `momentum` is out of range.

    Example:
        >>> condition = VarianceReductionCondition(1.2)
        >>> condition.update(np.array([1.0, 1.0, 1.0, 5.0]))  # tau = sqrt(4 * 28 / 64) = 1.32
        True

    Source: [KF18], section 3.3; the paper's threshold is (B + 3 b) / (3 b).
    """

    def __init__(self, vr_th: float = 1.2, momentum: float = 0.9):
        super().__init__(vr_th, momentum, "vr_th")
        self.satisfied = self.always = self.threshold <= 1.0
        self.probes = np.isfinite(self.threshold)

    @property
    def vr_th(self) -> float:
        """The threshold."""
        return self.threshold

    def restore(self, state: dict[str, np.ndarray] | bool) -> None:
        """As `Condition.restore`, unless the threshold leaves no choice."""
        super().restore(state)
        self.satisfied = self.satisfied or self.always

    def _decide(self, signals: Signals) -> bool:
        return self._exceeds(float(signals.tau))

    def _exceeds(self, value: float) -> bool:
        return self.always or value > self.threshold

    def _statistic(self, scores: np.ndarray) -> float:
        return tau(scores) if clean_scores(scores)[1] else float("nan")

    def explain(self, signals: Signals) -> str:
        """tau beside its threshold."""
        return f"tau {float(signals.tau):.2f}, threshold {self.threshold:.2f}"


def gate(tau_th: float) -> VarianceReductionCondition:
    """The published rule at a threshold.

    Raises:
        ValueError: it isn't a number.
    """
    if not is_real(tau_th):
        raise ValueError(f"`tau_th` must be a number, or None for the default gate. Received: tau_th={tau_th!r}")
    return VarianceReductionCondition(tau_th)
