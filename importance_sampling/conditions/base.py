"""The base classes of conditions, and the cost and the context of a gate's decision."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from importance_sampling.conditions.signals import Signals, moving_average
from importance_sampling.utils.validation import is_real

UNIFORM_STEP = 3.0  # cost of a uniform step, in forward passes of a batch: a backward pass counts as two
# Steps from one decision of a gate to the next, or more. A probe costs a third of a step by arithmetic: one in 17 steps
# keeps the cost under 2 %.
DECIDE_EVERY = 17
TOO_SHORT = "the training was too short to measure the scores of the samples. Train for more epochs"


def step_cost(scored: float) -> float:
    """Return the cost of a step that also scores batches: 1 + scored / 3 (uniform step = 1).

    The cost is computed by arithmetic, so that it is the same on every machine.

    Args:
        scored: float >= 0, the number of batches scored per step.

    Example:
        >>> step_cost(3.0)
        2.0
    """
    return 1.0 + scored / UNIFORM_STEP


class GateContext(NamedTuple):
    """The context of a gate's decision.

    Attributes:
        cost: float, default 1; the cost of an importance step (uniform step = 1).
        required_gain: float, default 1; the variance gain that must be exceeded for the gate to open.
        required_epochs: float, default 0; the minimum number of epochs before the gate opens.
        base_cost: float, default None, equal to `cost`; the cost of an importance step without regular scoring passes.
        held_out_change: float, default NaN; the recent mean loss of held-out samples minus that of a longer time and
            minus a standard error, see `LossTrend`. NaN if there are no held-out samples.
        loss_ratio: float, default NaN; the training loss divided by the mean loss of held-out samples, plus a standard
            error. NaN if it wasn't measured.
        generalised_share: float, default NaN; how much the loss of held-out samples falls while the training loss falls
            by 1, plus a standard error. NaN if it wasn't measured, or the training loss doesn't fall.
        relative_learning_rate: float in [0, 1], default 1; the learning rate divided by the largest one so far.
        epochs_done: float, default infinity; the number of epochs on the data set so far.
        epochs_left: float, default infinity; the number of epochs left in `fit`.
        is_paid_in_advance: bool, default False; True if the additional cost of an epoch is due at its start.
        required_tau: float >= 1, default 1; the inequality of the scores that is needed for the gate to open.
    """

    cost: float = 1.0
    required_gain: float = 1.0
    required_epochs: float = 0.0
    base_cost: float | None = None
    held_out_change: float = float("nan")
    loss_ratio: float = float("nan")
    generalised_share: float = float("nan")
    relative_learning_rate: float = 1.0
    epochs_done: float = float("inf")
    epochs_left: float = float("inf")
    is_paid_in_advance: bool = False
    required_tau: float = 1.0

    @property
    def opening_cost(self) -> float:
        """The cost of a step if the gate opens now; a cost due at an epoch's start is divided by the steps left."""
        if not self.is_paid_in_advance or self.epochs_left >= 1.0:
            return self.cost
        return 1.0 + (self.cost - 1.0) / self.epochs_left if self.epochs_left > 0 else float("inf")

    @property
    def lowest_cost(self) -> float:
        """The cost of an importance step without regular scoring passes."""
        return self.cost if self.base_cost is None else self.base_cost


class Condition:
    """The base class of conditions. Training uses importance sampling while a condition is satisfied.

    A trainer's gate is a condition that decides by averaged signals, in `observe`; gates implement `_decide` and
    `explain`. Other conditions, such as your own for `ConditionalStartSampler`, decide by scores: they implement
    `update(scores, steps=1)`, which returns `self._set_satisfied(...)`.

    Attributes:
        satisfied: bool, the last decision; False before the first one.
        previously_satisfied: bool, the decision before the last one.
        probes: bool, default True; True if a trainer must score batches for the condition while it is not satisfied.
        needs_held_out: bool, default False; True if the decision depends on the loss of held-out samples.
        rescores: bool, default True; True if the last decision calls for regular scoring passes, where there are any.
        context: `GateContext` of the last decision.
    """

    probes = True
    rescores = True
    needs_held_out = False
    _saved: tuple[str, ...] = ("satisfied", "previously_satisfied")

    def __init__(self) -> None:
        self.satisfied = False
        self.previously_satisfied = False
        self.context = GateContext()

    def observe(self, signals: Signals, context: GateContext | None = None) -> bool:
        """Decide by averaged signals.

        Args:
            signals: `Signals`, moving averages.
            context: `GateContext`, or None (default) to use the context of the last decision.

        Returns:
            bool, `satisfied`.
        """
        self.context = context or self.context
        return self._set_satisfied(self._decide(signals))

    def explain(self, signals: Signals) -> str:
        """Return why importance sampling isn't worth its cost, and the remedy if there is one, for the summary.

        Args:
            signals: `Signals`, moving averages.

        Returns:
            str, which continues "Uniform training throughout: " and has no full stop at its end.
        """
        raise NotImplementedError

    def worth(self, signals: Signals) -> float:
        """Return the value of an importance step in uniform steps; NaN (default) if the condition has no estimate.

        Args:
            signals: `Signals`, moving averages.
        """
        return float("nan")

    def state(self) -> dict[str, np.ndarray]:
        """Return all values that the next decision depends on, as NumPy arrays by name."""
        return {name: np.asarray(getattr(self, name)) for name in self._saved}

    def restore(self, state: dict[str, np.ndarray] | bool) -> None:
        """Set the condition to a saved state.

        Args:
            state: as returned by `state`; or a bool, the value of `satisfied`, if the averages are saved elsewhere.
        """
        if isinstance(state, bool):
            state = {**self.state(), "satisfied": np.asarray(state)}
        for name in self._saved:
            setattr(self, name, state[name].item())

    def restore_decision(self, satisfied: bool, rescores: bool) -> None:
        """Set the last decision to a saved one, if the averages are saved elsewhere.

        Args:
            satisfied, rescores: bool, the attributes as saved.
        """
        self.restore(satisfied)
        self.rescores = rescores

    def _decide(self, signals: Signals) -> bool:
        """Return True if importance sampling is worth its cost."""
        raise NotImplementedError

    def _set_satisfied(self, satisfied: bool) -> bool:
        self.previously_satisfied, self.satisfied = self.satisfied, bool(satisfied)
        return self.satisfied


class ScoreCondition(Condition):
    """The base class of conditions that are satisfied while the average of a statistic exceeds a threshold.

    The exponential moving average starts at the first value. Scores that contain NaN, infinite or negative values, or
    only zeros, don't change it.

    Attributes:
        average: float, NaN before the first value.

    Args:
        threshold: float.
        momentum: float in [0, 1), of the moving average, per step.
        name: the name of the threshold's argument, for error messages.

    Raises:
        ValueError: `threshold` is not a number, or `momentum` is out of its range.
    """

    _saved = (*Condition._saved, "average")

    def __init__(self, threshold: float, momentum: float, name: str):
        super().__init__()
        if not is_real(threshold):
            raise ValueError(f"`{name}` must be a number. Received: {name}={threshold!r}")
        if not is_real(momentum) or not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must be a number in [0, 1). Received: momentum={momentum!r}")
        self.threshold = float(threshold)
        self.momentum = float(momentum)
        self.average = float("nan")

    def update(self, scores: Any, steps: int = 1) -> bool:
        """Update the moving average, and decide.

        Args:
            scores: float `(n,)`, >= 0, of a uniform sample of the data.
            steps: int >= 1, default 1, the number of steps since the last update.

        Returns:
            bool, `satisfied`.
        """
        value = self._statistic(np.asarray(scores, "float64"))
        self.average = float(moving_average(self.average, float(value), self.momentum, steps))
        return self._set_satisfied(self._exceeds(self.average))

    def _exceeds(self, value: float) -> bool:
        return value > self.threshold

    def _statistic(self, scores: np.ndarray) -> float:
        """Return the statistic of float64 scores `(n,)`; NaN if they can't be used."""
        raise NotImplementedError
