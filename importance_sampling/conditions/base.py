"""What conditions have in common: what they say, how they are shown scores or signals, what they remember.

A condition is shown scores by whoever has them and says whether to sample by importance. It computes no scores.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from importance_sampling.conditions.signals import Signals, moving_average
from importance_sampling.datasets.base import is_real


class Terms(NamedTuple):
    """What signals are held against."""

    cost: float = 1.0  # of an importance step, in plain ones
    growth: float = 1.0  # the least that is asked for to begin
    passes: float = 0.0  # over the data, the least that there must have been to begin
    rate: float = 1.0  # the learning rate over the largest so far
    passed: float = float("inf")  # passes over the data so far
    left: float = float("inf")  # passes that are left of `fit`
    ahead: bool = False  # whether what a pass costs more is spent as it begins
    known: bool = True  # whether the cost is, if it is to be measured
    measured: bool = False  # whether the cost was measured

    @property
    def opening_cost(self) -> float:
        """What a step costs if importance sampling begins now: what is spent ahead has less than a pass to pay."""
        if not self.ahead or self.left >= 1.0:
            return self.cost
        return 1.0 + (self.cost - 1.0) / self.left if self.left > 0 else float("inf")


class Condition:
    """Whether importance sampling is on.

    A trainer shows averaged signals to its gate, by `observe`; scores are shown by `update`, to those that have it.

    Attributes:
        satisfied: bool, whether it is.
        previously_satisfied: bool, what it was before the last update.
        probes: whether, as a gate, it needs to see scores while closed.
        terms: `Terms`, as observed last.
    """

    probes = True
    _saved: tuple[str, ...] = ("satisfied", "previously_satisfied")

    def __init__(self) -> None:
        self.satisfied = False
        self.previously_satisfied = False
        self.terms = Terms()

    def observe(self, signals: Signals, terms: Terms | None = None) -> bool:
        """Decide anew, on the terms given or as they were; returns `satisfied`."""
        self.terms = terms or self.terms
        return self._settle(self._decide(signals))

    def explain(self, signals: Signals) -> str:
        """In words, what the condition compares."""
        raise NotImplementedError

    def state(self) -> dict[str, np.ndarray]:
        """Everything that the next decision depends on."""
        return {name: np.asarray(getattr(self, name)) for name in self._saved}

    def restore(self, state: dict[str, np.ndarray] | bool) -> None:
        """Go on from what `state` returned, or from `satisfied` alone, where somebody else keeps the averages."""
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
    """On while the moving average of a statistic of the scores exceeds a threshold.

    The average starts at the first value measured; scores of no use (a NaN, a negative, zeros alone) measure nothing.

    Attributes:
        average: float, NaN until something was measured.

    Args:
        threshold: float.
        momentum: float in [0, 1), of the average, per step.
        name: the threshold's, for the error.

    Raises:
        ValueError: `threshold` is not a number, or `momentum` is out of range.
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
        """Take scores into account and decide anew.

        Args:
            scores: float `(n,)`, of a fair sample of the data.
            steps: int >= 1, how many steps ago the last ones were shown.

        Returns:
            `satisfied`.
        """
        value = self._statistic(np.asarray(scores, "float64"))
        self.average = float(moving_average(self.average, float(value), self.momentum, steps))
        return self._settle(self._exceeds(self.average))

    def _exceeds(self, value: float) -> bool:
        return value > self.threshold

    def _statistic(self, scores: np.ndarray) -> float:
        raise NotImplementedError
