"""The function that stands in for `model.train_function` while a trainer's `fit` runs: plain step or importance step?

Keras's own `fit` calls it once per execution. Closed, it calls the function that Keras built, on the batch that Keras
drew; open, it takes importance steps. Every so many steps (`looks`) it has the gate look. It counts, and it tells the
listeners; it computes nothing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from importance_sampling import backend
from importance_sampling.closed_steps import ClosedSteps
from importance_sampling.conditions import Condition, Terms
from importance_sampling.conditions.cost import PLAIN_STEP
from importance_sampling.events import Listeners
from importance_sampling.fit.deferred_warnings import DeferredWarnings
from importance_sampling.looks import LOOK_EVERY, interval
from importance_sampling.open_steps import OpenSteps
from importance_sampling.scores import flat
from importance_sampling.sources import Prepared, unpacked
from importance_sampling.state import TrainerState
from importance_sampling.weighted_loss import Unsupported

EXAMINED = 2  # batches of a stream that tell the usual size: a short batch may come first


class TrainFunction:
    """Stands in for `model.train_function`.

    Args:
        model: the user's.
        keras_function: what Keras would call.
        prepared: the data.
        condition: the gate; None keeps it closed for good.
        steps: `OpenSteps`: the probe and the open steps.
        state: the trainer's.
        listeners: who wants to know.
        steps_for: makes the open steps anew, once the first batch has told what there was to know of the data.
        deferred: the warnings of this `fit`, released when a step has been trained.
    """

    def __init__(
        self,
        model: keras.Model,
        keras_function: Callable,
        prepared: Prepared,
        condition: Condition | None,
        steps: OpenSteps,
        state: TrainerState,
        listeners: Listeners,
        steps_for: Callable[[Prepared], OpenSteps],
        deferred: DeferredWarnings,
    ):
        self.model = model
        self.keras_function = keras_function
        self.prepared = prepared
        self.condition = condition
        self.steps = steps
        self.state = state
        self.listeners = listeners
        self.steps_for = steps_for
        self.deferred = deferred
        self.unsupported: str | None = None
        self.is_due = False  # whether the next call is that of the `fit` that this was made for
        self.epoch = 0  # the one under way
        self.epoch_steps = 0
        self.epoch_open_steps = 0
        tell = self._tell if listeners.needs_row_indices else None
        self.closed = ClosedSteps(model, keras_function, prepared, tell)
        self._delivered = 0  # batches of the pass under way, as Keras counts them
        self.read()

    def __call__(self, iterator: Any) -> dict:
        """One execution: `model.steps_per_execution` steps, or what is left of the pass."""
        if not self.is_due:
            return self.keras_function(iterator)  # of a callback that trains the model by itself
        self.is_due = False
        try:
            logs = self._execute(iterator)
        except Exception as error:
            failure = None if self.prepared.source is None else self.prepared.source.failure
            if failure is None or not backend.is_of_pipeline(error):
                raise
            if isinstance(failure, StopIteration):  # no end of a pass
                raise RuntimeError("What `fit` was to read rows of raised StopIteration") from failure
            raise failure from None  # and not what the pipeline made of it
        self.deferred.release()
        return logs

    def _execute(self, iterator: Any) -> dict:
        counters = self.state.counters
        if iterator is not self.closed.iterator:
            self.closed.begin(iterator)
            self._delivered = 0
            if self.prepared.source is not None:
                self.prepared.source.begin_pass(iterator)
        self.steps.cost.begin()
        logs, steps, spent = None, self._count(), counters["forwards"]
        if steps <= 0 and self.closed.taken < self.prepared.num_batches:
            raise StopIteration  # the pass has had its steps, whoever's batches they took
        if self.condition is not None and self.condition.satisfied:
            try:
                logs, steps = self._open(steps)
            except Unsupported as error:
                self._close_for_good(error)
        is_open = logs is not None
        if not is_open:
            logs, steps = self._closed(steps)
        if steps:
            self.steps.cost.lap(is_open, steps, counters["forwards"] - spent)
        counters["forwards"] += PLAIN_STEP * steps
        self._delivered += steps
        counters["steps"] += steps
        counters["since_look"] += steps
        if self.prepared.num_batches:
            counters["passed"] += steps / self.prepared.num_batches
        counters["open_steps"] += steps * is_open
        self.epoch_steps += steps
        self.epoch_open_steps += steps * is_open
        if is_open and counters["since_look"] >= LOOK_EVERY:
            self._look()
        self.listeners.notify_training(self.steps.sampler, logs)
        return logs

    def release(self) -> None:
        """Let go of the data."""
        self.steps.forget()
        self.prepared.forget()
        self.closed.begin(None)

    def read(self) -> Terms:
        """Read the averages anew, off the device; returns the terms of the steps that they speak of."""
        self.signals, terms = self.steps.offer(self.state.signals)
        return terms

    def _count(self) -> int:
        """How many steps Keras would take in this execution; at most that many where only its iterator knows."""
        if not self.prepared.num_batches:
            return self.model.steps_per_execution
        return min(self.model.steps_per_execution, self.prepared.num_batches - self._delivered)

    def _examine(self, batches: list) -> None:
        """Derive from batches of a stream what isn't known of all its batches yet, such as their usual size."""
        if self.prepared.source.has_rows:
            return
        size = max(map(self.prepared.source.examine, batches))
        if size > (self.prepared.batch_size or 0):
            self.prepared.batch_size = size
            traced = self.steps.keras_traced
            self.steps = self.steps_for(self.prepared)
            self.steps.keras_traced |= traced

    # Open

    def _open(self, steps: int) -> tuple[dict | None, int]:
        if self.prepared.batch_size is None:
            batches = self.closed.peek(EXAMINED)
            if not batches:
                return None, self._count()  # Keras's function ends the pass
            self._examine(batches)
        steps = self.steps.ready(steps, self.closed.draw, self.closed.give_back)
        if not steps:
            return None, self._count()  # what is left of the pass doesn't fill a pool
        self.steps.left = self._left()
        logs = self.steps.take(self.closed.iterator, steps, self.listeners)
        if self.steps.reads_batches:
            self.closed.taken += steps
        if self.state.counters["opened_at"] < 0:
            self.state.counters["opened_at"] = self.state.counters["steps"]
        return logs, steps

    def _look(self) -> None:
        """Read the averages and let the gate decide."""
        self.steps.choose(self.state.signals)
        terms = self.read()
        rate = learning_rate(self.model.optimizer)
        largest = max(rate, self.state.counters["rate"])
        terms = terms._replace(rate=rate / largest if largest else 1.0)
        if self.prepared.num_batches:
            passed = round(self.state.counters["passed"], 6)  # a sum of parts
            terms = terms._replace(passed=passed, left=self._left() / self.prepared.num_batches)
        self.condition.observe(self.signals, terms)
        self.state.counters.update(
            since_look=0,
            closed_looks=0 if self.condition.satisfied else self.state.counters["closed_looks"] + 1,
            satisfied=int(self.condition.satisfied),
            tau=float(np.fmax(self.signals.tau, 1.0)),
            rate=largest,
        )

    def _left(self) -> float:
        """Steps that are left of `fit`."""
        each = self.prepared.arguments["steps_per_epoch"] or self.prepared.num_batches or math.inf
        return (self.prepared.arguments["epochs"] - self.epoch) * each - self.epoch_steps

    # Closed

    def _closed(self, steps: int) -> tuple[dict, int]:
        probe = self._probe if self._probe_is_due() else None
        taken = self.closed.take(steps, self.steps.keras_traced, probe)
        self.steps.keras_traced = True
        return taken

    def _tell(self, rows: np.ndarray) -> None:
        """Tell the rows of a plain step."""
        self.listeners.notify_sample(self.steps.sampler, rows, *_of_plain_steps(len(rows)))

    def _probe_is_due(self) -> bool:
        if self.condition is None or not self.condition.probes:
            return False
        counters, terms = self.state.counters, self.condition.terms
        is_due = (
            (counters["since_look"] >= LOOK_EVERY and counters["since_look"] >= self._interval())
            or counters["steps"] == 0
            or math.isnan(self.signals.tau)
            or terms.passed < terms.passes <= round(counters["passed"], 6)  # what it waited for is there
        )
        # Traced on a batch out of its iterator, Keras's step would take the batch size for fixed, and say so in the
        # losses of single outputs.
        return is_due and self.steps.keras_traced and self.steps.is_ready()

    def _interval(self) -> int:
        every = interval(self.state.counters["closed_looks"])
        if self.model.steps_per_execution > 1:  # leave most executions to Keras's own compiled loop
            every = max(every, 4 * self.model.steps_per_execution)
        return every

    def _probe(self, batch: Any) -> None:
        """Score a batch for the gate, and let it decide."""
        try:
            is_known = self.prepared.batch_size is not None
            self._examine([batch, *([] if is_known else self.closed.peek(EXAMINED - 1))])
            x, y, sample_weight = unpacked(batch)
            if flat(x)[0][0].shape[0] != self.prepared.batch_size:
                return  # a smaller last batch would be another trace; the next one will do
            self.steps.check((x, y, sample_weight))
            since = max(self.state.counters["since_look"], 1)
            scores = self.steps.probe((x, y, sample_weight), since)
            self.steps.spend(scored=self.prepared.batch_size)
            self._look()
            if self.listeners.needs_scores:
                self.listeners.notify_scores(self.steps.sampler, np.asarray(scores))
        except Unsupported as error:
            self._close_for_good(error)

    def _close_for_good(self, error: Unsupported) -> None:
        self.condition = None
        self.unsupported = str(error)
        self.deferred.add(plain_message(self.unsupported))


@functools.lru_cache
def _of_plain_steps(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The weights and the scores that are told of plain steps: ones, and no numbers; nobody can write to them."""
    of_all = np.ones(rows, "float32"), np.full(rows, np.nan, "float32")
    for array in of_all:
        array.flags.writeable = False
    return of_all


def learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The rate as it stands; of several optimizers in one, which has none to be asked for, the sum of theirs."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    several = [one for one in getattr(optimizer, "optimizers", [optimizer]) if one.built]
    return float(sum(np.asarray(one.learning_rate) for one in several))


def plain_message(reason: str) -> str:
    """The one warning for what can't be weighed."""
    return f"Importance sampling stays off and the model trains as `model.fit` trains it: {reason}."
