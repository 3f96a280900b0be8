"""The default gate of trainers: the value of an importance step against its cost. Source: this library."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from importance_sampling.conditions.base import TOO_SHORT, Condition
from importance_sampling.conditions.signals import Signals


class Thresholds(NamedTuple):
    """What the default gate requires to open, or to stay open.

    Attributes:
        value: the value of a step by the first rule, divided by its cost. An importance step takes a few per cent
            longer than a uniform step of the same cost.
        share: how much the loss of held-out samples falls while the training loss falls by 1: most of the fall is one
            of held-out samples too. A ratio of two small changes varies much, hence the large difference.
        loss_ratio: the training loss divided by the loss of held-out samples, of which it is the larger part.
        tau: tau, divided by what the context requires.
        learning_rate: the learning rate, divided by the largest one so far.
    """

    value: float
    share: float
    loss_ratio: float
    tau: float
    learning_rate: float


OPENING = Thresholds(value=1.1, share=0.5, loss_ratio=0.5, tau=1.0, learning_rate=0.99)
STAYING = Thresholds(value=1.05, share=0.25, loss_ratio=0.95 * 0.5, tau=0.95, learning_rate=0.95)
STAYING_GAIN = 0.95  # the variance gain by the second rule, divided by the cost, to stay open


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
        stays_noisy = self.satisfied and self.rescores
        stays_learning = self.satisfied and not self.rescores
        is_noisy = self._is_noisy(signals, STAYING if stays_noisy else OPENING)
        is_learning = not is_noisy and self._is_learning(signals.trusted_gain, STAYING if stays_learning else OPENING)
        self.rescores = is_noisy
        return is_noisy or is_learning

    def _is_learning(self, gain: float, required: Thresholds) -> bool:
        """Return True if the first rule holds."""
        if required is OPENING and self.context.epochs_left < 1.0:
            return False
        is_known = not np.isnan(self.context.held_out_change)
        return self._learns_faster(gain, required) and is_known and not self._memorises(required)

    def _learns_faster(self, gain: float, required: Thresholds) -> bool:
        """Return True if a step is worth its cost by the first rule."""
        return step_value(gain) > required.value * self.context.lowest_cost

    def _memorises(self, required: Thresholds) -> str:
        """Return why a closer fit of the training samples wouldn't help on new ones; empty if it would."""
        context = self.context
        if context.held_out_change > 0:
            return "the loss of held-out samples no longer falls"
        if context.loss_ratio < required.loss_ratio:
            return f"the training loss is only {context.loss_ratio:.0%} of the loss of held-out samples"
        if context.generalised_share < required.share:
            if context.generalised_share <= 0:
                return "the loss of held-out samples doesn't fall with the training loss"
            return (
                f"the loss of held-out samples falls by only {context.generalised_share:.0%} of the fall of the "
                "training loss"
            )
        return ""

    def _is_noisy(self, signals: Signals, required: Thresholds) -> bool:
        """Return True if the second rule holds."""
        is_open, has_waited = self.satisfied, self.context.epochs_done >= self.context.required_epochs
        # Steps by the first rule draw by older scores: what they measured doesn't count.
        gain = signals.gain if is_open and required is OPENING else signals.trusted_gain
        is_rate_kept = self.context.relative_learning_rate >= required.learning_rate
        is_in_time = has_waited or required is STAYING
        return self._reduces_noise(gain, signals.tau, required) and is_in_time and is_rate_kept

    def _reduces_noise(self, gain: float, tau: float, required: Thresholds) -> bool:
        """Return True if a step is worth its cost by the second rule, at a learning rate that doesn't fall."""
        context = self.context
        needed = self._opening_gain if required is OPENING else STAYING_GAIN * context.cost
        return gain > needed and not tau < required.tau * context.required_tau

    @property
    def _opening_gain(self) -> float:
        return max(self.context.opening_cost, self.context.required_gain)

    def worth(self, signals: Signals) -> float:
        """Return the value of an importance step in uniform steps, by the rule that the gate is open by."""
        return signals.trusted_gain if self.rescores else step_value(signals.trusted_gain)

    def explain(self, signals: Signals) -> str:
        """Return why the gate is closed, with the remedy if there is one."""
        context, gain = self.context, signals.trusted_gain
        if np.isnan(gain):
            return TOO_SHORT
        reduces_noise = self._reduces_noise(gain, signals.tau, OPENING)
        learns_faster = self._learns_faster(gain, OPENING)
        is_decaying = context.relative_learning_rate < OPENING.learning_rate
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
        if learns_faster and (reason := self._memorises(OPENING)):
            reason += ", so fitting the training samples more closely would hardly help"
            return f"{reason}, and {decay}" if is_decaying else reason
        if learns_faster and context.epochs_done + context.epochs_left < 2:
            return "scores that one epoch measures are used in the next. Train for at least two epochs"
        if learns_faster and not reduces_noise:
            return "importance steps became worth their cost too late in the training to be used. Train for more epochs"
        return decay if reduces_noise else self._explain_equal_scores(gain, signals.tau)

    def _explain_equal_scores(self, gain: float, tau: float) -> str:
        """Return why no step is worth its cost by either rule."""
        context, needed_value = self.context, OPENING.value * self.context.lowest_cost
        if needed_value < 2.0:
            return (
                "the samples are about equally hard: an importance step would be worth "
                f"{_rounded_down(step_value(gain))} uniform steps, and would have to be worth {needed_value:.2f} at "
                f"its cost of {context.lowest_cost:.2f}"
            )
        if tau < context.required_tau:  # the first rule can't hold: a step is worth less than two uniform ones
            return (
                f"the scores differ too little for steps that cost {context.cost:.2f} uniform steps: tau is "
                f"{_rounded_down(float(tau))}, and would have to be {_rounded_up(context.required_tau)}. "
                'Arrays in memory need no such steps with `sampler="reshuffle"`'
            )
        return (
            f"the samples are about equally hard: the variance gain is {gain:.2f}, and would have to be above "
            f"{self._opening_gain:.2f}, at a learning rate that doesn't fall, because a step costs {context.cost:.2f} "
            "uniform steps"
        )


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


def _rounded_up(value: float) -> str:
    """Return a value that is needed with two decimals, not rounded down to one that is too small."""
    return f"{math.ceil(100.0 * value) / 100.0:.2f}"


def _rounded_down(value: float) -> str:
    """Return a value that is too small with two decimals, not rounded up to the one that is needed."""
    return f"{math.floor(100.0 * value) / 100.0:.2f}"
