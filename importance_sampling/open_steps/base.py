"""What a trainer does while its gate is open, for one model as compiled, one batch size and one kind of data.

It wires model, score, sampler and state into the compiled steps of `model_wrappers` and holds what came out, so that a
`fit` in a loop compiles once. When to open is decided elsewhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.conditions import Cost, Signals, Terms
from importance_sampling.conditions.cost import PLAIN_STEP
from importance_sampling.events import Listeners
from importance_sampling.fit import eligibility
from importance_sampling.pre_activations import PreActivations
from importance_sampling.scores import Scored, Scorer, Scoring, flat
from importance_sampling.sources import Prepared
from importance_sampling.state import TrainerState
from importance_sampling.utils.numerics import FLOAT
from importance_sampling.weighted_loss import Unsupported, reporting_failure


class OpenSteps:
    """The probe of the closed gate and the steps of the open one.

    A kind of training is a subclass that has `take` and `signals`.

    Args:
        model: compiled; built by the time anything is asked for.
        keras_function: Keras's own training function for the model.
        state: the trainer's.
        scoring: `Scoring`, how samples are scored.

    Attributes:
        sampler: what the listeners are told is the sender.
        batch_size: int, of the steps.
        reads_batches: bool, whether open steps take batches from Keras's own iterator.
        cost: `Cost`, of a step by how much is scored for it.
        left: float, how many steps of `fit` are still to come.
    """

    reads_batches = False

    def __init__(
        self,
        model: keras.Model,
        keras_function: Callable,
        sampler: Any,
        batch_size: int,
        state: TrainerState,
        scoring: Scoring,
    ):
        self.model = model
        self.keras_function = keras_function
        self.sampler = sampler
        self.batch_size = batch_size
        self.state = state
        self.scoring = scoring
        self.points = PreActivations(model, scoring.layer)
        self.scorer = Scorer(model, scoring.score, self.points, scoring.slice_size)
        self.cost = Cost()
        self.left = float("inf")
        self._compiled_tracker = keras_internals.loss_tracker(model)
        self.keras_traced = False  # whether Keras's function has run
        self.prepared: Prepared | None = None
        self._checked = False
        self._compiled_scorer: Callable | None = None
        self._observe: Callable | None = None

    def use(self, prepared: Prepared) -> None:
        """Take the data of a `fit`; those of one structure share the compiled steps."""
        self.prepared = prepared

    def prepare(self) -> tuple:
        """Get ready for the first open step: build the model, find out whether its samples can be weighed.

        Returns:
            The batch that it was found out on.

        Raises:
            Unsupported: they can't.
        """
        batch = self.prepared.source.example(self.batch_size)
        self.build(batch)  # a state that was restored open may come ahead of every plain step
        self.check(batch)
        return batch

    def ready(self, n: int, draw: Callable, give_back: Callable) -> int:
        """Get ready for up to n open steps; returns for how many the data suffice.

        Args:
            draw: returns the batch that Keras would train on next, raises StopIteration where its pass ends.
            give_back: takes a list of batches that were drawn and not used, in their order.
        """
        return n

    def take(self, iterator: Any, n: int, listeners: Listeners) -> dict:
        """Take n open steps, tell the listeners, `spend` what scoring took, and return the logs of the last.

        Args:
            iterator: Keras's own, to be left alone unless `reads_batches`.
        """
        raise NotImplementedError

    def signals(self, scores: Any) -> Signals:
        """What the scores of a fair sample say of the steps of this kind."""
        raise NotImplementedError

    def choose(self, signals: Signals) -> None:
        """Choose between kinds of steps, where there are several, as the gate looks at the averages."""

    def offer(self, signals: Signals) -> tuple[Signals, Terms]:
        """What these steps promise a gate, and on which terms.

        Args:
            signals: the averages.
        """
        return signals, Terms()

    def summary(self, name: str, open_steps: int, steps: int) -> str | None:
        """What was done in a `fit`, in words of this kind of step; None: what `summary.py` says.

        Args:
            name: of the kind of training.
            open_steps: int > 0, of all `steps`.
        """
        return None

    def notes(self) -> list[str]:
        """Lines for the summary of a `fit` in which such steps were taken."""
        return []

    def release(self) -> None:
        """Let go of what reads the data, after a `fit` and before a state is restored."""

    def forget(self) -> None:
        """Let go of the data: whoever keeps a trainer need not keep them."""
        self.release()
        self.prepared = None

    def is_of(self, model: keras.Model) -> bool:
        """Whether the model is compiled as it was; `compile` makes a new loss tracker."""
        return keras_internals.loss_tracker(model) is self._compiled_tracker

    def is_ready(self) -> bool:
        """Whether the model's variables, its loss and its metrics have been built."""
        return eligibility.is_built(self.model)

    def build(self, batch: tuple) -> None:
        """Build what Keras would build at its first step."""
        eligibility.build(self.model, batch)

    def check(self, batch: tuple) -> None:
        """Check once, on a batch, that samples can be weighted.

        Raises:
            Unsupported: they can't.
        """
        if not self._checked:
            eligibility.check_loss(self.model, self.points, batch)
            eligibility.check_rows(self._row_quantities, batch)
            self._checked = True

    def try_scores(self) -> None:
        """Score a batch ahead of the first step, where the score may turn out to be no importance.

        Raises:
            Unsupported: samples can't be weighed.
            ValueError: a score is negative.
        """
        if self.scorer.score != "loss" and not callable(self.scorer.score):
            return
        batch = self.prepare()
        with contextlib.suppress(Unsupported):  # trains plainly, with its own warning, when it comes to it
            values = ops.convert_to_numpy(self.scorer(batch).scores)
            if (values < 0).any():
                raise ValueError(
                    '`score` must never be negative; a loss that can be is no importance: use score="gnorm". '
                    f"Received: score={self.scorer.score!r}, with a smallest value of {values.min():.4g}"
                )

    def spend(self, scored: int = 0, trained: int = 0) -> None:
        """Count what comes on top of the 3 forward passes of a batch that every step is taken to cost.

        Args:
            scored: how many rows were scored.
            trained: how many rows more than a batch a step was trained on; negative if fewer.
        """
        rows = self.scorer.passes * scored + PLAIN_STEP * trained
        self.state.counters["forwards"] += rows / self.batch_size

    def probe(self, batch: tuple, steps: float) -> Any:
        """Score a batch for the gate and update the averages of its signals; the model stays as it is.

        Args:
            batch: `(x, y, sample_weight)`.
            steps: steps since the last probe.

        Returns:
            The scores, float32 `(rows,)`.
        """
        scores = self._score(batch).scores
        if self._observe is None:
            self._observe = backend.compile_step(
                lambda scores, steps: self.state.observe(self.signals(scores), steps), self.model
            )
        self._observe(scores, ops.convert_to_tensor(float(steps), dtype=FLOAT))
        return scores

    def compile(self, function: Callable, **options: Any) -> Callable:
        """Compile a step. A failure to trace it, before it has changed anything, raises `Unsupported`."""
        if not self.model.run_eagerly and not callable(self.scorer.score):
            function = reporting_failure(function)
        return backend.compile_step(function, self.model, **options)

    def _score(self, batch: tuple) -> Scored:
        if self._compiled_scorer is None:
            self._compiled_scorer = self.compile(lambda *batch: self.scorer(batch))
        return self._compiled_scorer(*batch)

    def _row_quantities(self, batch: tuple) -> dict[str, list]:
        """Return everything about a batch that has a row per sample, in inference mode."""
        scored = self._score(batch)
        quantities = {"outputs": flat(scored.y_pred)[0], "losses": scored.losses}
        if not callable(self.scorer.score):
            # Scores of masked sequences have a factor in common.
            quantities["scores"] = [scored.scores / ops.maximum(ops.max(scored.scores[::2]), 1e-30)]
        return quantities
