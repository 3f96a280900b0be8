"""A trainer's compiled functions for one model as compiled, one batch size and one kind of data, made when wanted.

It wires model, score, sampler and state into the steps of `model_wrappers` and holds what came out, so that a `fit` in
a loop compiles once. It decides nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from importance_sampling import backend, support
from importance_sampling.model_wrappers import ImportanceStep, Probe
from importance_sampling.pre_activations import PreActivations
from importance_sampling.samplers.pool import PoolSampler
from importance_sampling.scores import Scorer
from importance_sampling.sources import ArraySource
from importance_sampling.state import TrainerState
from importance_sampling.weighted_loss import Unsupported


class Compiled:
    """The probe and the steps.

    Args:
        model: compiled; built by the time anything is asked for.
        keras_function: Keras's own training function for the model.
        sampler, state: the trainer's.
        score, layer, slice_size: what the trainer was constructed with.
    """

    def __init__(
        self,
        model: keras.Model,
        keras_function: Callable,
        sampler: PoolSampler,
        state: TrainerState,
        score: str | Callable,
        layer: Any,
        slice_size: int | None,
    ):
        self.model = model
        self.keras_function = keras_function
        self.sampler = sampler
        self.state = state
        self.points = PreActivations(model, layer)
        self.scorer = Scorer(model, score, self.points, slice_size)
        self._loss_tracker = model._loss_tracker
        self.keras_traced = False  # whether Keras's function has run
        self._checked = False
        self._pack: Callable | None = None
        self._probe: Callable | None = None
        self._steps: dict[bool, Callable] = {}

    def use(self, source: ArraySource) -> None:
        """Take the structure of the data; sources of one structure share the compiled steps."""
        self._pack = source.pack

    def is_of(self, model: keras.Model) -> bool:
        """Whether the model is compiled as it was; `compile` makes a new loss tracker."""
        return model._loss_tracker is self._loss_tracker

    def is_ready(self) -> bool:
        """Whether the model's variables, its loss and its metrics have been built."""
        kind, loss, metrics = type(self.model), self.model._compile_loss, self.model._compile_metrics
        return (
            self.model.built
            and self.model.optimizer.built
            and (loss is None or loss.built or kind.compute_loss is not keras.Model.compute_loss)
            and (metrics is None or metrics.built or kind.compute_metrics is not keras.Model.compute_metrics)
        )

    def build(self, batch: tuple) -> None:
        """Build what Keras would build at its first step."""
        if not self.is_ready():
            self.model._symbolic_build(data_batch=batch)

    def check(self, batch: tuple) -> None:
        """Find out once, on a batch, whether samples can be weighed.

        Raises:
            Unsupported: they can't.
        """
        if not self._checked:
            support.check(self.model, self.points, batch)
            self._checked = True

    def check_scores(self, batch: tuple) -> None:
        """Raise if the scores of a batch can't be importance.

        Raises:
            ValueError: one is negative, or the loss can't be told by sample.
        """
        with contextlib.suppress(Unsupported):  # trains plainly, with its own warning, when it comes to it
            values = ops.convert_to_numpy(self.scorer(batch).scores)
            if (values < 0).any():
                raise ValueError(
                    '`score` must never be negative; a loss that can be is no importance: use score="gnorm". '
                    f"Received: score={self.scorer.score!r}, with a smallest value of {values.min():.4g}"
                )

    def scoring_cost(self, samples: int) -> float:
        """What scoring so many samples costs, in forward passes of a batch."""
        return self.scorer.passes * samples / self.sampler.batch_size

    def probe(self) -> Callable:
        """`probe(x, y, sample_weight, steps)`."""
        if self._probe is None:
            presample = self.sampler.pool_size / self.sampler.batch_size
            self._probe = backend.compile_step(Probe(self.scorer, self.sampler, presample, self.state), self.model)
        return self._probe

    def steps(self, listening: bool) -> Callable:
        """`steps(pools, n) -> (logs, drawn)`."""
        if listening not in self._steps:
            step = ImportanceStep(self.model, self.scorer, self.points, self.sampler, self.state, listening)
            pack = self._pack
            self._steps[listening] = backend.run_steps(
                lambda indices, *columns: step(indices, pack(columns)), self.model
            )
        return self._steps[listening]
