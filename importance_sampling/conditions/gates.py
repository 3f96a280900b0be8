"""The gates of trainers: variance gain against cost, and the published rule on tau.

Source: [KF18] Katharopoulos & Fleuret, Not All Samples Are Created Equal, 2018 (arXiv 1803.00942), section 3.3, for the
rule on tau; the default gate is this library's own.
"""

from __future__ import annotations

import math

import numpy as np

from importance_sampling.conditions.base import Condition, ScoreCondition
from importance_sampling.conditions.signals import Signals, tau
from importance_sampling.utils.numerics import clean_scores
from importance_sampling.utils.validation import is_real

HYSTERESIS = 0.95  # an open gate closes at 0.95 of the value that is needed to open it
# The value of a step by the first rule, divided by its cost: an importance step takes a few per cent longer than a
# uniform step of the same cost.
OPENING_VALUE = 1.1  # to open
CLOSING_VALUE = 1.05  # to stay open
# Minimum learning rates, divided by the largest learning rate so far.
OPENING_RATE = 0.99  # to open
CLOSING_RATE = 0.95  # to stay open
MIN_LOSS_RATIO = 0.5  # the training loss is the larger part of the loss of held-out samples
# Most of the fall of the training loss is one of held-out samples too. A ratio of two small changes varies much, hence
# the large difference.
OPENING_SHARE, CLOSING_SHARE = 0.5, 0.25
TOO_SHORT = "the training was too short to measure the scores of the samples. Train for more epochs"


class GainCondition(Condition):
    """The default gate: open while a step is worth more uniform steps than it costs, and training still generalises.

    At an unchanged learning rate a smaller variance of the gradient pays in two ways, and each has its own rule. The
    second is preferred where both hold.

    1. *Training still generalises.* A step of the best size for uniform batches loses half of its progress to gradient
       noise, so with a variance gain of G a step is worth 2 - 1/G uniform steps: never more than two. This holds at any
       learning rate. It is worth having while the loss of held-out samples falls (`LossTrend`), by at least half of
       what the training loss falls, and while the training loss is at least half of it. Once the first rises, a closer
       fit of the training samples does harm, which is announced by a smaller and smaller share of the fall; once the
       training loss is small, most of the loss of new samples can't be removed by a closer fit. All three are required
       within a standard error, because a few samples often make up most of a loss. Held-out samples are validation
       data, if `fit` has any; otherwise they are a few training samples, which importance steps leave out in the first
       half of a `fit` (`strategies.held_out`). Steps of this kind take no scoring passes: the scores that they measure
       in an epoch are those that the next one draws by. Hence at least one epoch must be left.
    2. *Gradient noise keeps the loss high.* At a learning rate that doesn't fall, the weights move around a minimum at
       a distance that is proportional to the variance, so a step is worth G uniform steps. A falling rate reduces the
       same noise; the rate must be at least 0.99 of the largest rate so far to open the gate, and 0.95 to keep it open.

    By the first rule, the gate opens where a step is worth more than 1.1 of its cost, and closes below 1.05. For the
    second rule, a `GateContext` may require a number of epochs before the gate opens, a higher variance gain, and more
    unequal scores; a scoring pass that is due when the gate opens is divided by the epochs left in `fit`. It stays open
    by this rule while the variance gain is above 0.95 of the cost, and tau above 0.95 of what was required. By the
    first rule, it closes below 0.95 of the ratio of losses that is needed to open it, and below a half of the share, so
    that noise doesn't open and close it repeatedly.

    Attributes:
        rescores: bool, True if the gate is open by the second rule, which needs scores of the same age.
    """

    rescores = False
    needs_held_out = True

    def _decide(self, signals: Signals) -> bool:
        is_noisy = self._is_noisy(signals)
        is_learning = not is_noisy and self._is_learning(signals.trusted_gain)
        self.rescores = is_noisy
        return is_noisy or is_learning

    def _is_learning(self, gain: float) -> bool:
        """Return True if the first rule holds."""
        context, is_open = self.context, self.satisfied and not self.rescores
        if not is_open and context.epochs_left < 1.0:
            return False
        is_worthwhile = step_value(gain) > (CLOSING_VALUE if is_open else OPENING_VALUE) * context.lowest_cost
        has_memorised = context.loss_ratio < (HYSTERESIS if is_open else 1.0) * MIN_LOSS_RATIO
        memorises = context.generalised_share < (CLOSING_SHARE if is_open else OPENING_SHARE)
        return is_worthwhile and context.held_out_change <= 0.0 and not (has_memorised or memorises)

    def _is_noisy(self, signals: Signals) -> bool:
        """Return True if the second rule holds."""
        context = self.context
        if self.satisfied and self.rescores:
            is_unequal = not signals.tau < HYSTERESIS * context.required_tau
            is_worthwhile, min_rate = signals.trusted_gain > HYSTERESIS * context.cost and is_unequal, CLOSING_RATE
        else:
            # Steps by the first rule draw by older scores: what they measured doesn't count.
            gain = signals.gain if self.satisfied else signals.trusted_gain
            has_waited = context.epochs_done >= context.required_epochs
            required = max(context.opening_cost, context.required_gain)
            is_worthwhile = gain > required and has_waited and not signals.tau < context.required_tau
            min_rate = OPENING_RATE
        return is_worthwhile and context.relative_learning_rate >= min_rate

    def worth(self, signals: Signals) -> float:
        """Return the value of an importance step in uniform steps, by the rule that the gate is open by."""
        return signals.trusted_gain if self.rescores else step_value(signals.trusted_gain)

    def explain(self, signals: Signals) -> str:
        """Return why the gate is closed, with the remedy if there is one."""
        context, gain = self.context, signals.trusted_gain
        if np.isnan(gain):
            return TOO_SHORT
        required = max(context.opening_cost, context.required_gain)
        is_unequal = not signals.tau < context.required_tau
        reduces_noise = gain > required and is_unequal
        learns_faster = step_value(gain) > OPENING_VALUE * context.lowest_cost
        is_decaying = context.relative_learning_rate < OPENING_RATE
        decay = (
            f"the learning rate is at {context.relative_learning_rate:.0%} of its peak, which already removes the "
            "noise that importance sampling would"
        )
        if reduces_noise and not is_decaying:
            return "the gain was measured too late in the training to be used. Train for more epochs"
        if learns_faster and np.isnan(context.held_out_change):
            return (
                "whether a closer fit would help on new samples isn't known: there are no validation data, and the "
                "training samples are too few to hold some out, or already learnt. Pass validation data to `fit`"
            )
        reason = self._memorising_reason() if learns_faster else ""
        if reason:
            return f"{reason}, and {decay}" if is_decaying else reason
        if learns_faster and context.epochs_done + context.epochs_left < 2:
            return "scores that one epoch measures are used in the next. Train for at least two epochs"
        if learns_faster and not reduces_noise:
            return "importance steps became worth their cost too late in the training to be used. Train for more epochs"
        if reduces_noise:
            return decay
        if OPENING_VALUE * context.lowest_cost >= 2.0:  # which no step is worth by the first rule
            if not is_unequal:
                return (
                    f"the scores differ too little for steps that cost {context.cost:.2f} uniform steps: tau is "
                    f"{_rounded_down(float(signals.tau))}, and would have to be {_rounded_up(context.required_tau)}. "
                    'Arrays in memory need no such steps with `sampler="reshuffle"`'
                )
            return (
                f"the samples are about equally hard: the variance gain is {gain:.2f}, and would have to be above "
                f"{required:.2f}, at a learning rate that doesn't fall, because a step costs {context.cost:.2f} "
                "uniform steps"
            )
        return (
            f"the samples are about equally hard: an importance step would be worth {_rounded_down(step_value(gain))} "
            f"uniform steps, and would have to be worth {OPENING_VALUE * context.lowest_cost:.2f} at its cost of "
            f"{context.lowest_cost:.2f}"
        )

    def _memorising_reason(self) -> str:
        """Return why a closer fit of the training samples wouldn't help on new ones; empty if it would."""
        context, wont_help = self.context, "so fitting the training samples more closely would hardly help"
        if context.held_out_change > 0:
            return f"the loss of held-out samples no longer falls, {wont_help}"
        if context.loss_ratio < MIN_LOSS_RATIO:
            return f"the training loss is only {context.loss_ratio:.0%} of the loss of held-out samples, {wont_help}"
        if context.generalised_share < OPENING_SHARE:
            falls = f"falls by only {context.generalised_share:.0%} of the fall of the training loss"
            falls = falls if context.generalised_share > 0 else "doesn't fall with the training loss"
            return f"the loss of held-out samples {falls}, {wont_help}"
        return ""


def step_value(gain: float) -> float:
    """Return the value of a step in uniform steps, at the learning rate that is best for uniform steps.

    With rate r, curvature h, squared norm m of the full gradient and variance v of the gradient of a uniform batch, a
    step lowers the loss by r m - h r^2 (m + v) / 2. At the best rate r = m / (h (m + v)) the second term is half of the
    first. A variance of v / gain, with m much smaller than v, makes the decrease 2 - 1 / gain times as large.

    Args:
        gain: float > 0, the variance gain.

    Returns:
        float, at most 2.

    Example:
        >>> step_value(1.0), step_value(4.0)
        (1.0, 1.75)
    """
    return 2.0 - 1.0 / gain


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


def _rounded_up(value: float) -> str:
    """Return a value that is needed with two decimals, not rounded down to one that is too small."""
    return f"{math.ceil(100.0 * value) / 100.0:.2f}"


def _rounded_down(value: float) -> str:
    """Return a value that is too small with two decimals, not rounded up to the one that is needed."""
    return f"{math.floor(100.0 * value) / 100.0:.2f}"
