"""The function that stands in for `model.train_function` while a trainer's `fit` runs: plain step or importance step?

Keras's own `fit` calls it once per execution. Closed, it calls the function that Keras built, on the batch that Keras
drew; open, it takes importance steps. Every so many steps (`looks`) it has the gate look. It counts, and it tells the
listeners; it computes nothing.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from importance_sampling import backend
from importance_sampling.conditions import Condition, Terms
from importance_sampling.conditions.cost import PLAIN_STEP
from importance_sampling.events import Listeners
from importance_sampling.looks import LOOK_EVERY, interval
from importance_sampling.open_steps import OpenSteps
from importance_sampling.scores import flat
from importance_sampling.sources import Prepared, unpacked
from importance_sampling.state import TrainerState
from importance_sampling.weighted_loss import Unsupported


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
    ):
        self.model = model
        self.keras_function = keras_function
        self.prepared = prepared
        self.condition = condition
        self.steps = steps
        self.state = state
        self.listeners = listeners
        self.steps_for = steps_for
        self.unsupported: str | None = None
        self.is_due = False  # whether the next call is that of the `fit` that this was made for
        self.epoch = 0  # the one under way
        self.epoch_steps = 0
        self.epoch_open_steps = 0
        self._iterator: Any = None
        self._held: deque = deque()  # batches that were drawn and not yet used, where data have no row numbers
        self._queue: deque = deque()  # where rows of plain steps are told: batches on their way to Keras's function
        self._feed: Any = None  # the iterator that hands them over
        self._delivered = 0  # batches of the pass under way, as Keras counts them
        self._taken = 0  # of those, how many were taken from Keras's iterator
        self.read()

    def __call__(self, iterator: Any) -> dict:
        """One execution: `model.steps_per_execution` steps, or what is left of the pass."""
        if not self.is_due:
            return self.keras_function(iterator)  # of a callback that trains the model by itself
        self.is_due = False
        counters = self.state.counters
        if iterator is not self._iterator:
            self._iterator, self._delivered, self._taken = iterator, 0, 0
            self._held.clear()
            self._queue.clear()
            self._feed = None
        self.steps.cost.begin()
        logs, steps, spent = None, self._count(), counters["forwards"]
        if steps <= 0 and self._taken < self.prepared.num_batches:
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
        self.listeners.trained(self.steps.sampler, logs)
        return logs

    def read(self) -> Terms:
        """Read the averages anew, off the device; returns the terms of the steps that they speak of."""
        self.signals, terms = self.steps.offer(self.state.signals)
        return terms

    def _count(self) -> int:
        """How many steps Keras would take in this execution; at most that many where only its iterator knows."""
        if not self.prepared.num_batches:
            return self.model.steps_per_execution
        return min(self.model.steps_per_execution, self.prepared.num_batches - self._delivered)

    def _draw(self) -> Any:
        """The batch that Keras would train on next; raises StopIteration at the end of a pass, as Keras expects it."""
        return self._held.popleft() if self._held else next(self._iterator)

    def _drawn(self, n: int) -> Iterator[Any]:
        """Up to n batches."""
        for _ in range(n):
            try:
                yield self._draw()
            except StopIteration:
                return

    def _meet(self, batch: Any) -> None:
        """Let the first batch tell what isn't known of the data yet."""
        if self.prepared.batch_size is None:
            self.prepared.batch_size = self.prepared.source.meet(batch, self._iterator)
            traced = self.steps.keras_traced
            self.steps = self.steps_for(self.prepared)
            self.steps.keras_traced |= traced

    # Open

    def _open(self, steps: int) -> tuple[dict | None, int]:
        if self.prepared.batch_size is None:
            self._held.append(self._draw())
            self._meet(self._held[0])
        steps = self.steps.ready(steps, self._draw, lambda batches: self._held.extendleft(reversed(batches)))
        if not steps:
            return None, self._count()  # what is left of the pass doesn't fill a pool
        self.steps.left = self._left()
        logs = self.steps.take(self._iterator, steps, self.listeners)
        if self.steps.reads_batches:
            self._taken += steps
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
        probe = self._probe_is_due()
        # What Keras's function would take of its iterator, were it handed over.
        left = self.model.steps_per_execution
        if self.prepared.num_batches:
            left = min(left, self.prepared.num_batches - self._taken)
        if self.prepared.batch is not None:
            logs, steps = self._closed_by_row(steps, probe, left)
        elif probe or left != steps or self._held:
            # Keras's function takes a Python iterable of batches as well, and steps through it with the same step.
            batches = _Counted(self._drawn(steps))
            first = next(batches, None)
            if first is None:
                return self.keras_function(self._iterator), 0  # it is exhausted, and says so as Keras expects
            if probe:
                self._probe(first)
            logs, steps = self.keras_function(itertools.chain([first], batches)), batches.count
        else:
            before = self._updates()
            logs = self.keras_function(self._iterator)
            if not self.prepared.num_batches and steps > 1:
                steps = max(self._updates() - before, 1)
        self._taken += steps
        self.steps.keras_traced = True
        return logs, steps

    def _closed_by_row(self, steps: int, probe: bool, left: int) -> tuple[dict, int]:
        """Read the rows that plain steps train on, to be told, and hand them to Keras's function in the same order."""
        read = [self.prepared.batch(drawn) for drawn in self._drawn(steps)]
        if not read and not self.prepared.num_batches:
            return self.keras_function(self._iterator), 0
        if not read:
            raise StopIteration
        batches = [batch for _, batch in read]
        if probe:
            self._probe(batches[0])
        # Once it was traced on an iterator, single batches cost less handed over as they are.
        if len(read) == left and not (left == 1 and self.steps.keras_traced):
            self._queue.extend(tuple(flat(batch)[0]) for batch in batches)
            self._feed = self._feed or backend.feed(self._queue, flat(batches[0])[1])
            logs = self.keras_function(self._feed)
        else:
            logs = self.keras_function(iter(batches))
        if self.listeners.want_rows:
            for indices, _ in read:
                ones, unknown = np.ones(len(indices), "float32"), np.full(len(indices), np.nan, "float32")
                self.listeners.sampled(self.steps.sampler, indices, ones, unknown)
        return logs, len(read)

    def _updates(self) -> int:
        """How many updates the optimizer has made, where an execution may have fewer steps than it was to have."""
        if self.prepared.num_batches or self.model.steps_per_execution == 1 or self.model.optimizer is None:
            return 0
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        return int(backend.host(optimizer._iterations))

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
            self._meet(batch)
            x, y, sample_weight = unpacked(batch)
            if flat(x)[0][0].shape[0] != self.prepared.batch_size:
                return  # a smaller last batch would be another trace; the next one will do
            self.steps.check((x, y, sample_weight))
            since = max(self.state.counters["since_look"], 1)
            scores = self.steps.probe()(x, y, sample_weight, keras.ops.convert_to_tensor(float(since)))
            self.steps.spend(scored=self.prepared.batch_size)
            self._look()
            if self.listeners.want_scores:
                self.listeners.scored(self.steps.sampler, np.asarray(scores))
        except Unsupported as error:
            self._close_for_good(error)

    def _close_for_good(self, error: Unsupported) -> None:
        self.condition = None
        self.unsupported = str(error)
        warnings.warn(plain_message(self.unsupported), stacklevel=2)


class _Counted:
    """An iterator that counts what was taken of it."""

    def __init__(self, iterator: Iterator):
        self.iterator = iterator
        self.count = 0

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        taken = next(self.iterator)
        self.count += 1
        return taken


def learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The rate as it stands; of several optimizers in one, which has none to be asked for, the sum of theirs."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    several = [one for one in getattr(optimizer, "optimizers", [optimizer]) if one.built]
    return float(sum(np.asarray(one.learning_rate) for one in several))


def plain_message(reason: str) -> str:
    """The one warning for what can't be weighed."""
    return f"Importance sampling stays off and the model trains as `model.fit` trains it: {reason}."
