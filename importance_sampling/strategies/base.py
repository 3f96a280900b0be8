"""The parts that all strategies share: a strategy takes training steps and returns their results.

A strategy belongs to one model as compiled and keeps its compiled functions.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from importance_sampling import backend
from importance_sampling.conditions import GateContext, Signals
from importance_sampling.conditions.base import UNIFORM_STEP
from importance_sampling.core import eligibility
from importance_sampling.core.logits import Logits
from importance_sampling.core.scoring import Scored, Scorer, Scoring
from importance_sampling.data.batches import PeekableBatches, flatten
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.state import TrainerState
from importance_sampling.strategies.held_out import NONE_HELD_OUT, ComparedSamples
from importance_sampling.utils.errors import Unsupported


class StepResult(NamedTuple):
    """The result of one execution of one or several steps.

    The four sequences hold one array per step. They are empty if no listener asked for them.
    """

    logs: dict  # of the last step, as Keras's own step returns them
    steps: int  # 0: the pass had ended
    cost: float  # forward passes of a batch, a backward pass counting as two
    indices: Sequence = ()  # int64 (b,), row indices, -1 for samples of streams
    weights: Sequence = ()  # float32 (b,)
    scores: Sequence = ()  # float32 (b,), as predicted before the step; NaN where they weren't
    pool_scores: Sequence = ()  # float32 (n,), of the candidates, or as measured on the batch
    uniform_draws: int = 0  # those of the steps whose batches a sampler drew uniformly, for lack of scores

    def to_host(self) -> StepResult:
        """Return the result with the batches and scores as NumPy arrays."""
        if len(self.indices) == 0 and len(self.pool_scores) == 0:
            return self
        fields = ("indices", "weights", "scores", "pool_scores")
        return self._replace(**{name: list(map(ops.convert_to_numpy, getattr(self, name))) for name in fields})


class Strategy:
    """A way to take importance steps; a subclass implements `step` and `signals`.

    Args:
        model: a compiled model; built before the first call of `prepare`.
        sampler: what listeners get as the sampler.
        batch_size: int, of a step.
        state: the trainer's state.
        scoring: how samples are scored.

    Attributes:
        reads_rows: bool, True if rows are read by index, and the state belongs to one data set.
        needs_probes: bool, True if batches are scored for the gate between uniform steps.
        supports_replicas: bool, True if a step can be split over the replicas of a `tf.distribute` strategy.
        held_out: `HeldOut`, the training samples that are left out of the steps; none by default.
        num_held_out: int, the number of training samples that are left out of steps of this `fit`, default 0.
        accepts_negative_scores: bool, True if no sample is drawn in proportion to its score.
        computes_metrics: bool, True if the training metrics of its steps are computed here, as those of the dataset.
        measures_in_training: bool, True if scores and metrics are those of the training step, False if they are
            computed in inference mode.
    """

    reads_rows = False
    needs_probes = True
    supports_replicas = False
    held_out = NONE_HELD_OUT
    num_held_out = 0
    accepts_negative_scores = False
    computes_metrics = True
    measures_in_training = False

    def __init__(self, model: keras.Model, sampler: Any, batch_size: int, state: TrainerState, scoring: Scoring):
        self.model = model
        self.sampler = sampler
        self.batch_size = batch_size
        self.state = state
        self.scoring = scoring
        self.scorer = Scorer(model, scoring.score, Logits(model, scoring.layer), scoring.slice_size)
        self.plan: FitPlan | None = None
        self._checked = False
        self._compiled_scorer: Callable | None = None
        self._update_averages: Callable | None = None

    def use(self, plan: FitPlan) -> None:
        """Set the data of a `fit`."""
        self.plan = plan

    def check_replicas(self) -> None:
        """Check that the model trains on one replica, or that a step can be split over its replicas.

        Raises:
            Unsupported: neither is the case.
        """
        count = backend.replicas(self.model)
        if count > 1 and not self.supports_replicas:
            raise Unsupported(
                f"it trains on {count} replicas, and these importance steps can't be split. Train on one, or use "
                "`ImportanceTraining`"
            )
        if count > 1 and self.batch_size % count:
            raise Unsupported(
                f"it trains on {count} replicas, which can't share {self.batch_size} rows equally. Choose a batch "
                f"size that is a multiple of {count}"
            )

    def begin_epoch(self, epoch: int) -> int:
        """Begin an epoch; return the number of its steps, or 0 if Keras sets it."""
        return 0

    def figures(self) -> dict[str, float]:
        """Return further figures for History, by name."""
        return {}

    def compared_samples(self) -> ComparedSamples | None:
        """Return the samples that show whether training still generalises; None (default) if there are none."""
        return None

    def get_sampler(self) -> Any:
        """Return the sampler that listeners get."""
        return self.sampler

    def prepare(self) -> tuple:
        """Build the model and check that its samples can be weighted; return the batch used for that.

        Raises:
            Unsupported: they can't.
        """
        batch = self.plan.source.example(self.batch_size)
        try:
            eligibility.build(self.model, batch)  # the restored gate may be open before any uniform step
        except Exception as error:  # Keras's own step raises it in its own way
            raise Unsupported(f"it couldn't be built for a batch ({type(error).__name__}: {error})") from error
        self.check(batch)
        return batch

    def check(self, batch: tuple) -> None:
        """Check once, on a batch, that samples can be weighted.

        Raises:
            Unsupported: they can't.
        """
        if not self._checked:
            eligibility.check_loss(self.model, batch)
            eligibility.check_rows(self._row_quantities, batch)
            self._checked = True

    def take_checks(self, other: Strategy) -> None:
        """Take over what a strategy for the same model has checked of it."""
        self._checked = other._checked

    def refuse_negative_scores(self) -> None:
        """Check on a batch of the data that no score is negative, for scores that can be.

        Raises:
            Unsupported: samples can't be weighted.
            ValueError: a score is negative.
        """
        if self.accepts_negative_scores or (self.scorer.score != "loss" and not callable(self.scorer.score)):
            return
        batch = self.prepare()
        with contextlib.suppress(Unsupported):  # warned about when the first importance step is due
            values = ops.convert_to_numpy(self.scorer(batch).scores)
            if (values < 0).any():
                raise ValueError(
                    '`score` must not be negative; for a loss that can be negative use score="gnorm". '
                    f"Received: score={self.scorer.score!r}, with a smallest value of {values.min():.4g}"
                )

    def step(self, n: int, batches: PeekableBatches, steps_left: float, with_draws: bool) -> StepResult | None:
        """Take up to n importance steps.

        Args:
            n: int >= 1.
            batches: the batches of the pass; strategies that read rows by index leave them alone.
            steps_left: float, the number of steps left in this `fit`.
            with_draws: bool, fill in the per-sample fields of the result.

        Returns:
            `StepResult`, or None if the rest of the pass isn't enough for one step.

        Raises:
            Unsupported: samples can't be weighted.
        """
        raise NotImplementedError

    def signals(self, scores: Any) -> Signals:
        """Compute the gate's signals from the scores of uniformly drawn samples."""
        raise NotImplementedError

    def gate_context(self) -> GateContext:
        """Return the context for the gate's decision."""
        return GateContext()

    def describe(self, name: str, importance_steps: int, steps: int) -> str | None:
        """Return a summary in the words of this strategy, or None for the general one.

        Args:
            name: of the trainer.
            importance_steps: int > 0, those taken by this strategy, out of all `steps` of the `fit`.
        """
        return None

    def first_step_warning(self) -> str | None:
        """Return what the user should know when the first importance step has been taken; None for nothing."""
        return None

    def notes(self) -> list[str]:
        """Return further lines for the summary of a `fit` with importance steps."""
        return []

    def close(self) -> None:
        """Stop reading the data."""

    def release(self) -> None:
        """Drop all references to the data: a trainer that is kept must not keep them alive."""
        self.close()
        self.plan = None

    def probe(self, batch: tuple, steps: float) -> Scored:
        """Score a batch for the gate and update the averages of its signals; the model stays as it is.

        Args:
            batch: `(x, y, sample_weight)`.
            steps: steps since the last probe.

        Returns:
            The scores, outputs and losses.
        """
        scored = self._score(batch)
        if self._update_averages is None:
            self._update_averages = backend.compile_step(
                lambda scores, steps: self.state.update_averages(self.signals(scores), steps), self.model
            )
        self._update_averages(scored.scores, ops.convert_to_tensor(float(steps)))
        return scored

    def compile(self, function: Callable, **options: Any) -> Callable:
        """Compile a step. A failure to trace it, before it has changed anything, raises `Unsupported`."""
        if not self.model.run_eagerly and not callable(self.scorer.score):
            function = _reporting_failure(function)
        return backend.compile_step(function, self.model, **options)

    def cost_of(self, scored: float = 0, trained: float = 0) -> float:
        """Return the cost of scoring and training on a number of rows, in forward passes of a batch."""
        return (self.scorer.cost * scored + UNIFORM_STEP * trained) / self.batch_size

    def _score(self, batch: tuple) -> Scored:
        if self._compiled_scorer is None:
            self._compiled_scorer = self.compile(lambda *batch: backend.collect_rows(self.scorer(batch)))
        return self._compiled_scorer(*batch)

    def _row_quantities(self, batch: tuple) -> dict[str, list]:
        """Return everything about a batch that has a row per sample, in inference mode."""
        scored = self._score(batch)
        quantities = {"outputs": flatten(scored.y_pred)[0], "losses": scored.losses}
        if not callable(self.scorer.score):
            # Scores of masked sequences have a factor in common.
            scores = ops.convert_to_numpy(scored.scores)
            with np.errstate(all="ignore"):
                quantities["scores"] = [scores / max(scores[::2].max(), 1e-30)]
        return quantities


def _reporting_failure(function: Callable) -> Callable:
    """Return a wrapper that converts all errors of a function to `Unsupported`: training can continue without it."""

    @functools.wraps(function)
    def wrapped(*args: Any) -> Any:
        try:
            return function(*args)
        except Unsupported:
            raise
        except Exception as error:
            message = str(error).strip().split("\n")[0]
            raise Unsupported(
                f"building an importance step for this model failed with {type(error).__name__}: {message}. If "
                "`model.fit` trains it, please report this error"
            ) from error

    return wrapped
