"""What all trainers share: `fit` with the arguments of Keras's, the summary, and the state that can be saved.

Keras's own `fit` runs the loop, on the user's own model, with the user's own callbacks: for the length of the call the
trainer's function stands in for `model.train_function`. Which steps are taken while the gate is open is each
trainer's own business (`training`). Nothing is computed here.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from importance_sampling import scores
from importance_sampling.callbacks.base import connected, sampling_callbacks
from importance_sampling.conditions import Condition
from importance_sampling.events import Listeners
from importance_sampling.fit import eligibility, user_fit
from importance_sampling.fit.checkpoint import enclosed
from importance_sampling.fit.deferred_warnings import DeferredWarnings
from importance_sampling.fronts import Fronts, given
from importance_sampling.loop import TrainFunction, plain_message
from importance_sampling.open_steps import OpenSteps, RowSteps
from importance_sampling.pre_activations import find_layer
from importance_sampling.reporting import Reporter, listed, reported
from importance_sampling.sources import Prepared, is_store, prepare, prepare_own_fit, with_stores_unread
from importance_sampling.state import TrainerState
from importance_sampling.summary import INTERRUPTED_EARLY, summarise, summarise_interrupted
from importance_sampling.utils.validation import check_seed, is_real
from importance_sampling.weighted_loss import Unsupported

logger = logging.getLogger("importance_sampling")


class Trainer(Fronts):
    """Trains a compiled Keras model by the `fit` of Keras, with steps of another kind while a gate is open.

    Args:
        model: a compiled `keras.Model`; it stays the user's own.
        condition: the gate.
        forward_batch_size: int or None (default); how many candidates are scored at once, to bound memory.
        score: "gnorm" (default), "loss", "full_gnorm", or a callable `score(model, x, y)` -> `(batch,)`, >= 0.
        layer: a layer, its name or index: take the gradient of "gnorm" there, not at the model's outputs.
        seed: int in [0, 2**31) or None; of the library's own random stream. None follows Python's `random` as it
            stands at the first `fit`, which `keras.utils.set_random_seed` sets.

    Raises:
        ValueError: an argument is out of its range, or `layer` isn't in the model.
    """

    needs_rows = False  # whether open steps always ask for rows by index
    _asked_for_rows = ""  # by which argument, if by one

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
        if forward_batch_size is not None and (not is_real(forward_batch_size) or int(forward_batch_size) < 1):
            raise ValueError(
                "`forward_batch_size` must be a positive int, or None to score a pool whole. "
                f"Received: forward_batch_size={forward_batch_size!r}"
            )
        check_seed(seed)
        scores.check(score)
        if layer is not None:
            find_layer(model, layer)
        self.model = model
        self.condition = condition
        self.forward_batch_size = None if forward_batch_size is None else int(forward_batch_size)
        self.score = score
        self.layer = layer
        self._scoring = scores.Scoring(score, layer, self.forward_batch_size)
        self._seed = None if seed is None else int(seed)
        self._state: TrainerState | None = None
        self._steps: dict[tuple, OpenSteps] = {}
        self._summary = "fit has not been called yet."

    def _open_steps(self, keras_function: Callable, prepared: Prepared) -> OpenSteps:
        """The steps that are taken while the gate is open."""
        raise NotImplementedError

    def _new_state(self, seed: int | None) -> TrainerState:
        """A state of this kind of trainer, in which nothing was remembered yet."""
        return TrainerState(seed, kind=type(self).__name__)

    def _row_steps(
        self, keras_function: Callable, prepared: Prepared, make_sampler: Callable, alpha: float, scored: float = 0.0
    ) -> RowSteps:
        """Steps on rows that a sampler picks by index."""
        of_this = (prepared.batch_size, self._state, self._scoring)
        return RowSteps(self.model, keras_function, make_sampler, *of_this, scored, alpha)

    def _by_row(self, prepared: Prepared) -> bool:
        """Whether open steps ask for rows of these data by index."""
        return self.needs_rows

    def _rows_needed(self, prepared: Prepared) -> int:
        """How many rows of data there must be for an open step."""
        return prepared.batch_size

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

        Which rows importance steps see is the sampler's choice, `shuffle` notwithstanding.

        Args:
            on_sample: called as `on_sample(sampler, indices, weights, scores)` after every gradient step, with NumPy
                arrays, to be read only, of the rows trained on. In plain steps weights are 1 and scores NaN: nothing
                was scored. Rows of streams (tf.data, `PyDataset`, loaders, generators) have no numbers: their indices
                are -1.
            on_scores: called as `on_scores(sampler, scores)` for every pool, or probe, that was scored, and after
                every step on rows by index with the scores that it measured of them.

        Returns:
            Keras's `History`, with the model's own metrics and beside them `score` (mean score of the candidates),
            `tau`, both moving averages and NaN where nothing was measured, and `importance`, the share of the epoch's
            steps that were importance steps. A trainer that is switched off adds no keys.

        Raises:
            ValueError: the model isn't compiled, `score="loss"` with a loss that is negative, or what Keras refuses.
        """
        arguments = {name: value for name, value in locals().items() if name not in ("self", "on_sample", "on_scores")}
        self._summary = INTERRUPTED_EARLY
        if not self.model.compiled:
            raise ValueError(
                "`model` must be compiled: call `model.compile(...)` before `fit`. "
                f"Received: model={self.model.name!r}, not compiled"
            )
        hearing = sampling_callbacks(listed(callbacks))
        listeners = Listeners(on_sample, on_scores, hearing)
        self._state = self._state or self._new_state(self._seed)
        self._state.begin()
        if self._steps and not any(steps.is_of(self.model) for steps in self._steps.values()):
            self._state.counters["rate"] = 0.0  # another optimizer: the peak of the last one is none of its own
        deferred = DeferredWarnings()
        prepared, reason = self._prepare(arguments, listeners, deferred)
        self._meet(prepared)
        fit = user_fit.fit_of(self.model)
        before = self.model.train_function
        keras_function = before or self._keras_function()
        steps = self._steps_for(keras_function, prepared)
        condition = self.condition if reason is None and prepared.source is not None else None
        if condition is not None and condition.probes and prepared.batch_size is not None:
            try:
                self._ready(steps, prepared)
            except Unsupported as error:
                reason, condition = str(error), None
                deferred.add(plain_message(reason))
        function = TrainFunction(
            self.model,
            keras_function,
            prepared,
            condition,
            steps,
            self._state,
            listeners,
            lambda prepared: self._ready(self._steps_for(keras_function, prepared), prepared),
            deferred,
        )
        self._state.counters["satisfied"] = int(self.condition.satisfied)  # for a state saved ahead of the first look
        started = dict(self._state.counters)

        def restored() -> None:
            self._restore_condition()
            self._meet(prepared)
            function.steps.release()
            function.read()
            self._state.begin()
            started.update(self._state.counters)

        reporter = Reporter(function, adds_figures=self.condition.probes)
        enclose = functools.partial(enclosed, state=self._state, restored=restored, warn=deferred.add)
        shows_progress = arguments["verbose"] != 0
        self.model.train_function = function
        try:
            with (
                connected(hearing, prepared.source, reason, reporter, deferred.add),
                reported(callbacks, reporter, enclose, shows_progress) as prepared.arguments["callbacks"],
            ):
                history = fit(**given(prepared.arguments))
            deferred.release()  # a `fit` of the model's own may have trained without Keras's function
        except BaseException as error:
            self._summary = summarise_interrupted(error, self, function, reason, started)
            raise
        finally:
            if self.model.train_function is function:  # and not what a callback put in its place
                self.model.train_function = before
            function.release()
        self._summary = summarise(self, function, reason, started)
        logger.info("%s", self._summary.splitlines()[0])
        return history

    def summary(self) -> str:
        """Return what the last `fit` did until its end or an error: when the gate opened, or why it stayed closed."""
        return self._summary

    @property
    def forward_equivalents(self) -> float:
        """What all training so far has cost, in forward passes of a batch: 3 a step, and 1 a batch that was scored.

        A backward pass counts as two forwards; a callable `score` as one, whatever it does. It is arithmetic, not time:
        the same on any machine.
        """
        return 0.0 if self._state is None else self._state.counters["forwards"]

    @property
    def open_steps(self) -> int:
        """How many steps of all training so far were taken while the gate was open."""
        return 0 if self._state is None else self._state.counters["open_steps"]

    def save_state(self, path: str | Path) -> None:
        """Save the trainer's state (averages, random stream, counters; not the model) to an npz file.

        Raises:
            ValueError: there is none yet, before the first `fit`.
        """
        if self._state is None:
            raise ValueError("`save_state` needs a state to save: call `fit` first. Received: a trainer without one")
        self._state.save(path)

    def load_state(self, path: str | Path) -> None:
        """Go on from a state that `save_state` wrote.

        Raises:
            ValueError: the file is of another kind, or of another kind of trainer.
        """
        self._state = self._state or self._new_state(0)
        self._state.load(path)
        self._restore_condition()

    def _prepare(
        self, arguments: dict, listeners: Listeners, deferred: DeferredWarnings
    ) -> tuple[Prepared, str | None]:
        """The data, and why there can't be importance sampling, if so."""
        stored = any(
            is_store(leaf) for leaf in keras.tree.flatten([arguments[name] for name in ("x", "y", "sample_weight")])
        )
        needed = self.condition.probes or stored or listeners.needs_row_indices
        if user_fit.has_own_fit(self.model) and self.condition.probes and not self.needs_rows:
            prepared = prepare_own_fit(arguments)
        elif user_fit.reads_its_own_data(self.model) or not needed:
            prepared = Prepared(with_stores_unread(arguments))
        else:
            prepared = prepare(arguments, self.model, listeners.needs_row_indices)
        if prepared.warning is not None:
            deferred.add(prepared.warning)
        if not self.condition.probes:
            return prepared, None
        if self.needs_rows and prepared.source is not None and not prepared.source.has_rows:
            raise ValueError(
                f"`x` must be data whose rows can be asked for by index (arrays, memory maps, a dataset) for "
                f"{type(self).__name__}{self._asked_for_rows}; streams are for the pools of `ImportanceTraining`. "
                f"Received: x={arguments['x']!r}"
            )
        reason = eligibility.unsupported_reason(self.model) or prepared.reason
        if reason is None and self.needs_rows and user_fit.has_own_fit(self.model):
            reason = (
                f"{type(self.model).__name__} defines a `fit` that prepares the data, whose rows can't be asked for by "
                "index. Use the pools of `ImportanceTraining`, which sample the prepared batches"
            )
        if reason is not None:
            deferred.add(plain_message(reason))
        elif prepared.num_batches and prepared.source.num_rows < self._rows_needed(prepared):
            of = "a batch" if self._by_row(prepared) else "a pool of candidates"
            reason = f"the data have fewer rows ({prepared.source.num_rows}) than {of}"
        return prepared, reason

    def _meet(self, prepared: Prepared) -> None:
        """Have what was learnt of other rows forgotten: a pass over these comes first."""
        if prepared.source is None or not self._by_row(prepared):
            return
        if self._state.meet(prepared.source.digest) and self._state.counters["steps"]:
            self._restore_condition()

    def _keras_function(self) -> Callable:
        """Keras's own training function, made once for a model as compiled."""
        for steps in self._steps.values():
            if steps.is_of(self.model):
                return steps.keras_function
        self.model.make_train_function()
        return self.model.train_function

    def _steps_for(self, keras_function: Callable, prepared: Prepared) -> OpenSteps:
        """The compiled steps for this model as compiled, these data, this batch size."""
        self._steps = {key: one for key, one in self._steps.items() if one.is_of(self.model)}
        if prepared.batch_size is None:
            prepared = Prepared(prepared.arguments)  # a sender for the listeners, until the first batch is met
        key = (
            prepared.batch_size,
            prepared.signature,
            getattr(prepared.source, "num_rows", 0) if self._by_row(prepared) else 0,
        )
        if key not in self._steps:
            self._steps[key] = self._open_steps(keras_function, prepared)
        return self._steps[key]

    def _ready(self, steps: OpenSteps, prepared: Prepared) -> OpenSteps:
        """The steps with the data to take them on; what scoring would stumble over is found out where it can be told.

        Raises:
            Unsupported: the samples can't be weighed.
        """
        for other in self._steps.values():
            other.forget()  # the data of an earlier `fit`
        steps.use(prepared)
        steps.try_scores()
        return steps

    def _restore_condition(self) -> None:
        self.condition.restore(bool(self._state.counters["satisfied"]))
