"""Importance steps from pools that are taken in a part of the training only, in turn with uniform steps.

Source: `should_selective_backprop` of MosaicML's Composer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from importance_sampling.data.batches import PeekableBatches
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.strategies.base import StepResult
from importance_sampling.strategies.pool import PoolStrategy


class SelectionSchedule(NamedTuple):
    """When samples are selected.

    Attributes:
        start, end: float in [0, 1], fractions of the training between which samples are selected.
        interrupt: int >= 0; every `interrupt`-th step of an epoch is a uniform step. 0: none.
    """

    start: float
    end: float
    interrupt: int

    def is_active(self, progress: float, step: int) -> bool:
        """Return True if a step selects samples.

        Args:
            progress: float in [0, 1), the fraction of the training before the step.
            step: int, the number of the step in its epoch, from 0 on.

        Example:
            >>> schedule = SelectionSchedule(0.5, 0.9, 2)
            >>> schedule.is_active(0.5, 0), schedule.is_active(0.5, 1), schedule.is_active(0.9, 0)
            (True, False, False)
        """
        is_interrupted = self.interrupt > 0 and (step + 1) % self.interrupt == 0
        return self.start <= progress < self.end and not is_interrupted


class ScheduledPoolStrategy(PoolStrategy):
    """Takes importance steps from pools where a schedule has them, and uniform steps elsewhere.

    With several steps per execution, the schedule counts executions instead of steps. The progress within an epoch is
    known for data of known length.

    Args:
        schedule: a `SelectionSchedule`.
        arguments, options: as for `PoolStrategy`.
    """

    needs_probes = False  # its uniform steps are those of the schedule, not of a gate

    def __init__(self, schedule: SelectionSchedule, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._schedule = schedule
        self._epoch = self._executions = self._steps_done = 0

    def use(self, plan: FitPlan) -> None:
        """Set the data of a `fit`."""
        super().use(plan)
        self.begin_epoch(plan.arguments.get("initial_epoch") or 0)

    def begin_epoch(self, epoch: int) -> int:
        """Count the steps of a new epoch."""
        self._epoch = epoch
        self._executions = self._steps_done = 0
        return 0

    def step(self, n: int, batches: PeekableBatches, steps_left: float, with_draws: bool) -> StepResult | None:
        """Take up to n importance steps; None if the schedule has uniform ones."""
        per_epoch = self.plan.arguments["steps_per_epoch"] or self.plan.batches_per_pass
        within = self._steps_done / per_epoch if per_epoch else 0.0
        progress = (self._epoch + within) / self.plan.arguments["epochs"]
        is_active = self._schedule.is_active(progress, self._executions)
        self._executions += 1
        self._steps_done += n
        return super().step(n, batches, steps_left, with_draws) if is_active else None
