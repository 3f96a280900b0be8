"""The base classes of conditions, and the context of a gate's decision."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from importance_sampling.conditions.signals import Signals, moving_average
from importance_sampling.utils.validation import is_real


class Terms(NamedTuple):
    """The context of a gate's decision."""

    cost: float = 1.0  # of an importance step; a uniform step is 1
    growth: float = 1.0  # minimum growth for the gate to open
    passes: float = 0.0  # minimum number of epochs before the gate opens
    rate: float = 1.0  # learning rate divided by the largest learning rate so far
    passed: float = float("inf")  # epochs so far
    left: float = float("inf")  # epochs left in `fit`
    ahead: bool = False  # True if the additional cost of an epoch is due at its start
    known: bool = True  # False if the cost is to be measured and has not been measured yet
    measured: bool = False  # True if the cost was measured

    @property
    def opening_cost(self) -> float:
        """The cost of a step if the gate opens now: costs due at the start are shared by the steps left in `fit`."""
        if not self.ahead or self.left >= 1.0:
            return self.cost
        return 1.0 + (self.cost - 1.0) / self.left if self.left > 0 else float("inf")


class Condition:
    """The base class of conditions. Importance sampling is used while a condition is satisfied.

    A trainer's gate is a condition that decides from averaged signals, in `observe`. Other conditions decide from
    scores, in `update`.

    Attributes:
        satisfied: bool.
        previously_satisfied: bool, the value of `satisfied` before the last update.
        probes: bool, True if a trainer must score batches for the condition while it is not satisfied.
        terms: the `Terms` of the last decision.
    """

    probes = True
    _saved: tuple[str, ...] = ("satisfied", "previously_satisfied")

    def __init__(self) -> None:
        self.satisfied = False
        self.previously_satisfied = False
        self.terms = Terms()

    def observe(self, signals: Signals, terms: Terms | None = None) -> bool:
        """Decide from signals and return `satisfied`.

        Args:
            signals: `Signals`, averaged.
            terms: `Terms`, or None to use those of the last decision.

        Returns:
            bool.
        """
        self.terms = terms or self.terms
        return self._settle(self._decide(signals))

    def explain(self, signals: Signals) -> str:
        """Return the values that the decision depends on as a text, for a trainer's summary."""
        raise NotImplementedError

    def state(self) -> dict[str, np.ndarray]:
        """Return all data that the next decision depends on."""
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

    def _decide(self, signals: Signals) -> bool:
        raise NotImplementedError

    def _settle(self, satisfied: bool) -> bool:
        self.previously_satisfied, self.satisfied = self.satisfied, bool(satisfied)
        return self.satisfied


class ScoreCondition(Condition):
    """Satisfied while the moving average of a statistic of the scores exceeds a threshold.

    The average starts at the first value. Unusable scores (with a NaN, an infinite or a negative number among them, or
    zeros only) don't change it.

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
        """Update the moving average with scores, and decide.

        Args:
            scores: float `(n,)`, of a uniform sample of the data.
            steps: int >= 1, default 1, the number of steps since the last update.

        Returns:
            bool, `satisfied`.
        """
        value = self._statistic(np.asarray(scores, "float64"))
        self.average = float(moving_average(self.average, float(value), self.momentum, steps))
        return self._settle(self._exceeds(self.average))

    def _exceeds(self, value: float) -> bool:
        return value > self.threshold

    def _statistic(self, scores: np.ndarray) -> float:
        raise NotImplementedError
