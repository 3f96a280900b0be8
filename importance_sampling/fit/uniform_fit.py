"""Keras's own `fit`, for a trainer that is switched off: its steps are counted, and the model stays as it is."""

from __future__ import annotations

import math
import threading

import keras

from importance_sampling.conditions import Condition
from importance_sampling.conditions.base import UNIFORM_STEP
from importance_sampling.data.lazy_arrays import with_lazy_validation_data
from importance_sampling.fit import user_fit
from importance_sampling.fit.checkpoint import enclose_callback
from importance_sampling.fit.messages import DeferredWarnings
from importance_sampling.fit.progress import Progress
from importance_sampling.fit.state import TrainerState, steps_taken


class UniformFit(keras.callbacks.Callback):
    """Counts the steps of Keras's `fit` for the state and the summary of the trainer.

    It must be the first callback, so that a state that is saved with the model contains the step before.

    Args:
        model: the user's model.
        condition: the trainer's condition.
        state: the trainer's state.

    Attributes:
        reason: None, as none was searched for.
        progress: `Progress` of this `fit`.
    """

    reason = None

    def __init__(self, model: keras.Model, condition: Condition, state: TrainerState):
        super().__init__()
        self.set_model(model)  # Keras doesn't, in a `CallbackList` of the user
        self.condition = condition
        self.state = state
        self.progress = Progress()
        # If True, Keras may dispatch the hooks of batches to another thread, as it does without this callback. Such a
        # hook must not ask for `self.model`: on JAX that writes the state of the running step to the variables.
        self.async_safe = model.steps_per_execution == 1
        self._lock = threading.Lock()
        self._running: int | None = None  # the first batch of an execution that hasn't been counted
        self._before = 0

    def fit(self, arguments: dict) -> keras.callbacks.History:
        """Train.

        Args:
            arguments: all arguments of `keras.Model.fit`, by name. Lazily read validation data are read in batches.
        """
        deferred = DeferredWarnings()
        arranged: list = [self]
        for callback in user_fit.as_list(arguments["callbacks"]):
            arranged += enclose_callback(callback, self.state, self.continue_from_state, deferred.add)
        with user_fit.with_callbacks(arguments["callbacks"], arranged) as callbacks:
            history = user_fit.run(self.model, dict(with_lazy_validation_data(arguments), callbacks=callbacks))
        deferred.release()
        return history

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Note that an execution of one or several steps begins."""
        self._count(math.inf)  # Keras may call the hook of the end of the execution before later, in another thread
        self._running, self._before = batch, self._optimizer_steps()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Count the steps of the execution."""
        self._count(batch)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Discard an execution that has not ended: it found that the data had."""
        self._running = None

    def continue_from_state(self) -> None:
        """Continue after the trainer's state was restored within this `fit`."""
        self.state.decision.apply_to(self.condition)
        self.state.reset_totals()
        self.progress.restart()

    def _count(self, batch: float) -> None:
        """Count the steps of the current execution if it began at this batch or before, and not twice."""
        with self._lock:
            if self._running is None or batch < self._running:
                return
            self._running = None
            steps = max(self._optimizer_steps() - self._before, 1)
            self.progress.add(steps)
            self.state.add_steps(steps, UNIFORM_STEP * steps)

    def _optimizer_steps(self) -> int:
        """Return the optimizer's count of steps, if an execution may have several; else 0."""
        return 0 if self.async_safe else steps_taken(self.model) or 0
