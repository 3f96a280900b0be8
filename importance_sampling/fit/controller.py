"""The function that stands in for `model.train_function` during a trainer's `fit`.

Keras's `fit` calls it once per execution. It takes uniform steps while the gate is closed and importance steps while it
is open; it alone counts steps, notifies listeners and asks the gate.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from importance_sampling import backend
from importance_sampling.conditions import Condition, GateContext
from importance_sampling.conditions.base import DECIDE_EVERY
from importance_sampling.core.eligibility import uniform_training_message
from importance_sampling.core.gradients import learning_rate
from importance_sampling.data.batches import PeekableBatches, count_rows, unpack_batch
from importance_sampling.events import Listeners
from importance_sampling.fit.epoch_end import end_epoch
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.held_out_loss import measure_if_due, note_training, release_held_out_if_due
from importance_sampling.fit.messages import DeferredWarnings
from importance_sampling.fit.probing import discount_is_outdated, gate_context, probe_is_due
from importance_sampling.fit.state import TrainerState
from importance_sampling.strategies.base import StepResult, Strategy
from importance_sampling.strategies.uniform import UniformStrategy
from importance_sampling.utils.errors import Unsupported

EXAMINED = 2  # batches of a stream that determine the usual size: a short batch may come first


class FitController:
    """Decides for every execution between uniform and importance steps.

    Args:
        model: the user's model.
        plan: the data.
        uniform: takes uniform steps.
        strategy: takes importance steps.
        strategy_for: returns the strategy for a batch size, once the batches of a stream have shown it.
        condition: the trainer's condition.
        gate: the same condition, or None to keep the gate closed for the whole `fit`.
        state: the trainer's state.
        listeners: notified of every step.
        deferred: warnings that are shown once Keras has accepted the data.

    Attributes:
        reason: why importance sampling is impossible; it may be found out during the `fit`.
        started_steps: int, the trainer's steps before this `fit`.
        importance_steps: int, the importance steps of this `fit`.
        importance_cost: float, their cost in forward passes of a batch, with all scoring.
        closing_reason: str, why the gate closed the last time; empty if it didn't.
        is_called_by_fit: bool, True if the next call belongs to the `fit` that this controller was made for.
        epoch: int, the current epoch.
        epoch_steps, epoch_importance_steps: int, steps of the current epoch.
        epoch_length: int, the number of steps after which the epoch ends; 0 if Keras sets it.
        signals: the averaged signals as read last.
    """

    def __init__(
        self,
        model: keras.Model,
        plan: FitPlan,
        uniform: UniformStrategy,
        strategy: Strategy,
        strategy_for: Callable[[int], Strategy],
        condition: Condition,
        gate: Condition | None,
        state: TrainerState,
        listeners: Listeners,
        deferred: DeferredWarnings,
    ):
        self.model = model
        self.plan = plan
        self.reason = plan.reason
        self.uniform = uniform
        self.strategy = strategy
        self.strategy_for = strategy_for
        self.condition = condition
        self.gate = gate
        self.state = state
        self.listeners = listeners
        self.deferred = deferred
        self.batch_size = plan.batch_size  # of a stream: None until its batches show it
        self.is_called_by_fit = self.was_called = False
        self.epoch = self.epoch_length = 0
        self.epoch_steps = self.epoch_importance_steps = 0
        self.batches = PeekableBatches()
        self._steps_in_pass = 0
        state.counters.record_decision(condition)  # for a state saved before the first decision
        self._begin_counting()

    def __call__(self, iterator: Iterator) -> dict:
        """Take one execution: `model.steps_per_execution` steps, or the rest of the epoch; return its logs."""
        if not self.is_called_by_fit:
            return self.uniform.keras_function(iterator)  # a callback trains the model inside this `fit`
        self.is_called_by_fit = False
        try:
            self._check_before_training()
            logs = self._execute(iterator)
        except Exception as error:
            if self.plan.source is not None and backend.is_pipeline_error(error):
                self.plan.source.raise_read_error()  # the pipeline hides it behind its own
            raise
        self.deferred.release()
        if 0 < self.epoch_length == self._steps_in_pass < self.plan.batches_per_pass:
            end_epoch(self.model)
        return logs

    def begin_epoch(self, epoch: int) -> None:
        """Reset the figures of the epoch and set its length."""
        self.epoch = epoch
        self.epoch_steps = self.epoch_importance_steps = 0
        self.epoch_length = self.plan.full_epoch_steps if self.gate is None else self.strategy.plan_epoch(epoch)

    def read_signals(self) -> None:
        """Read the averaged signals from the device."""
        self.signals = self.state.signals

    def continue_from_state(self) -> None:
        """Continue after the trainer's state was restored within this `fit`."""
        if self.plan.source is not None and self.strategy.reads_rows:
            self.state.set_dataset(self.plan.source.digest)
        self.state.counters.apply_decision(self.condition)
        self.strategy.close()
        self.state.reset_totals()
        self._begin_counting()

    def check_was_called(self) -> None:
        """Warn if a `fit` that the model defines has trained without Keras's training function."""
        if self.gate is not None and not self.was_called:
            self.reason = (
                f"the `fit` of {type(self.model).__name__} didn't call Keras's training function with the callbacks "
                "that it was given. Pass its arguments on to `super().fit`"
            )
            self.deferred.add(uniform_training_message(self.reason))

    def release(self) -> None:
        """Drop all references to the data at once: Keras's callbacks keep this object until Python collects garbage."""
        source, self.plan, self.strategy_for = self.plan.source, FitPlan({}), None
        self.uniform.release()
        self.batches = PeekableBatches()
        try:
            self.strategy.release()
        finally:
            if source is not None:
                source.release()

    def _check_before_training(self) -> None:
        """Check at the first call what needs a batch of arrays. Earlier, Keras would not have built the model."""
        if not self.was_called and self.gate is not None:
            self.gate.context = self._gate_context(learning_rate(self.model.optimizer))  # if no decision falls due
            if self.batch_size is not None:
                with self._closed_if_unsupported():
                    self.strategy.check_before_training()
        self.was_called = True

    def _execute(self, iterator: Iterator) -> dict:
        if self._begins_pass(iterator):
            self.batches = PeekableBatches(iterator)
            self._steps_in_pass = 0
            self.uniform.begin_pass()
            if self.plan.source is not None:
                self.plan.source.begin_pass(iterator)
        elif backend.DRAWS_BEFORE_STEP:
            self.batches.replace_iterator(iterator)
        n = self._steps_of_execution()
        if n <= 0 and self.batches.taken < self.plan.batches_per_pass:
            raise StopIteration  # importance steps have replaced the rest of the pass
        result = self._importance_step(n) if self.gate is not None and self.gate.satisfied else None
        is_importance = result is not None
        if result is None:
            extra_cost = self._probe_if_due()
            result = self.uniform.step(n, self.batches)
        else:
            extra_cost = measure_if_due(self.strategy, self.state.counters)
            release_held_out_if_due(self.strategy, self.state.counters, self._share_done())
        self._count(result, is_importance, extra_cost)
        if is_importance and self.state.counters.steps_since_probe >= DECIDE_EVERY:
            self._update_gate()
        self.listeners.notify_execution(self.strategy.get_sampler(), result.to_host(), is_importance)
        return result.logs

    def _begin_counting(self) -> None:
        """Count the steps of this `fit` from here on, and read the averaged signals."""
        self.started_steps = self.state.counters.steps
        self.importance_steps = 0
        self.importance_cost, self.closing_reason = 0.0, ""
        self.read_signals()

    def _begins_pass(self, iterator: Iterator) -> bool:
        """Return True if an iterator begins a pass over the data; with `steps_per_epoch` it may last several epochs."""
        if not backend.DRAWS_BEFORE_STEP:
            return iterator is not self.batches.iterator
        is_over = self.epoch_steps == 0
        if self.plan.arguments["steps_per_epoch"]:
            is_over = 0 < self.plan.batches_per_pass <= self._steps_in_pass
        return is_over or self.batches.iterator is None

    def _steps_of_execution(self) -> int:
        """Return how many steps Keras would take in this execution; at most that many if only its iterator knows."""
        steps = self.epoch_length or self.plan.batches_per_pass or math.inf
        return min(self.model.steps_per_execution, steps - self._steps_in_pass)

    def _count(self, result: StepResult, is_importance: bool, extra_cost: float) -> None:
        """Add the steps of an execution to all counters."""
        counters = self.state.counters
        if is_importance:
            if not self.importance_steps and (warning := self.strategy.first_step_warning()):
                self.deferred.add(warning)
            counters.importance_steps += result.steps
            self.importance_steps += result.steps
            self.importance_cost += result.cost + extra_cost
            self.epoch_importance_steps += result.steps - result.uniform_draws
            counters.last_importance_step = counters.steps + result.steps
            if counters.first_importance_step < 0:
                counters.first_importance_step = counters.steps
        note_training(self.plan, counters, is_importance)
        counters.record_steps(result.steps, result.cost + extra_cost)
        if self.plan.batches_per_pass:
            counters.epochs_on_dataset += result.steps / self.plan.batches_per_pass
        self._steps_in_pass += result.steps
        self.epoch_steps += result.steps

    # Importance steps

    def _importance_step(self, n: int) -> StepResult | None:
        """Take up to n importance steps; None if the rest of the epoch isn't enough for one, or they're impossible."""
        with self._closed_if_unsupported():
            if self.batch_size is None or (backend.DRAWS_BEFORE_STEP and not self.plan.source.has_rows):
                if not (examined := self.batches.peek(EXAMINED)):
                    return None
                self._examine(examined)
            return self.strategy.step(n, self.batches, self._steps_left(), self.listeners.needs_draws)
        return None  # unsupported

    def _steps_left(self) -> float:
        """Return the number of steps left in this `fit`."""
        return (self.plan.arguments["epochs"] - self.epoch) * self._steps_per_epoch() - self.epoch_steps

    def _steps_per_epoch(self) -> float:
        return self.plan.arguments["steps_per_epoch"] or self.plan.batches_per_pass or math.inf

    def _share_done(self) -> float:
        """Return the share of the epochs of this `fit` that is done, in [0, 1]."""
        first, end = self.plan.arguments["initial_epoch"], self.plan.arguments["epochs"]
        return (self.epoch - first + self.epoch_steps / self._steps_per_epoch()) / max(end - first, 1)

    def _examine(self, batches: list) -> None:
        """Derive from batches of a stream the size of all its batches, which may grow later."""
        if self.plan.source.has_rows:
            return
        size = max(map(self.plan.source.examine, batches))
        if size > (self.batch_size or 0):
            self.strategy.close()
            self.batch_size = size
            self.strategy = self.strategy_for(size)
            self.strategy.check_before_training()
            self.strategy.plan_epoch(self.epoch)

    # The gate

    def _probe_if_due(self) -> float:
        """Score the next batch for the gate if a probe is due; return its cost in forward passes of a batch."""
        if self._probe_is_due() and (following := self.batches.peek(1)):
            with self._closed_if_unsupported():
                return self._probe(following[0])
        return 0.0  # not due, or unsupported

    def _probe_is_due(self) -> bool:
        # Traced on a single batch, Keras's step would take the batch size as fixed.
        if self.gate is None or not (self.strategy.needs_probes and self.uniform.keras_function.is_traced):
            return False
        required, n = self.gate.context.required_epochs, self.model.steps_per_execution
        return probe_is_due(self.state.counters, self.signals.tau, required, n) and self.strategy.is_built()

    def _probe(self, batch: Any) -> float:
        """Score a batch and let the gate decide; return the cost."""
        self._examine([batch] if self.batch_size is not None else self.batches.peek(EXAMINED))
        data = unpack_batch(batch)
        if count_rows(data) != self.batch_size:
            return 0.0  # a smaller batch needs another trace; the next batch is probed
        self.strategy.check(data)
        if discount_is_outdated(self.state.counters):
            self.state.reset_discount()
        scored = self.strategy.probe(data, max(self.state.counters.steps_since_probe, 1))
        self._update_gate()
        if self.listeners.needs_scores:
            self.listeners.notify_scores(self.strategy.get_sampler(), ops.convert_to_numpy(scored.scores))
        return self.strategy.passes(scored=self.batch_size)

    def _update_gate(self) -> None:
        """Read the averaged signals and let the gate decide."""
        self.read_signals()
        rate = learning_rate(self.model.optimizer)
        self.state.counters.record_learning_rate(rate)
        self.gate.observe(self.signals, self._gate_context(rate))
        self.state.counters.record_gate_decision(self.gate, self.signals.tau)
        if self.gate.previously_satisfied and not self.gate.satisfied:
            self.closing_reason = self.gate.explain(self.signals)

    def _gate_context(self, rate: float) -> GateContext:
        rate = self.state.counters.relative_learning_rate(rate)
        return gate_context(self.plan, self.strategy, self.state.counters, self._steps_left(), rate)

    @contextlib.contextmanager
    def _closed_if_unsupported(self) -> Iterator[None]:
        """Close the gate for the rest of the `fit`, with a warning, if samples turn out not to be weightable."""
        try:
            yield
        except Unsupported as error:
            self.gate = None
            self.strategy.close()
            self.reason = str(error)
            self.deferred.add(uniform_training_message(self.reason))
