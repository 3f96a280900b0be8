"""What a comparison shows while it runs: a progress bar on a terminal and in notebooks, and lines in the log."""

from __future__ import annotations

import logging
import math
import sys

import keras

from importance_sampling.comparison.clock import Clock
from importance_sampling.comparison.figure import LOSS, Figure

logger = logging.getLogger("importance_sampling.comparison")


class Progress:
    """Shows the progress of all runs in Keras's progress bar, with the latest figure of each way, and logs it.

    Args:
        ways: the names of the ways.
        seeds: int, the number of seeds.
        budget: float, of each run.
        is_shown: bool, whether there is a bar. The log doesn't depend on it.
        by: "seconds", "cost" or "epochs", the unit of the budget.
        figure: `Figure` by which the ways are judged.
    """

    def __init__(
        self,
        ways: list[str],
        seeds: int,
        budget: float,
        is_shown: bool,
        by: str = "seconds",
        figure: Figure = LOSS,
    ):
        self._budget, self._figure = budget, figure
        self._spent = dict.fromkeys(ways, 0.0)
        self._bar = keras.utils.Progbar(100, stateful_metrics=ways, unit_name="percent") if is_shown else None
        self._runs, self._finished = seeds * len(ways), 0
        logger.info(
            "Comparing %s: %d runs with %s of %g %s each. Evaluation takes additional time.",
            ", ".join(ways),
            self._runs,
            "one seed" if seeds == 1 else f"{seeds} seeds",
            budget,
            by,
        )

    def update(self, way: str, seed: int, clock: Clock) -> None:
        """Show the latest measurement of a run."""
        self._spent[way] = seed - 1 + min(clock.spent / self._budget, 1.0)
        if self._bar is not None:
            percent = math.floor(100 * sum(self._spent.values()) / self._runs)
            self._bar.update(max(percent, 1), [(way, clock.points[-1][self._figure.key])])

    def finish(self, way: str, seed: int, clock: Clock) -> None:
        """Log a finished run."""
        self._finished += 1
        logger.info(
            "Run %d of %d has finished: %s with seed %d, %s %.4g after %d steps in %.3g seconds%s.",
            self._finished,
            self._runs,
            way,
            seed,
            self._figure.name,
            clock.points[-1][self._figure.key],
            clock.steps,
            clock.seconds,
            ", stopped early" if clock.stopped_early else "",
        )


def is_shown() -> bool:
    """Return True on a terminal and in notebooks."""
    return sys.stdout.isatty() or "ipykernel" in sys.modules
