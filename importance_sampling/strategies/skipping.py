"""Importance steps on the samples that a `SkippingSampler` includes in an epoch, which has fewer steps.

Source: [Q24] Qin et al., InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning, ICLR 2024
(arXiv 2303.04947), for the weights and the full epochs at the end.
"""

from __future__ import annotations

import math
from typing import Any

from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.samplers.base import Drawn
from importance_sampling.strategies.indexed import IndexedStrategy


def is_full_epoch(epoch: int, epochs: int, full_epochs: float) -> bool:
    """Return True for the last epochs of a `fit`, which have all samples.

    Args:
        epoch: int, from 0 on.
        epochs: int, the number of epochs of the `fit`.
        full_epochs: float in [0, 1), the fraction of full epochs, rounded up.

    Example:
        >>> [is_full_epoch(epoch, 8, 0.125) for epoch in (6, 7)], is_full_epoch(8, 10, 0.125)
        ([False, True], True)
    """
    return epoch >= epochs - math.ceil(full_epochs * epochs - 1e-9)


def steps_of_epoch(included: int, rows: int, epoch_steps: int, batch_size: int) -> int:
    """Return the number of steps of an epoch from which samples were left out.

    Args:
        included: int, the number of samples in the epoch.
        rows: int, the number of all samples.
        epoch_steps: int, the steps of a full epoch; fewer than a pass over the data with `steps_per_epoch`.
        batch_size: int.

    Example:
        >>> steps_of_epoch(48, 100, 7, 16), steps_of_epoch(100, 100, 7, 16), steps_of_epoch(48, 100, 4, 16)
        (3, 7, 2)
    """
    return min(math.ceil(included / batch_size), math.ceil(epoch_steps * included / rows))


class SkippingStrategy(IndexedStrategy):
    """Trains on the samples that a `SkippingSampler` includes in an epoch, and ends the epoch with the last of them.

    The gradient's weights are the sampler's unbiased weights times N / K, where K of N samples are included: in K / N
    of the steps, an epoch's weighted gradients then sum to those of all samples.

    Args:
        full_epochs: float in [0, 1), the fraction of full epochs at the end of a `fit`.
        arguments, options: as for `IndexedStrategy`; `make_sampler` returns a `SkippingSampler`.
    """

    draws_by_score = False

    def __init__(self, full_epochs: float, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._full_epochs = full_epochs
        self._share = 1.0  # of all samples in the current epoch
        self._begun_epochs = self._planned_steps = 0  # begun and planned in the current `fit`

    def use(self, plan: FitPlan) -> None:
        """Set the data of a `fit`."""
        super().use(plan)
        self._share = 1.0
        self._begun_epochs = self._planned_steps = 0

    def begin_epoch(self, epoch: int) -> int:
        """Draw the samples of an epoch by the losses measured so far; return the number of its steps."""
        self.get_sampler()
        self.update_sampler()
        is_full = is_full_epoch(epoch, self.plan.arguments["epochs"], self._full_epochs)
        included, rows = self.sampler.begin_epoch(self.batch_size, is_full), len(self.rows)
        steps = steps_of_epoch(included, rows, self.plan.full_epoch_steps, self.batch_size)
        self._share = included / rows
        self._begun_epochs += 1
        self._planned_steps += steps
        return steps

    def figures(self) -> dict[str, float]:
        """Return the share of all samples that the current epoch has."""
        return {"kept": self._share}

    def describe(self, name: str, importance_steps: int, steps: int) -> str:
        """Return the summary: the share of steps that was skipped."""
        full = self._begun_epochs * self.plan.full_epoch_steps
        epochs = f"{self._begun_epochs} epoch{'s' * (self._begun_epochs > 1)}"
        if self._planned_steps < full:
            share = 1 - self._planned_steps / full
            return f"{name} skipped {share:.0%} of the steps of {epochs}: {self._planned_steps} instead of {full}."
        return (
            f"{name} skipped nothing in {epochs} ({steps} steps): samples are skipped by the losses of an earlier "
            f"epoch, and the last {self._full_epochs:.1%} of the epochs of a `fit` have all samples."
        )

    def _draw(self, n: int) -> tuple[list[Drawn], bool]:
        planned = self.sampler.samples_planned
        sizes = [self.batch_size] * min(planned // self.batch_size, n) or [planned]
        draws = [self.sampler.draw(size) for size in sizes]
        return [drawn._replace(weights=drawn.weights / self._share) for drawn in draws], False
