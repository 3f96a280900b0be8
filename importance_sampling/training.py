"""The facade: one class per training scheme, each saying what it composes.

    fit -> source -> gate -> scores -> sampler -> weights -> step

Keras's own `fit` runs the loop, on the user's own model, with the user's own callbacks: for the length of the call the
trainer's function stands in for `model.train_function`. Source: [KF18] Katharopoulos & Fleuret, Not All Samples Are
Created Equal, ICML 2018 (arXiv 1803.00942). Nothing is computed here.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from importance_sampling import scores, support
from importance_sampling.compiled import Compiled
from importance_sampling.conditions import Condition, GrowthCondition, VarianceReductionCondition
from importance_sampling.events import Listeners
from importance_sampling.loop import TrainFunction, plain_message
from importance_sampling.pre_activations import find_layer
from importance_sampling.reporting import Reporter, checkpointed, reported
from importance_sampling.reweighting import BiasedReweightingPolicy
from importance_sampling.samplers import resampling as resampling_schemes
from importance_sampling.samplers.pool import PoolSampler
from importance_sampling.sources import Prepared, is_mapped, prepare, unread
from importance_sampling.state import TrainerState
from importance_sampling.summary import summarise
from importance_sampling.weighted_loss import Unsupported

logger = logging.getLogger("importance_sampling")


class ImportanceTraining:
    """Train a compiled Keras model by importance sampling: `ImportanceTraining(model).fit(...)` for `model.fit(...)`.

    Every importance step scores a pool of `presample * batch_size` uniform candidates, draws the batch from it with
    P_i = (1 - alpha) s_i / sum(s) + alpha / B, and weighs each sample by 1 / (B P_i), so that the expected gradient is
    that of uniform batches. Unbiased; a step costs about 1 + presample/3 plain ones, and is only taken while the gate
    finds that it is worth it. Until then every step is Keras's own.

    It loses where the gradient's noise is not what limits training: early on, with very noisy labels, or under a
    learning rate that has decayed; the default gate sees only the first of these.

    Args:
        model: a compiled `keras.Model`; it stays the user's own.
        presample: float >= 1, default 3; candidates per picked sample. At 1.5 or less the default gate never opens.
        tau_th: None (default) opens while the effective batch grows by more than a step costs; a float t opens while
            tau > t, the published rule ((presample + 3) / 3 in the paper); t <= 1 from the first step,
            `float("inf")` never: then training equals `model.fit` bit for bit.
        forward_batch_size: int or None (default); how many candidates are scored at once, to bound memory.
        score: "gnorm" (default), "loss", "full_gnorm", or a callable `score(model, x, y)` -> `(batch,)`, >= 0.
        layer: a layer, its name or index: take the gradient of "gnorm" there, not at the model's outputs.
        alpha: float in (0, 1], default 0.1; the uniform share. No weight exceeds 1/alpha.
        resampling: "systematic" (default) or "multinomial", the paper's.
        seed: int or None (default); of the library's own random stream. None follows `keras.utils.set_random_seed`.

    Raises:
        ValueError: an argument is out of its range, or `layer` isn't in the model.

    Example:
        >>> model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        >>> trainer = ImportanceTraining(model)
        >>> history = trainer.fit(x_train, y_train, batch_size=128, epochs=3, validation_data=(x_test, y_test))
        >>> print(trainer.summary())

    Source: [KF18], Algorithm 1. The published method is `presample=3.0, tau_th=2.0, resampling="multinomial"`.
    """

    def __init__(
        self,
        model: keras.Model,
        presample: float = 3.0,
        tau_th: float | None = None,
        forward_batch_size: int | None = None,
        score: str | Callable = "gnorm",
        layer: keras.Layer | str | int | None = None,
        *,
        alpha: float = 0.1,
        resampling: str = "systematic",
        seed: int | None = None,
    ):
        if not isinstance(model, keras.Model):
            raise ValueError(f"`model` must be a `keras.Model`. Received: model={model!r} (of type {type(model)})")
        if not _is_number(presample) or not 1 <= presample < float("inf"):
            raise ValueError(f"`presample` must be a finite number of at least 1. Received: presample={presample!r}")
        if not _is_number(alpha) or not 0 < alpha <= 1:
            raise ValueError(f"`alpha` must be a number in (0, 1]. Received: alpha={alpha!r}")
        if forward_batch_size is not None and (not _is_number(forward_batch_size) or int(forward_batch_size) < 1):
            raise ValueError(
                "`forward_batch_size` must be a positive int, or None to score a pool whole. "
                f"Received: forward_batch_size={forward_batch_size!r}"
            )
        if seed is not None and (not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**31):
            raise ValueError(f"`seed` must be an int in [0, 2**31), or None. Received: seed={seed!r}")
        if tau_th is not None and (not _is_number(tau_th) or np.isnan(tau_th)):
            raise ValueError(f"`tau_th` must be a number, or None for the default gate. Received: tau_th={tau_th!r}")
        scores.check(score)
        if layer is not None:
            find_layer(model, layer)
        self.model = model
        self.presample = float(presample)
        self.forward_batch_size = None if forward_batch_size is None else int(forward_batch_size)
        self.score = score
        self.layer = layer
        self.alpha = float(alpha)
        self.resampling = resampling_schemes.get(resampling)
        self.condition: Condition = (
            GrowthCondition(self.presample) if tau_th is None else VarianceReductionCondition(tau_th)
        )
        if tau_th is None and self.presample <= 1.5:
            warnings.warn(
                f"With presample={presample} the default gate never opens: the effective batch can't grow by more than "
                "a step costs. Use a `presample` above 1.5, or a number for `tau_th`.",
                stacklevel=2,
            )
        self._seed = None if seed is None else int(seed)
        self._state: TrainerState | None = None
        self._compiled: dict[tuple, Compiled] = {}
        self._summary = "fit has not been called yet."

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

        While importance steps are taken, loss and metrics are those of the uniform pools, in inference mode: what
        `evaluate` would say. Candidates come from shuffled passes over the training rows, `shuffle` notwithstanding.

        Args:
            on_sample: called as `on_sample(sampler, indices, weights, scores)` after every gradient step, with NumPy
                arrays of the rows trained on. In plain steps weights are 1 and scores NaN: nothing was scored.
            on_scores: called as `on_scores(sampler, scores)` for every pool, or probe, that was scored.

        Returns:
            Keras's `History`, with the model's own metrics and beside them `score` (mean score of the candidates),
            `tau`, both moving averages and NaN where nothing was measured, and `importance`, the share of the epoch's
            steps that were importance steps.

        Raises:
            ValueError: the model isn't compiled, `score="loss"` with a loss that is negative, or what Keras refuses.
        """
        arguments = {name: value for name, value in locals().items() if name not in ("self", "on_sample", "on_scores")}
        if not self.model.compiled:
            raise ValueError(
                "`model` must be compiled: call `model.compile(...)` before `fit`. "
                f"Received: model={self.model.name!r}, not compiled"
            )
        listeners = Listeners(on_sample, on_scores)
        if self._state is None:
            self._state = TrainerState(self._seed)
        self._state.begin()
        prepared, reason = self._prepare(arguments, listeners)
        before = self.model.train_function
        keras_function = before or self._keras_function()
        compiled = self._compile(keras_function, prepared)
        condition = self.condition if reason is None and prepared.source is not None else None
        if condition is not None and condition.probes:
            compiled.use(prepared.source)
            try:
                self._dry_run(compiled, prepared)
            except Unsupported as error:
                reason, condition = str(error), None
                warnings.warn(plain_message(reason), stacklevel=2)
        function = TrainFunction(self.model, keras_function, prepared, condition, compiled, self._state, listeners)

        self._state.counters["satisfied"] = int(self.condition.satisfied)  # for a state saved ahead of the first look
        started = dict(self._state.counters)

        def restored() -> None:
            self._restore_condition()
            function.pools, function.signals = None, self._state.signals
            self._state.begin()
            started.update(self._state.counters)

        self.model.train_function = function
        try:
            with (
                checkpointed(callbacks, self._state, restored),
                reported(callbacks, Reporter(function)) as prepared.arguments["callbacks"],
            ):
                history = self.model.fit(**prepared.arguments)
        finally:
            self.model.train_function = before
            function.pools = None  # or it would still read ahead while Python shuts down, and hang there
        self._summary = summarise(self, function, reason, started)
        logger.info("%s", self._summary.splitlines()[0])
        return history

    def summary(self) -> str:
        """What the last `fit` did, in words: when the gate opened, for how much, or why it stayed closed."""
        return self._summary

    @property
    def forward_equivalents(self) -> float:
        """What all training so far has cost, in forward passes of a batch: 3 a step, and 1 a batch that was scored.

        A backward pass counts as two forwards; a callable `score` as one, whatever it does. It is arithmetic, not time:
        the same on any machine.
        """
        return 0.0 if self._state is None else self._state.counters["forwards"]

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
            ValueError: the file is of another kind.
        """
        if self._state is None:
            self._state = TrainerState(0)
        self._state.load(path)
        self._restore_condition()

    def _prepare(self, arguments: dict, listeners: Listeners) -> tuple[Prepared, str | None]:
        """The data, and why there can't be importance sampling, if so."""
        by_row = listeners.want_samples or any(
            is_mapped(leaf) for leaf in keras.tree.flatten([arguments["x"], arguments["y"]])
        )
        if support.feeds_itself(self.model) or not (self.condition.probes or by_row):
            prepared = Prepared(unread(arguments))
        else:
            prepared = prepare(arguments, by_row)
        if not self.condition.probes:
            return prepared, None
        reason = support.obstacle(self.model) or prepared.reason
        if reason is not None:
            warnings.warn(plain_message(reason), stacklevel=3)
        elif prepared.source is not None and prepared.source.num_rows < self._pool_size(prepared.batch_size):
            reason = f"the data have fewer rows ({prepared.source.num_rows}) than a pool of candidates"
        return prepared, reason

    def _pool_size(self, batch_size: int) -> int:
        return round(self.presample * batch_size)

    def _keras_function(self) -> Callable:
        """Keras's own training function, made once for a model as compiled."""
        for compiled in self._compiled.values():
            if compiled.is_of(self.model):
                return compiled.keras_function
        self.model.make_train_function()
        return self.model.train_function

    def _compile(self, keras_function: Callable, prepared: Prepared) -> Compiled:
        """The compiled steps for this model as compiled, these data, this batch size."""
        self._compiled = {key: one for key, one in self._compiled.items() if one.is_of(self.model)}
        key = (prepared.batch_size, prepared.signature)
        if key not in self._compiled:
            sampler = PoolSampler(
                self._pool_size(prepared.batch_size),
                prepared.batch_size,
                self.alpha,
                self.resampling,
                BiasedReweightingPolicy(),
            )
            self._compiled[key] = Compiled(
                self.model, keras_function, sampler, self._state, self.score, self.layer, self.forward_batch_size
            )
        return self._compiled[key]

    def _dry_run(self, compiled: Compiled, prepared: Prepared) -> None:
        """Find out before the first step what scoring would stumble over, where that can be told."""
        if not self.condition.satisfied and self.score in ("gnorm", "full_gnorm"):
            return
        rows = np.arange(min(prepared.batch_size, prepared.source.num_rows))
        batch = prepared.source.read(rows)
        compiled.build(batch)
        compiled.check(batch)
        if self.score == "loss" or callable(self.score):
            compiled.check_scores(batch)

    def _restore_condition(self) -> None:
        self.condition.restore(bool(self._state.counters["satisfied"]))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
