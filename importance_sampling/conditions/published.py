"""The published gate: open while tau, the inequality of the scores, exceeds a threshold.

Source: [KF18] Katharopoulos & Fleuret, Not All Samples Are Created Equal, 2018 (arXiv 1803.00942), section 3.3.
"""

from __future__ import annotations

import numpy as np

from importance_sampling.conditions.base import TOO_SHORT, ScoreCondition
from importance_sampling.conditions.signals import Signals, tau
from importance_sampling.utils.numerics import clean_scores
from importance_sampling.utils.validation import is_real


class VarianceReductionCondition(ScoreCondition):
    """The published rule: open while the moving average of tau = sqrt(B sum(g^2)) exceeds a threshold.

    g are the normalised scores of B candidates. The variance gain of a pool can be much smaller than tau suggests.

    Args:
        vr_th: float, default 1.2; the threshold. At most 1: always open; infinity: never open.
        momentum: float in [0, 1), default 0.9, of the moving average, per step.

    Raises:
        ValueError: `vr_th` is not a number, or `momentum` is out of its range.

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
        """Set the condition to a saved state; it stays satisfied if the threshold is at most 1."""
        super().restore(state)
        self.satisfied = self.satisfied or self.always

    def _decide(self, signals: Signals) -> bool:
        return self._exceeds(float(signals.tau))

    def _exceeds(self, value: float) -> bool:
        return self.always or value > self.threshold

    def _statistic(self, scores: np.ndarray) -> float:
        return tau(scores) if clean_scores(scores)[1] else float("nan")

    def explain(self, signals: Signals) -> str:
        """Return why the gate is closed, with the remedy."""
        tau = float(signals.tau)
        if np.isnan(tau):
            return TOO_SHORT
        return (
            f"the scores are too equal for this threshold (tau is {tau:.2f}, the threshold {self.threshold:.2f}). "
            "Lower `tau_th`, or leave it at None for the default gate"
        )


def gate(tau_th: float) -> VarianceReductionCondition:
    """Return the published rule with a threshold on tau.

    Args:
        tau_th: float, as `vr_th` of `VarianceReductionCondition`.

    Raises:
        ValueError: `tau_th` is not a number.
    """
    if not is_real(tau_th):
        raise ValueError(f"`tau_th` must be a number, or None for the default gate. Received: tau_th={tau_th!r}")
    return VarianceReductionCondition(tau_th)
