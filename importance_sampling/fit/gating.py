"""When the gate of a trainer decides, and what it decides by.

While the gate is closed, a batch is scored now and then, a *probe*, which is wasted if the gate stays closed. While it
is open, importance steps measure what it needs. The schedules are this library's own.
"""

from __future__ import annotations

import math

import keras

from importance_sampling.conditions import Condition, GateContext
from importance_sampling.conditions.base import DECIDE_EVERY
from importance_sampling.core import eligibility
from importance_sampling.core.gradients import learning_rate
from importance_sampling.core.scoring import Scored
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.progress import Progress
from importance_sampling.fit.state import TrainerState
from importance_sampling.strategies.base import Strategy

PROBES_PER_INTERVAL = 2  # before the interval is doubled
LONGEST = 32  # times the first interval


class Gating:
    """Asks a gate in time, and keeps its decisions in the trainer's state.

    Args:
        model: the user's model.
        gate: the trainer's condition.
        plan: the data.
        state: the trainer's state.
        progress: of the `fit`.

    Attributes:
        reason: str or None; why importance sampling is impossible, which may turn out within the `fit`.
        signals: the averaged signals as read last.
        closing_reason: str, why the gate closed the last time; empty if it didn't.
    """

    def __init__(
        self,
        model: keras.Model,
        gate: Condition,
        plan: FitPlan,
        state: TrainerState,
        progress: Progress,
    ):
        self.model = model
        self.gate = gate
        self.reason = plan.reason
        self.plan = plan
        self.state = state
        self.progress = progress
        state.decision.copy_from(gate)  # for a state saved before the first decision
        self.restart()

    @property
    def is_possible(self) -> bool:
        """True if the gate can open in this `fit`."""
        return self.gate.probes and self.plan.source is not None and self.reason is None

    @property
    def is_open(self) -> bool:
        """True if importance steps are taken."""
        return self.is_possible and self.gate.satisfied

    def restart(self) -> None:
        """Begin a `fit`, or continue it after the trainer's state was restored within it."""
        self.closing_reason = ""
        self.read_signals()

    def release(self) -> None:
        """Drop all references to the data."""
        self.plan = FitPlan({})

    def read_signals(self) -> None:
        """Read the averaged signals from the device."""
        self.signals = self.state.signals

    def set_first_context(self, strategy: Strategy) -> None:
        """Set the context that the summary shows if no decision falls due."""
        self.gate.context = self._context(strategy, learning_rate(self.model.optimizer))

    def probe_is_due(self, strategy: Strategy) -> bool:
        """Return True if the next batch is to be scored for the gate.

        A probe is due at the beginning, until a first value is measured, at the end of the epochs that the gate
        requires, and after the steps of `steps_between_probes`.
        """
        if not (self.is_possible and strategy.needs_probes):
            return False
        counters, last, required = self.state.counters, self.state.decision, self.gate.context.required_epochs
        interval = steps_between_probes(last.closed_probes)
        if self.model.steps_per_execution > 1:  # most executions are left to Keras's own compiled loop
            interval = max(interval, 4 * self.model.steps_per_execution)
        is_due = (
            last.steps_since_probe >= interval
            or counters.steps == 0
            or math.isnan(self.signals.tau)
            or _passed(last.epochs_at_decision) < required <= _passed(counters.epochs_on_dataset)
        )
        return is_due and eligibility.is_built(self.model)

    def probe(self, strategy: Strategy, batch: tuple) -> Scored:
        """Score a batch and let the gate decide.

        Args:
            strategy: of the importance steps.
            batch: `(x, y, sample_weight)`.

        Returns:
            The scores, outputs and losses.

        Raises:
            Unsupported: samples can't be weighted.
        """
        strategy.check(batch)
        if 0 < 2 * self.state.counters.last_importance_step <= self.state.counters.steps:
            # Training is twice as long as when importance steps measured their discount last. Networks change less and
            # less, and so do scores, so the discount rises: a gate that it closed may try again.
            self.state.reset_discount()
        scored = strategy.probe(batch, max(self.state.decision.steps_since_probe, 1))
        self._decide(strategy)
        return scored

    def measure_held_out(self, strategy: Strategy) -> float:
        """Measure the loss of held-out samples if it is due; return the cost in forward passes of a batch."""
        cost = self._measure_if_due(strategy)
        if len(strategy.held_out.samples):
            self.state.losses.release_if_due(self.progress.share_done)
        return cost

    def decide_if_due(self, strategy: Strategy) -> None:
        """Let the gate decide by what importance steps have measured, if it is due."""
        if self.state.decision.steps_since_probe >= DECIDE_EVERY:
            self._decide(strategy)

    def record_validation_loss(self, strategy: Strategy, logs: dict) -> None:
        """Record the validation loss in the logs of an epoch, if there is one, beside the training loss."""
        if self.plan.has_validation_data and "val_loss" in logs:
            training_loss = 0.0 if self.plan.is_weighted else float(logs.get("loss", 0.0))  # weights change this only
            gate_is_open, only_here = self.state.decision.gate_is_open, strategy.compared_samples() is None
            self.state.losses.record_validation(float(logs["val_loss"]), training_loss, gate_is_open, only_here)

    def _measure_if_due(self, strategy: Strategy) -> float:
        losses, steps = self.state.losses, self.state.counters.steps
        compared = strategy.compared_samples()
        if compared is None:
            return 0.0
        cost = strategy.cost_of(scored=len(compared.held_out) + len(compared.others))
        if not losses.is_due(steps, cost):
            return 0.0
        held_out, others = (compared.rows.losses(rows) for rows in (compared.held_out, compared.others))
        losses.record_within_epoch(compared.kind, held_out, others, steps)
        return cost

    def _decide(self, strategy: Strategy) -> None:
        """Read the averaged signals and let the gate decide."""
        self.read_signals()
        rate = learning_rate(self.model.optimizer)
        last = self.state.decision
        last.peak_learning_rate = max(rate, last.peak_learning_rate)
        self.gate.observe(self.signals, self._context(strategy, rate))
        last.record(self.gate, self.signals.tau, self.state.counters.epochs_on_dataset)
        if self.gate.previously_satisfied and not self.gate.satisfied:
            self.closing_reason = self.gate.explain(self.signals)

    def _context(self, strategy: Strategy, rate: float) -> GateContext:
        """Return the context of a decision at a learning rate."""
        rate = self.state.decision.relative_learning_rate(rate)
        context = strategy.gate_context()._replace(relative_learning_rate=rate)
        if not self.plan.batches_per_pass:
            return context
        return context._replace(
            epochs_done=_passed(self.state.counters.epochs_on_dataset),
            epochs_left=self.progress.steps_left / self.plan.batches_per_pass,
            **self.state.losses.context(self.plan.has_validation_data, bool(len(strategy.held_out.samples))),
        )


def steps_between_probes(closed_probes: int) -> int:
    """Return the number of uniform steps between two probes.

    The first interval is 17 steps; it doubles after every two probes that left the gate closed. By arithmetic a probe
    is cheap, but it takes about a millisecond, in which small models take two steps.

    Args:
        closed_probes: int >= 0, how many probes in a row left the gate closed.

    Returns:
        int, at most 544.

    Example:
        >>> steps_between_probes(0), steps_between_probes(2), steps_between_probes(5), steps_between_probes(100)
        (17, 34, 68, 544)
    """
    return DECIDE_EVERY * min(2 ** (closed_probes // PROBES_PER_INTERVAL), LONGEST)


def _passed(epochs: float) -> float:
    """Return a number of epochs, a sum of fractions, without its rounding error."""
    return round(epochs, 6)
