"""The base class of all trainers: `fit` with Keras's arguments, the summary, and the state that can be saved.

Keras's own `fit` runs the loop, on the user's model with the user's callbacks. During the call a `FitController` stands
in for `model.train_function`. The subclasses, in `training`, choose the importance steps that it takes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras

from importance_sampling import backend
from importance_sampling.conditions import Condition
from importance_sampling.core import eligibility, logits, scoring
from importance_sampling.data.lazy_arrays import has_lazy_rows
from importance_sampling.events import Listeners
from importance_sampling.fit import messages, user_fit
from importance_sampling.fit.controlled_fit import fit_with_controller
from importance_sampling.fit.controller import FitController
from importance_sampling.fit.display import Display
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.legacy import LegacyFit
from importance_sampling.fit.make_plan import make_plan
from importance_sampling.fit.state import TrainerState, steps_taken
from importance_sampling.fit.state_file import load_state, save_state
from importance_sampling.fit.uniform_fit import UniformFit
from importance_sampling.samplers.pool import PoolSampler
from importance_sampling.strategies.base import Strategy
from importance_sampling.strategies.compiled_steps import CompiledSteps
from importance_sampling.strategies.custom_train_step import CustomIndexedStrategy, CustomPoolStrategy
from importance_sampling.strategies.indexed import IndexedStrategy
from importance_sampling.strategies.pool import PoolStrategy
from importance_sampling.strategies.uniform import UniformSteps
from importance_sampling.utils.errors import Unsupported
from importance_sampling.utils.validation import check_seed, is_int

logger = logging.getLogger("importance_sampling")


class Trainer(Display, LegacyFit):
    """Trains a compiled Keras model with Keras's `fit`, and takes importance steps while its gate is open.

    Args:
        model: a compiled `keras.Model`; it stays the user's own.
        condition: the gate.
        forward_batch_size: int >= 1 or None (default: a pool at once); candidates scored at once, to bound memory.
        score: "gnorm" (default), "loss", "full_gnorm", or a callable `score(model, x, y)` -> `(batch,)`, >= 0.
        layer: a layer, its name or index, at which "gnorm" takes the gradient. None (default): the model's outputs.
        seed: int in [0, 2**31) or None; of the library's own random stream. None follows Python's `random` at the first
            `fit`, which `keras.utils.set_random_seed` sets.

    Raises:
        ValueError: an argument is out of its range, or `layer` isn't in the model.
    """

    needs_rows = False  # True if importance steps always read rows by index
    accepts_train_step = False  # True if importance steps can be taken by a `train_step` that the model defines
    _rows_argument = ""  # the argument that asks for rows by index, for messages

    def __init__(
        self,
        model: keras.Model,
        condition: Condition,
        *,
        forward_batch_size: int | None = None,
        score: str | Callable = "gnorm",
        layer: keras.Layer | str | int | None = None,
        seed: int | None = None,
    ):
        if not user_fit.is_model(model):
            raise ValueError(f"`model` must be a `keras.Model`. Received: model={model!r} (of type {type(model)})")
        if forward_batch_size is not None and (not is_int(forward_batch_size) or forward_batch_size < 1):
            raise ValueError(
                "`forward_batch_size` must be a positive int, or None to score a pool at once. "
                f"Received: forward_batch_size={forward_batch_size!r}"
            )
        check_seed(seed)
        scoring.check(score)
        if layer is not None:
            logits.find_layer(model, layer)
        self.model = model
        self.condition = condition
        self.forward_batch_size = None if forward_batch_size is None else int(forward_batch_size)
        self.score = score
        self.layer = layer
        self._scoring = scoring.Scoring(score, layer, self.forward_batch_size)
        self._seed = None if seed is None else int(seed)
        self._state: TrainerState | None = None
        self._compiled = CompiledSteps(model)
        self._running = threading.Lock()

    def _make_strategy(self, plan: FitPlan, batch_size: int) -> Strategy:
        """Return the strategy for importance steps of a size on the data of a plan."""
        raise NotImplementedError

    def _indexed(self, batch_size: int, make_sampler: Callable, alpha: float, scored: float = 0.0) -> IndexedStrategy:
        """Return the strategy for rows that a sampler draws by index."""
        arguments = self.model, make_sampler, batch_size, self._state, self._scoring
        options = dict(scored=scored, alpha=alpha, holds_out=self.condition.needs_held_out)
        if eligibility.has_train_step(self.model):
            return CustomIndexedStrategy(*arguments, **options, compiled=self._compiled)
        return IndexedStrategy(*arguments, **options)

    def _pools(self, sampler: PoolSampler, batch_size: int | None = None, warning: str | None = None) -> PoolStrategy:
        """Return the strategy for pools that a sampler draws from; `warning` is given at its first step."""
        arguments = self.model, sampler, self._state, self._scoring, batch_size, warning
        if eligibility.has_train_step(self.model):
            return CustomPoolStrategy(*arguments, compiled=self._compiled)
        return PoolStrategy(*arguments)

    def _is_indexed(self, plan: FitPlan) -> bool:
        """Return True if importance steps read rows of these data by index."""
        return self.needs_rows

    def _rows_needed(self, plan: FitPlan, batch_size: int) -> int:
        """Return the number of rows that an importance step needs."""
        return batch_size

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool | str = True,
        class_weight: dict | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | list[int] = 1,
        *,
        on_sample: Callable | None = None,
        on_scores: Callable | None = None,
    ) -> keras.callbacks.History:
        """Train the model; every argument means what it means to `keras.Model.fit`.

        The sampler chooses the rows of importance steps, whatever `shuffle` is.

        Args:
            on_sample: called as `on_sample(sampler, indices, weights, scores)` after every gradient step with read-only
                NumPy arrays of the rows trained on. In uniform steps weights are 1 and scores NaN. Samples of streams
                (tf.data, `PyDataset`, loaders, generators) have no row index: their indices are -1.
            on_scores: called as `on_scores(sampler, scores)` for every pool, or probe, that was scored, and after every
                step on rows by index with the scores that it measured.

        Returns:
            Keras's `History`, with the model's metrics and, unless the trainer is switched off, `score` (mean score of
            the candidates) and `tau`, both moving averages and NaN if nothing was measured, and `importance`, the share
            of importance steps in the epoch.

        Raises:
            ValueError: the model isn't compiled, `score="loss"` with a loss that is negative, or what Keras refuses.
            RuntimeError: another `fit` of this trainer is running.
        """
        arguments = dict(
            x=x,
            y=y,
            batch_size=batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_split=validation_split,
            validation_data=validation_data,
            shuffle=shuffle,
            class_weight=class_weight,
            sample_weight=sample_weight,
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
            validation_freq=validation_freq,
        )
        with user_fit.one_at_a_time(self._running, self):
            return self._fit(arguments, Listeners(on_sample, on_scores, user_fit.sampling_callbacks(callbacks)))

    def _fit(self, arguments: dict, listeners: Listeners) -> keras.callbacks.History:
        """Run a `fit` with all its arguments by name."""
        self._summary = messages.INTERRUPTED_EARLY
        if not self.model.compiled:
            raise ValueError(
                "`model` must be compiled: call `model.compile(...)` before `fit`. "
                f"Received: model={self.model.name!r}, not compiled"
            )
        self._state = self._state or TrainerState(self._seed, kind=type(self).__name__)
        self._state.reset_totals()
        if not self.condition.probes and listeners.is_empty and not has_lazy_rows(arguments):
            history = self._fit_uniformly(arguments)
        else:
            history = self._fit_with_controller(arguments, listeners)
        logger.info("%s", self._summary.splitlines()[0])
        return history

    def _fit_uniformly(self, arguments: dict) -> keras.callbacks.History:
        """Run the `fit` of Keras on the user's arguments: the trainer is switched off, and there are no listeners."""
        traced = self._compiled.keras_function  # in an earlier `fit` with listeners
        if self.model.train_function is None and traced is not None and traced.is_of(self.model):
            self.model.train_function = traced.function
        counter = UniformFit(self.model, self.condition, self._state)
        with self._summarised(counter):
            return counter.fit(arguments)

    def _fit_with_controller(self, arguments: dict, listeners: Listeners) -> keras.callbacks.History:
        """Run the `fit` of Keras, with a controller in the place of Keras's training function."""
        try:
            controller = self._make_controller(arguments, listeners)
        except BaseException:
            self._compiled.release()
            raise
        try:
            with self._summarised(controller):
                return fit_with_controller(controller, arguments)
        finally:
            controller.release()

    @contextlib.contextmanager
    def _summarised(self, run: FitController | UniformFit) -> Iterator[None]:
        """Write the summary of a `fit` at its end, also after an error."""
        try:
            yield
        except BaseException as error:
            self._summary = messages.summarise_interrupted(error, type(self).__name__, run)
            raise
        self._summary = messages.summarise(type(self).__name__, run)

    @property
    def forward_equivalents(self) -> float:
        """The cost of all training so far, in forward passes of a batch: 3 a step, and 1 a batch that was scored.

        A backward pass counts as two, a callable `score` as one. The cost is computed, not timed, so it is the same on
        every machine.
        """
        return 0.0 if self._state is None else self._state.counters.forward_passes

    @property
    def importance_steps(self) -> int:
        """The number of importance steps of all training so far, without those drawn uniformly for lack of scores."""
        return 0 if self._state is None else self._state.counters.importance_steps

    def save_state(self, path: str | Path) -> None:
        """Save the trainer's state (averages, random stream, counters; not the model) to an npz file.

        Raises:
            ValueError: there is none before the first `fit`.
        """
        if self._state is None:
            raise ValueError("`save_state` needs a state to save: call `fit` first. Received: a trainer without one")
        save_state(self._state, path)

    def load_state(self, path: str | Path) -> None:
        """Continue from a state that `save_state` wrote.

        Raises:
            ValueError: the file is of another kind, or of another kind of trainer.
        """
        self._state = self._state or TrainerState(0, kind=type(self).__name__)
        messages.warn_of_another_model(load_state(self._state, path), steps_taken(self.model), path)
        self._state.decision.apply_to(self.condition)

    def _make_controller(self, arguments: dict, listeners: Listeners) -> FitController:
        """Plan a `fit` and return the controller that runs its steps."""
        if not self._compiled.update():
            self._state.begin_anew()
        plan = self._plan(arguments, listeners, deferred := messages.DeferredWarnings())
        is_new = plan.source is not None and self._is_indexed(plan) and self._state.set_dataset(plan.source.digest)
        if is_new and self._state.counters.steps:  # the gate waits for a first epoch on these rows
            self._state.decision.apply_to(self.condition)
        # Before the batches of a stream show their size, listeners get the sampler of a strategy of the default size.
        known = plan if plan.batch_size else FitPlan(plan.arguments)
        strategy = self._strategy(known, known.batch_size)
        if self.condition.probes and plan.allows_sampling and plan.batch_size is not None:
            try:
                self._compiled.use(strategy, plan)
            except Unsupported as error:
                plan = dataclasses.replace(plan, reason=str(error))
                deferred.add(eligibility.uniform_training_message(plan.reason))
        return FitController(
            self.model,
            plan,
            UniformSteps(self.model, self._compiled.keras_function, plan, listeners.needs_row_indices),
            strategy,
            lambda batch_size: self._compiled.use(self._strategy(plan, batch_size), plan),
            self.condition,
            self._state,
            listeners,
            deferred,
        )

    def _plan(self, arguments: dict, listeners: Listeners, deferred: messages.DeferredWarnings) -> FitPlan:
        """Plan a `fit`, and add the warnings about its data."""
        name = f"{type(self).__name__}{self._rows_argument}"
        is_on, needs_indices = self.condition.probes, listeners.needs_row_indices
        plan = make_plan(self.model, arguments, name, is_on, self.needs_rows, needs_indices, self.accepts_train_step)
        if plan.warning is not None:
            deferred.add(plan.warning)
        if plan.reason is not None:
            deferred.add(eligibility.uniform_training_message(plan.reason), backend.spans_processes(self.model))
        elif is_on and plan.batches_per_pass and plan.source.num_rows < self._rows_needed(plan, plan.batch_size):
            of = "a batch" if self._is_indexed(plan) else "a pool of candidates"
            return dataclasses.replace(plan, reason=f"the data have fewer rows ({plan.source.num_rows}) than {of}")
        return plan

    def _strategy(self, plan: FitPlan, batch_size: int) -> Strategy:
        """Return the strategy for these data and this batch size, with its compiled steps."""
        is_indexed = plan.source is not None and self._is_indexed(plan)
        return self._compiled.strategy(self._make_strategy, plan, batch_size, is_indexed)
