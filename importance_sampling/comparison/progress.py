"""Progress output of a comparison: one line that is updated on a terminal, otherwise one line per finished way."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TextIO

from importance_sampling.comparison.clock import Clock


class Progress:
    """Prints the progress of the runs of a task.

    Args:
        task: str, the name of the task.
        unit: str, the unit of the test error, default "%".
        stream: text stream to write to; None (default) means standard error.
    """

    def __init__(self, task: str, unit: str = "%", stream: TextIO | None = None):
        self.task, self.unit, self.stream = task, unit, stream or sys.stderr
        self._width = 0

    def show_measurement(self, way: str, seed: int, clock: Clock) -> None:
        """Print the latest measurement of an unfinished run; only on a terminal."""
        if self.stream.isatty():
            self._overwrite(f"{self.task}, seed {seed}, {way}: {status(clock, self.unit)}", end="")

    def show_result(self, run: Mapping) -> None:
        """Print the result of a finished run."""
        last = run["points"][-1]
        self._overwrite(
            f"{self.task}, seed {run['seed']}, {run['way']}: done, {run['steps']} steps in {run['seconds']:.1f} s, "
            f"training loss {last['train_loss']:.4g}, test error {last['test_error']:.2f} {self.unit}",
            end="\n",
        )

    def _overwrite(self, line: str, end: str) -> None:
        width, self._width = self._width, 0 if end else len(line)
        start = "\r" if self.stream.isatty() else ""
        self.stream.write(f"{start}{line:{width}}{end}")
        self.stream.flush()


def status(clock: Clock, unit: str = "%") -> str:
    """Return the spent budget and the latest measurement of a clock as text."""
    last = clock.points[-1]
    return (
        f"{clock.spent:.3g} of {clock.budget:g} {clock.by}, training loss {last.train_loss:.4g}, "
        f"test error {last.test_error:.2f} {unit}"
    )
