"""What an importance step costs, in plain ones: by arithmetic, or as this machine takes them.

No source; it is this library's own. The loop tells what every call took; nothing is decided here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from importance_sampling.conditions.base import Terms

PLAIN_STEP = 3.0  # a plain step's cost in forward passes of a batch: a backward pass counts as two

COSTS = ("arithmetic", "measured")
ENOUGH = 5  # durations, for a median to be trusted
REMEMBERED = 51


class Cost:
    """By arithmetic: 1 + scored / 3, of a step for which so many batches are scored.

    It is the same on any machine, so that the same seed gives the same weights.

    Example:
        >>> Cost()(3.0)
        2.0
    """

    is_known = True
    is_measured = False

    def __call__(self, scored: float) -> float:
        """The cost of a step for which `scored` batches are scored, in plain steps."""
        return 1.0 + scored / PLAIN_STEP

    def terms(self, scored: float, **others: Any) -> Terms:
        """What the signals of such steps are held against.

        Args:
            scored: float, how many batches are scored for a step.
            others: further fields of `Terms`.
        """
        return Terms(self(scored), known=self.is_known, measured=self.is_measured, **others)

    def begin(self) -> None:
        """A call begins."""

    def lap(self, is_open: bool, steps: int, scored: float) -> None:
        """A call is over."""

    def pause(self) -> None:
        """What comes before the next call is none of the last one's time."""


class MeasuredCost(Cost):
    """By the clock: open + scored * scoring, medians of what calls took from end to end, over that of plain steps.

    `open` is what a step takes in which nothing was scored, and `scoring` what a batch that was scored added to its
    call. It isn't known until there are five plain calls, and a gate waits for them, if it was open already too. What
    else isn't known is as by arithmetic; a probe tells what scoring takes before the first open step does. The first
    call of each kind is left out: it was compiled.

    Args:
        clock: returns seconds.

    Example:
        >>> cost = MeasuredCost()
        >>> cost(3.0)  # nothing was measured yet
        2.0
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._since: float | None = None
        self._plain, self._open = Durations(), Durations()  # of a step
        self._probes, self._pools = Durations(), Durations()  # of a batch that was scored

    @property
    def is_known(self) -> bool:
        """Whether there is a plain step to hold others against."""
        return self._plain.are_enough

    is_measured = is_known

    def __call__(self, scored: float) -> float:
        """The cost of a step for which `scored` batches are scored, in plain steps."""
        if not self._plain.are_enough:
            return super().__call__(scored)
        plain = self._plain.median
        step = self._open.median / plain if self._open.are_enough else 1.0
        known = self._pools if self._pools else self._probes
        scoring = known.median / plain if known else 1.0 / PLAIN_STEP
        return step + scored * scoring

    def begin(self) -> None:
        """A call begins: what came since the last one is its own, unless there was a pause."""
        if self._since is None:
            self._since = self._clock()

    def lap(self, is_open: bool, steps: int, scored: float) -> None:
        """A call is over: take note of what it took.

        Args:
            is_open: bool, whether its steps were importance steps.
            steps: int > 0, how many it took.
            scored: float, batches that were scored in it.
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
        """What comes before the next call is none of the last one's time."""
        self._since = None


class Durations:
    """The last durations of a kind but for the first of all, and their median."""

    def __init__(self) -> None:
        self._last: deque = deque(maxlen=REMEMBERED)
        self._is_first = True

    def add(self, seconds: float) -> None:
        """Take one in."""
        if not self._is_first:
            self._last.append(seconds)
        self._is_first = False

    def skip(self) -> None:
        """One went by that can't be told; it may have been the first."""
        self._is_first = False

    def __bool__(self) -> bool:
        return bool(self._last)

    @property
    def are_enough(self) -> bool:
        """Whether the median is one to be trusted."""
        return len(self._last) >= ENOUGH

    @property
    def median(self) -> float:
        """Of the durations, in seconds."""
        return float(np.median(self._last))
