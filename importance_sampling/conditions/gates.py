"""The gates of trainers: growth of the effective batch size against cost, and the published rule on tau.

Source: [KF18] Katharopoulos & Fleuret, Not All Samples Are Created Equal, 2018 (arXiv 1803.00942), section 3.3, for the
rule on tau; the other is this library's own.
"""

from __future__ import annotations

import numpy as np

from importance_sampling.conditions.base import Condition, ScoreCondition
from importance_sampling.conditions.signals import Signals, tau
from importance_sampling.probabilities import clean_scores
from importance_sampling.utils.validation import is_real

HYSTERESIS = 0.95
# Minimum learning rates, relative to the largest learning rate so far.
STEADY = 0.99  # to open; a cosine schedule falls below it after a sixteenth of the run
STILL_STEADY = 0.95  # to stay open
LEAST_RATE = 0.8  # at a growth of at least `RARE_GROWTH`
RARE_GROWTH = 25.0


class GrowthCondition(Condition):
    """Open while the growth of the effective batch size exceeds the cost of a step and the learning rate isn't falling.

    Gradient noise perturbs the weights in proportion to the learning rate, so a decaying rate reduces the noise that
    importance sampling would reduce. Importance sampling then fits the hardest samples, which lowers the training loss
    and raises the test loss. The rate must be at least 0.99 of the largest rate so far for the gate to open, and 0.95
    for it to stay open. If few samples have nearly all of the gradient, as those of a rare class, uniform batches
    contain too few of them at any rate: from a growth of 25, which is possible only if samples are drawn from all of
    the data, a rate of 0.8 is enough.

    To open, the gate can require a higher growth than the cost, and a number of epochs; and the growth must exceed the
    costs due at the start of an epoch, shared by the steps left in `fit`. An open gate closes when the growth falls
    below 0.95 of the cost (or of 25 at a low rate). This hysteresis prevents that noise opens and closes it repeatedly.
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
        """Return growth and cost, and the other values that keep the gate closed, as a text."""
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
            text += f", required growth {terms.growth:.2f}"
        if terms.opening_cost > terms.cost:
            text += f", {terms.left:.2f} epochs left"
        return text if terms.passed >= terms.passes else f"{text}, not before the end of epoch {terms.passes:g}"


class VarianceReductionCondition(ScoreCondition):
    """The published rule: open while the moving average of tau = sqrt(B sum(g^2)) exceeds a threshold.

    The variance gain of a pool can be much smaller than tau suggests (see `GrowthCondition`).

    Args:
        vr_th: float, default 1.2. At most 1: always open; infinity: never open.
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
        """Set the condition to a saved state. A threshold of at most 1 keeps it open."""
        super().restore(state)
        self.satisfied = self.satisfied or self.always

    def _decide(self, signals: Signals) -> bool:
        return self._exceeds(float(signals.tau))

    def _exceeds(self, value: float) -> bool:
        return self.always or value > self.threshold

    def _statistic(self, scores: np.ndarray) -> float:
        return tau(scores) if clean_scores(scores)[1] else float("nan")

    def explain(self, signals: Signals) -> str:
        """Return tau and its threshold as a text."""
        return f"tau {float(signals.tau):.2f}, threshold {self.threshold:.2f}"


def gate(tau_th: float) -> VarianceReductionCondition:
    """Return the published rule with a threshold.

    Raises:
        ValueError: `tau_th` is not a number.
    """
    if not is_real(tau_th):
        raise ValueError(f"`tau_th` must be a number, or None for the default gate. Received: tau_th={tau_th!r}")
    return VarianceReductionCondition(tau_th)
