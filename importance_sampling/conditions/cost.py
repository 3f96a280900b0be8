"""The cost of an importance step, relative to a uniform step: by arithmetic, or measured by the clock.

Source: this library.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from importance_sampling.conditions.base import Terms

PLAIN_STEP = 3.0  # cost of a uniform step, in forward passes of a batch: a backward pass counts as two

COSTS = ("arithmetic", "measured")
ENOUGH = 5  # number of durations from which a median is reliable
REMEMBERED = 51  # number of durations that a median is taken of


class Cost:
    """The cost by arithmetic: 1 + scored / 3 uniform steps, for a step that scores `scored` batches.

    It doesn't depend on the machine, so the same seed gives the same weights everywhere.

    Example:
        >>> Cost()(3.0)
        2.0
    """

    is_known = True
    is_measured = False

    def __call__(self, scored: float) -> float:
        """Return the cost of a step that scores `scored` batches; a uniform step is 1."""
        return 1.0 + scored / PLAIN_STEP

    def terms(self, scored: float, **others: Any) -> Terms:
        """Return the `Terms` of steps.

        Args:
            scored: float, the number of batches scored per step.
            others: other fields of `Terms`.
        """
        return Terms(self(scored), known=self.is_known, measured=self.is_measured, **others)

    def begin(self) -> None:
        """Start a call of one or several steps."""

    def lap(self, is_open: bool, steps: int, scored: float) -> None:
        """End a call."""

    def pause(self) -> None:
        """Exclude the time until the next call from its duration."""


class MeasuredCost(Cost):
    """The cost by the clock: (open + scored * scoring) / plain, medians of durations in seconds.

    `plain` is the duration of a uniform step, `open` that of an importance step without scoring, and `scoring` the
    additional duration per scored batch. Before five uniform calls have been timed the cost is that by arithmetic, and
    a gate stays closed. Likewise, `open` and `scoring` are those by arithmetic before they have been timed; a probe
    gives the first value of `scoring`. The first call of each kind is ignored, since it includes compilation.

    Args:
        clock: returns seconds; default `time.perf_counter`.

    Example:
        >>> cost = MeasuredCost()
        >>> cost(3.0)  # before the first measurement
        2.0
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._since: float | None = None
        self._plain, self._open = Durations(), Durations()  # per step
        self._probes, self._pools = Durations(), Durations()  # per scored batch

    @property
    def is_known(self) -> bool:
        """True if enough uniform steps have been timed."""
        return self._plain.are_enough

    is_measured = is_known

    def __call__(self, scored: float) -> float:
        """Return the cost of a step that scores `scored` batches; a uniform step is 1."""
        if not self._plain.are_enough:
            return super().__call__(scored)
        plain = self._plain.median
        step = self._open.median / plain if self._open.are_enough else 1.0
        known = self._pools if self._pools else self._probes
        scoring = known.median / plain if known else 1.0 / PLAIN_STEP
        return step + scored * scoring

    def begin(self) -> None:
        """Start a call. The time since the end of the last call counts as part of it, unless `pause` was called."""
        if self._since is None:
            self._since = self._clock()

    def lap(self, is_open: bool, steps: int, scored: float) -> None:
        """End a call and record its duration.

        Args:
            is_open: bool, True if its steps were importance steps.
            steps: int > 0, the number of steps.
            scored: float, the number of batches scored.
        """
        now = self._clock()
        began, self._since = self._since, now
        if began is None:
            return
        took = now - began
        if not scored:
            (self._open if is_open else self._plain).add(took / steps)
        elif self._plain.are_enough:
            step = self._open if is_open and self._open.are_enough else self._plain
            (self._pools if is_open else self._probes).add(max(took - steps * step.median, 0.0) / scored)
        else:
            (self._pools if is_open else self._probes).skip()

    def pause(self) -> None:
        """Exclude the time until the next call from its duration."""
        self._since = None


class Durations:
    """The last durations of one kind of call, without the first one, and their median."""

    def __init__(self) -> None:
        self._last: deque = deque(maxlen=REMEMBERED)
        self._is_first = True

    def add(self, seconds: float) -> None:
        """Add a duration."""
        if not self._is_first:
            self._last.append(seconds)
        self._is_first = False

    def skip(self) -> None:
        """Discard a duration that can't be attributed. It counts as the first one."""
        self._is_first = False

    def __bool__(self) -> bool:
        return bool(self._last)

    @property
    def are_enough(self) -> bool:
        """True if there are enough durations for a reliable median."""
        return len(self._last) >= ENOUGH

    @property
    def median(self) -> float:
        """The median of the durations, in seconds."""
        return float(np.median(self._last))
