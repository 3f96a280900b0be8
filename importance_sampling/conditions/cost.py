"""Determine the cost of an importance step relative to a uniform step: by arithmetic, or from measured durations.

The rules are this library's own.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from importance_sampling.conditions.base import GateContext

UNIFORM_STEP = 3.0  # cost of a uniform step, in forward passes of a batch: a backward pass counts as two

COSTS = ("arithmetic", "measured")
MIN_DURATIONS = 5  # the smallest number of durations with a reliable median
MAX_DURATIONS = 51  # the number of last durations that the median is taken of


class Cost:
    """The cost of a step by arithmetic: 1 + scored / 3 uniform steps, if the step scores `scored` batches.

    It doesn't depend on the machine, so the same seed gives the same weights in every run.

    Attributes:
        is_known: bool, True: the cost is known from the first step on.
        is_measured: bool, False: the cost is computed.

    Example:
        >>> Cost()(3.0)
        2.0
    """

    is_known = True
    is_measured = False

    def __call__(self, scored: float) -> float:
        """Return the cost of a step (uniform step = 1).

        Args:
            scored: float, the number of batches scored per step.
        """
        return 1.0 + scored / UNIFORM_STEP

    def context(self, scored: float, **others: Any) -> GateContext:
        """Return the `GateContext` of steps.

        Args:
            scored: float, the number of batches scored per step.
            others: values of further fields of `GateContext`.
        """
        return GateContext(self(scored), cost_is_known=self.is_known, cost_is_measured=self.is_measured, **others)

    def start(self) -> None:
        """Start a call that takes one or several steps; no effect here."""

    def stop(self, is_importance: bool, steps: int, scored: float) -> None:
        """End a call; no effect here."""

    def pause(self) -> None:
        """Exclude the time until the next call from its duration; no effect here."""


class MeasuredCost(Cost):
    """The cost of a step by measured durations: (importance + scored * scoring) / uniform.

    `uniform` is the duration of a uniform step, `importance` that of an importance step without scoring, and `scoring`
    the additional duration per scored batch; all are medians in seconds. Until five uniform calls have been timed, the
    cost is computed as in `Cost` and the gate stays closed. `importance` and `scoring` are computed in the same way
    until they have been timed; a probe supplies the first value of `scoring`. The first call of each kind is ignored,
    because it includes compilation.

    Attributes:
        is_known: bool, True if the duration of uniform steps is known.
        is_measured: bool, equal to `is_known`.

    Args:
        clock: function that returns seconds; default `time.perf_counter`.

    Example:
        >>> cost = MeasuredCost()
        >>> cost(3.0)  # before the first measurement
        2.0
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._since: float | None = None
        self._uniform, self._importance = Durations(), Durations()  # per step
        self._probes, self._pools = Durations(), Durations()  # per scored batch

    @property
    def is_known(self) -> bool:
        """True if enough uniform steps have been timed."""
        return self._uniform.is_reliable

    is_measured = is_known

    def __call__(self, scored: float) -> float:
        """Return the cost of a step (uniform step = 1).

        Args:
            scored: float, the number of batches scored per step.
        """
        if not self._uniform.is_reliable:
            return super().__call__(scored)
        uniform = self._uniform.median
        step = self._importance.median / uniform if self._importance.is_reliable else 1.0
        known = self._pools if self._pools else self._probes
        scoring = known.median / uniform if known else 1.0 / UNIFORM_STEP
        return step + scored * scoring

    def start(self) -> None:
        """Start a call. Its duration includes the time since the last call ended, unless `pause` was called."""
        if self._since is None:
            self._since = self._clock()

    def stop(self, is_importance: bool, steps: int, scored: float) -> None:
        """End a call and record its duration.

        Args:
            is_importance: bool, True if its steps were importance steps.
            steps: int > 0, the number of steps.
            scored: float, the number of batches scored.
        """
        now = self._clock()
        started, self._since = self._since, now
        if started is None:
            return
        duration = now - started
        if not scored:
            (self._importance if is_importance else self._uniform).add(duration / steps)
        elif self._uniform.is_reliable:
            step = self._importance if is_importance and self._importance.is_reliable else self._uniform
            (self._pools if is_importance else self._probes).add(max(duration - steps * step.median, 0.0) / scored)
        else:
            (self._pools if is_importance else self._probes).skip()

    def pause(self) -> None:
        """Exclude the time until the next call from its duration."""
        self._since = None


class Durations:
    """The last 51 durations of one kind of call without the first one, and their median."""

    def __init__(self) -> None:
        self._last: deque = deque(maxlen=MAX_DURATIONS)
        self._is_first = True

    def add(self, seconds: float) -> None:
        """Add a duration."""
        if not self._is_first:
            self._last.append(seconds)
        self._is_first = False

    def skip(self) -> None:
        """Discard a duration that can't be attributed to steps or scoring. It counts as the first one."""
        self._is_first = False

    def __bool__(self) -> bool:
        return bool(self._last)

    @property
    def is_reliable(self) -> bool:
        """True if there are enough durations for a reliable median."""
        return len(self._last) >= MIN_DURATIONS

    @property
    def median(self) -> float:
        """The median of the durations, in seconds."""
        return float(np.median(self._last))
