"""The gates of trainers: variance gain against cost, and the published rule on tau.

Source: [KF18] Katharopoulos & Fleuret, Not All Samples Are Created Equal, 2018 (arXiv 1803.00942), section 3.3, for the
rule on tau; the default gate is this library's own.
"""

from __future__ import annotations

import numpy as np

from importance_sampling.conditions.base import Condition, ScoreCondition
from importance_sampling.conditions.signals import Signals, tau
from importance_sampling.utils.numerics import clean_scores
from importance_sampling.utils.validation import is_real

HYSTERESIS = 0.95  # an open gate closes at 0.95 of the variance gain that is needed to open it
# Minimum learning rates, divided by the largest learning rate so far.
OPENING_RATE = 0.99  # to open; a cosine schedule falls below it after a sixteenth of the run
CLOSING_RATE = 0.95  # to stay open
RARE_CLASS_RATE = 0.8  # if the variance gain is at least `RARE_CLASS_GAIN`
RARE_CLASS_GAIN = 25.0


class GainCondition(Condition):
    """The default gate: open while the variance gain exceeds the cost of a step and the learning rate isn't falling.

    Gradient noise moves the weights in proportion to the learning rate, so a falling rate reduces the same noise as
    importance sampling. Importance sampling then mainly fits the hardest samples, which lowers the training loss and
    raises the test loss. Therefore the rate must be at least 0.99 of the largest rate so far to open the gate, and 0.95
    to keep it open. If a few samples have nearly all of the gradient, for example where a class is rare, uniform
    batches contain too few of them at any rate. A variance gain of 25, which is possible only if samples are drawn from
    all of the data, indicates this; the rate must then be at least 0.8.

    A `GateContext` may require a higher variance gain and a number of epochs before the gate opens. If a cost is due at
    the start of an epoch, it is divided by the steps left in `fit`. An open gate closes when the variance gain falls
    below 0.95 of the cost, or below 0.95 of 25 at a low rate. This hysteresis prevents that noise in the signals opens
    and closes the gate repeatedly.
    """

    def _decide(self, signals: Signals) -> bool:
        gain, context = signals.trusted_gain, self.context
        if self.satisfied:
            is_worthwhile, min_rate = gain > HYSTERESIS * context.cost, CLOSING_RATE
        else:
            has_waited = context.epochs_done >= context.required_epochs
            is_worthwhile = gain > max(context.opening_cost, context.required_gain) and has_waited
            min_rate = OPENING_RATE
        if gain >= RARE_CLASS_GAIN * (HYSTERESIS if self.satisfied else 1.0):
            min_rate = RARE_CLASS_RATE
        return is_worthwhile and context.relative_learning_rate >= min_rate

    def explain(self, signals: Signals) -> str:
        """Return the variance gain, the cost and the other values that keep the gate closed, as text."""
        context = self.context
        text = f"variance gain {signals.trusted_gain:.2f}, cost {context.cost:.2f}"
        if context.relative_learning_rate < 1.0:
            text += f", learning rate at {context.relative_learning_rate:.0%} of its peak"
        if self.satisfied:
            return text
        if context.required_gain > context.cost:
            text += f", required variance gain {context.required_gain:.2f}"
        if context.opening_cost > context.cost:
            text += f", {context.epochs_left:.2f} epochs left"
        return (
            text
            if context.epochs_done >= context.required_epochs
            else f"{text}, not before the end of epoch {context.required_epochs:g}"
        )


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
        """Return tau and its threshold as text."""
        return f"tau {float(signals.tau):.2f}, threshold {self.threshold:.2f}"


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
