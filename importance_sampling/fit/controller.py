"""The function that stands in for `model.train_function` during a trainer's `fit`.

Keras's `fit` calls it once per execution. It takes uniform steps while the gate is closed and importance steps while it
is open; it alone counts steps, notifies listeners and asks the gate.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import keras
from keras import ops

from importance_sampling import backend
from importance_sampling.conditions import Condition
from importance_sampling.core.eligibility import uniform_training_message
from importance_sampling.data.batches import PeekableBatches, count_rows, unpack_batch
from importance_sampling.events import Listeners
from importance_sampling.fit.epoch_end import end_epoch
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.gating import Gating
from importance_sampling.fit.messages import DeferredWarnings
from importance_sampling.fit.progress import Progress
from importance_sampling.fit.state import TrainerState
from importance_sampling.strategies.base import StepResult, Strategy
from importance_sampling.strategies.uniform import UniformSteps
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
        state: the trainer's state.
        listeners: notified of every step.
        deferred: warnings that are shown once Keras has accepted the data.

    Attributes:
        progress: `Progress` of this `fit`.
        gating: `Gating`, which asks the gate.
        is_called_by_fit: bool, True if the next call belongs to the `fit` that this controller was made for.
    """

    def __init__(
        self,
        model: keras.Model,
        plan: FitPlan,
        uniform: UniformSteps,
        strategy: Strategy,
        strategy_for: Callable[[int], Strategy],
        condition: Condition,
        state: TrainerState,
        listeners: Listeners,
        deferred: DeferredWarnings,
    ):
        self.model = model
        self.plan = plan
        self.uniform = uniform
        self.strategy = strategy
        self.strategy_for = strategy_for
        self.condition = condition
        self.state = state
        self.listeners = listeners
        self.deferred = deferred
        self.batch_size = plan.batch_size  # of a stream: None until its batches show it
        self.is_called_by_fit = self.was_called = False
        self.batches = PeekableBatches()
        self._deleting: list[threading.Thread] = []  # threads that delete the iterators of earlier passes
        self.progress = Progress.of(plan)
        self.gating = Gating(model, condition, plan, state, self.progress)

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
        if self.progress.epoch_ends_early:
            end_epoch(self.model)
        return logs

    @property
    def reason(self) -> str | None:
        """Why importance sampling is impossible; None if it is possible, or if the trainer is switched off."""
        return self.gating.reason

    def begin_epoch(self, epoch: int) -> None:
        """Begin to count the steps of an epoch, and set its length."""
        length = self.strategy.begin_epoch(epoch) if self.gating.is_possible else self.plan.full_epoch_steps
        self.progress.begin_epoch(epoch, length)

    def continue_from_state(self) -> None:
        """Continue after the trainer's state was restored within this `fit`."""
        if self.plan.source is not None and self.strategy.reads_rows:
            self.state.set_dataset(self.plan.source.digest)
        self.state.decision.apply_to(self.condition)
        self.strategy.close()
        self.state.reset_totals()
        self.progress.restart()
        self.gating.restart()

    def check_was_called(self) -> None:
        """Warn if a `fit` that the model defines has trained without Keras's training function."""
        if self.gating.is_possible and not self.was_called:
            self._switch_off(
                f"the `fit` of {type(self.model).__name__} didn't call Keras's training function with the callbacks "
                "that it was given. Pass its arguments on to `super().fit`"
            )

    def release(self) -> None:
        """Drop all references to the data at once: Keras's callbacks keep this object until Python collects garbage."""
        source, self.plan, self.strategy_for = self.plan.source, FitPlan({}), None
        self.gating.release()
        self.uniform.release()
        self.batches = PeekableBatches()
        try:
            self.strategy.release()
        finally:
            if source is not None:
                source.release()
            for thread in self._deleting:
                thread.join()

    def _check_before_training(self) -> None:
        """Check at the first call what needs a batch of arrays. Earlier, Keras would not have built the model."""
        if not self.was_called and self.gating.is_possible:
            self.gating.set_first_context(self.strategy)
            if self.batch_size is not None:
                with self._closed_if_unsupported():
                    self.strategy.refuse_negative_scores()
        self.was_called = True

    def _execute(self, iterator: Iterator) -> dict:
        """Take the steps of an execution; return its logs."""
        if self._begins_pass(iterator):
            self._begin_pass(iterator)
        elif backend.DRAWS_BEFORE_STEP:
            self.batches.replace_iterator(iterator)
        n = self.progress.steps_of_execution(self.model.steps_per_execution)
        if n <= 0 and self.batches.taken < self.plan.batches_per_pass:
            raise StopIteration  # importance steps have replaced the rest of the pass
        result = self._importance_step(n) if self.gating.is_open else None
        is_importance = result is not None
        if result is None:
            extra_cost = self._probe_if_due()
            result = self.uniform.step(n, self.batches)
        else:
            extra_cost = self.gating.measure_held_out(self.strategy)
        self._count(result, is_importance, extra_cost)
        if is_importance:
            self.gating.decide_if_due(self.strategy)
        self.listeners.notify_execution(self.strategy.get_sampler(), result.to_host(), is_importance)
        return result.logs

    def _begins_pass(self, iterator: Iterator) -> bool:
        """Return True if an iterator begins a pass over the data."""
        if not backend.DRAWS_BEFORE_STEP:
            return iterator is not self.batches.iterator
        return self.progress.pass_is_over or self.batches.iterator is None

    def _begin_pass(self, iterator: Iterator) -> None:
        self._deleting = [thread for thread in self._deleting if thread.is_alive()]
        earlier, self.batches = [self.batches], PeekableBatches(iterator)
        source = self.plan.source
        if source is None or not source.has_rows:
            earlier.clear()  # the next pass may read the same stream
        elif thread := backend.clear_later(earlier):
            self._deleting.append(thread)
        self.progress.begin_pass()
        self.uniform.begin_pass()
        if source is not None:
            source.begin_pass(iterator)

    def _importance_step(self, n: int) -> StepResult | None:
        """Take up to n importance steps; None if the rest of the epoch isn't enough for one, or they're impossible."""
        with self._closed_if_unsupported():
            if self.batch_size is None or (backend.DRAWS_BEFORE_STEP and not self.plan.source.has_rows):
                if not (examined := self.batches.peek(EXAMINED)):
                    return None
                self._examine(examined)
            return self.strategy.step(n, self.batches, self.progress.steps_left, self.listeners.needs_draws)
        return None  # unsupported

    def _probe_if_due(self) -> float:
        """Score the next batch for the gate if a probe is due; return its cost in forward passes of a batch."""
        # Traced on a single batch, Keras's step would take the batch size as fixed.
        if not (self.uniform.keras_function.is_traced and self.gating.probe_is_due(self.strategy)):
            return 0.0
        following = self.batches.peek(1)
        with self._closed_if_unsupported():
            if following and self.batch_size is None:
                self._examine(self.batches.peek(EXAMINED))
            elif following:
                self._examine(following)
            if following and count_rows(batch := unpack_batch(following[0])) == self.batch_size:
                scored = self.gating.probe(self.strategy, batch)
                if self.listeners.needs_scores:
                    self.listeners.notify_scores(self.strategy.get_sampler(), ops.convert_to_numpy(scored.scores))
                return self.strategy.cost_of(scored=self.batch_size)
        return 0.0  # unsupported, or a smaller batch, which needs another trace: the next batch is probed

    def _count(self, result: StepResult, is_importance: bool, extra_cost: float) -> None:
        """Add the steps of an execution to all counters."""
        cost = result.cost + extra_cost
        if is_importance:
            if not self.progress.strategy_steps and (warning := self.strategy.first_step_warning()):
                self.deferred.add(warning)
            by_score = self.progress.add_importance(result.steps, result.uniform_draws, cost)
            self.progress.noise.add(by_score, self.gating.signals.trusted_gain, self.condition.rescores)
            self.state.counters.add_importance(result.steps, by_score)
        self.progress.add(result.steps)
        self.state.losses.note_training(self.plan.has_validation_data, is_importance)
        self.state.add_steps(result.steps, cost, self.plan.batches_per_pass)

    def _examine(self, batches: list) -> None:
        """Derive from batches of a stream the size of all its batches, which may grow later."""
        if self.plan.source.has_rows:
            return
        size = max(map(self.plan.source.examine, batches))
        if size > (self.batch_size or 0):
            self.strategy.close()
            self.batch_size = size
            self.strategy = self.strategy_for(size)
            self.strategy.refuse_negative_scores()
            self.strategy.begin_epoch(self.progress.epoch)

    @contextlib.contextmanager
    def _closed_if_unsupported(self) -> Iterator[None]:
        """Close the gate for the rest of the `fit`, with a warning, if samples turn out not to be weightable."""
        try:
            yield
        except Unsupported as error:
            self.strategy.close()
            self._switch_off(str(error))

    def _switch_off(self, reason: str) -> None:
        """Keep the gate closed for the rest of the `fit`, and warn."""
        self.gating.reason = reason
        self.deferred.add(uniform_training_message(reason))
