"""Shows how far a comparison is: on a terminal one line that is written over, elsewhere a line a finished way."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TextIO

from importance_sampling.comparison.clock import Clock


class Progress:
    """What is shown of a task's runs.

    Args:
        task: str, its name.
        unit: of the test error.
        to: where to; None: standard error.
    """

    def __init__(self, task: str, unit: str = "%", to: TextIO | None = None):
        self.task, self.unit, self.to = task, unit, to or sys.stderr
        self._width = 0

    def measured(self, way: str, seed: int, clock: Clock) -> None:
        """A measurement of a way that is under way."""
        if self.to.isatty():
            self._over(f"{self.task}, seed {seed}, {way}: {told(clock, self.unit)}", end="")

    def done(self, run: Mapping) -> None:
        """A way that has finished."""
        last = run["points"][-1]
        self._over(
            f"{self.task}, seed {run['seed']}, {run['way']}: done, {run['steps']} steps in {run['seconds']:.1f} s, "
            f"training loss {last['train_loss']:.4g}, test error {last['test_error']:.2f} {self.unit}",
            end="\n",
        )

    def _over(self, line: str, end: str) -> None:
        width, self._width = self._width, 0 if end else len(line)
        start = "\r" if self.to.isatty() else ""
        self.to.write(f"{start}{line:{width}}{end}")
        self.to.flush()


def told(clock: Clock, unit: str = "%") -> str:
    """Where a clock stands, and what it measured last."""
    last = clock.points[-1]
    return (
        f"{clock.spent:.3g} of {clock.budget:g} {clock.by}, training loss {last.train_loss:.4g}, "
        f"test error {last.test_error:.2f} {unit}"
    )
