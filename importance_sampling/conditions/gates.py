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
# Learning rates, over the largest so far. A cosine is below the first after a sixteenth of the run.
STEADY = 0.99  # to open: one that is on its way down closes the gate before what opening costs is earned back
STILL_STEADY = 0.95  # to stay open
LEAST_RATE = 0.8
RARE_GROWTH = 25.0


class GrowthCondition(Condition):
    """Open while the effective batch grows by more than an open step costs, and noise is what holds training back.

    That is growth > cost, at a learning rate that isn't falling. The noise that a gradient leaves in the weights is in
    proportion to the rate: a rate that decays takes away what importance sampling would, and what is left to it then is
    to fit the hardest samples, which lowers the training loss and raises the test loss. So the rate must be at least
    0.99 of the largest so far to open, and 0.95 to stay open. Where few samples have nearly all of the gradient, as
    where a class is rare, uniform batches have too few of them at any rate: a growth of 25, which draws from all of the
    data may have and pools never do, is enough down to 0.8.

    To begin, the terms may ask for more growth than the cost, and for some passes over the data; and what is spent
    ahead of a pass must be worth it in what is left of `fit`. Once open it closes below 0.95 of the cost, or of
    that growth, so that noise doesn't flip it at every look.
    """

    def _decide(self, signals: Signals) -> bool:
        growth, terms = signals.trusted_growth, self.terms
        if self.satisfied:
            pays, steady = growth > HYSTERESIS * terms.cost, STILL_STEADY
        else:
            pays, steady = growth > max(terms.opening_cost, terms.growth) and terms.passed >= terms.passes, STEADY
        rare = RARE_GROWTH * (HYSTERESIS if self.satisfied else 1.0)
        matters = terms.rate >= (LEAST_RATE if growth >= rare else steady)
        return pays and matters and terms.known

    def explain(self, signals: Signals) -> str:
        """The growth beside the cost, and whatever else keeps it closed."""
        terms = self.terms
        text = f"growth {signals.trusted_growth:.2f}, cost {terms.cost:.2f}"
        if not terms.known:
            text += " (not measured yet)"
        elif terms.measured:
            text += " (measured)"
        if terms.rate < 1.0:
            text += f", learning rate at {terms.rate:.0%} of its peak"
        if self.satisfied:
            return text
        if terms.growth > terms.cost:
            text += f", growth asked for {terms.growth:.2f}"
        if terms.opening_cost > terms.cost:
            text += f", {terms.left:.2f} of a pass left to earn it back"
        return text if terms.passed >= terms.passes else f"{text}, after {terms.passes:g} pass over the data"


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
