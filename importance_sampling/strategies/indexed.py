"""Importance steps on rows by index, for samplers that know their scores before the step.

The sampler draws on the host, in NumPy; rows are gathered on the device, and those of memory maps are read on the host.
Scores that the steps measure stay on the device until the sampler needs them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from importance_sampling import backend
from importance_sampling.conditions import GateContext, Signals, step_cost
from importance_sampling.conditions.signals import uniform_signals
from importance_sampling.core.scoring import Scoring
from importance_sampling.data.batches import PeekableBatches
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.state import TrainerState
from importance_sampling.samplers.base import BaseSampler, Drawn
from importance_sampling.strategies.base import StepResult, Strategy
from importance_sampling.strategies.dataset_rows import DatasetRows
from importance_sampling.strategies.held_out import NONE_HELD_OUT, ComparedSamples, HeldOut, hold_out
from importance_sampling.strategies.indexed_step import MEASURED_SCORES, IndexedStep
from importance_sampling.utils.numerics import DEFAULT_ALPHA, all_usable

# Drawing by known scores costs so little that any variance gain would open the gate. It must be larger. Where high
# scores are wrong labels the gain is lost again: a fifth of wrong labels holds it below 2 until the network has
# memorised them. The gain measures how much the noise is reduced, not whether noise limits the training: logistic
# regression on MNIST has a gain of 3 to 4 from its third epoch on without training faster; networks that have learnt
# most of their data have gains far above 5.
REQUIRED_GAIN = 5.0
MAX_PENDING = 64  # steps whose scores wait on the device
NOT_COMPARED = (
    "The gate knew the validation loss only at the ends of epochs: the validation data aren't arrays in memory like "
    "the training data, or fewer than 100 rows."
)
NO_SCORES = "its scores were NaN, infinite or negative, or it didn't draw by scores"
MEASURING = "the first pass over the data only measured the scores"


class IndexedStrategy(Strategy):
    """Draws rows with a sampler, trains on them and passes the measured scores back to the sampler.

    Args:
        model, batch_size, state, scoring: as for `Strategy`.
        make_sampler: called as `make_sampler(rows)` with a `DatasetRows` for every data set; returns a `BaseSampler`.
        scored: float, default 0; how often the sampler has every row of an epoch scored.
        alpha: float in (0, 1], default 0.1; the sampler's uniform share.
        holds_out: bool, default False; True if the gate needs the loss of held-out samples. Without validation data the
            sampler, which has an attribute `held_out`, then leaves some training samples out.

    Attributes:
        rows: the rows of the training set, for the sampler.
    """

    rows_class = DatasetRows
    reads_rows = True
    supports_replicas = True
    measures_in_training = True
    measures_scores = True  # False if only scoring passes give the sampler its scores
    draws_by_score = True  # False if all batches of the sampler are meant to be uniform

    def __init__(
        self,
        model: keras.Model,
        make_sampler: Callable[[DatasetRows], BaseSampler],
        batch_size: int,
        state: TrainerState,
        scoring: Scoring,
        scored: float = 0.0,
        alpha: float = DEFAULT_ALPHA,
        holds_out: bool = False,
    ):
        super().__init__(model, None, batch_size, state, scoring)
        # Costs per step, in forward passes of a batch: of the sampler's passes over all rows, and of scoring the batch,
        # if the backward pass doesn't give its scores.
        self.pass_cost = self.scorer.cost * scored
        needs_pass = self.measures_scores and self.scorer.score not in MEASURED_SCORES
        self.batch_cost = self.scorer.cost if needs_pass else 0.0
        self.rows = self.rows_class(model, self.scorer, batch_size)
        self.alpha = alpha
        self._holds_out = holds_out
        self._make_sampler = make_sampler
        self._step: Callable | None = None
        self._repeated: dict[tuple[int, bool], Callable] = {}  # compiled, by the number of rows and `is_biased`
        self._is_prepared = False
        self._parts: dict[str, Any] = {}  # saved with the trainer's state
        self._dataset = ""  # the digest of the data that the sampler has scores of
        self._validation_rows = self.rows_class(model, self.scorer, batch_size)
        self._validation: ComparedSamples | None = None
        self._pending: list[tuple[list[Drawn], Any]] = []  # drawn batches and their measured scores, on the device

    def use(self, plan: FitPlan) -> None:
        """Set the data of a `fit`; other data than before get a new sampler."""
        super().use(plan)
        self._is_prepared = False
        self.rows.source = plan.source
        if self._dataset != plan.source.digest:
            self._dataset = plan.source.digest
            self._parts = {name: part for name, part in self._parts.items() if name == "entries"}
            self.sampler = None
        for name, part in self._parts.items():
            self.state.register(name, part)  # a strategy of another batch size may have registered its own
        self.num_held_out = 0
        self._uniform_draws = {MEASURING: 0, NO_SCORES: 0}  # by reason
        self._begins_uniformly = False
        self._validation = None

    def step(self, n: int, batches: PeekableBatches, steps_left: float, with_draws: bool) -> StepResult:
        """Take n importance steps."""
        if not self._is_prepared:
            self.prepare()
            self._is_prepared = True
        self._set_up_sampler()
        logs: dict = {}
        draws: list[Drawn] = []
        measured: list = []
        uniform = 0
        while len(draws) < n:
            self.sampler.samples_left = (steps_left - len(draws)) * self.batch_size
            chunk, updates_next = self._draw(n - len(draws))
            logs, scores = self._train(chunk)
            if self.measures_scores:
                self._pending.append((chunk, scores))
            if with_draws and self.measures_scores:
                measured += list(ops.convert_to_numpy(scores).reshape(len(chunk), -1))
            if with_draws or updates_next or sum(len(steps) for steps, _ in self._pending) >= MAX_PENDING:
                self.update_sampler()
            uniform += self._count_uniform(chunk)
            draws += chunk
        self._begins_uniformly = self.draws_by_score and bool(np.isnan(draws[0].scores).all())
        trained = sum(len(one.indices) for one in draws)
        scored = self.rows.take_scored() + (trained if self.batch_cost else 0)
        cost = self.cost_of(scored=scored, trained=trained + self._trained_beside(n))
        if not with_draws:
            return StepResult(logs, n, cost, uniform_draws=uniform)
        indices, weights, scores, *_ = zip(*draws, strict=True)
        return StepResult(logs, n, cost, indices, weights, scores, measured, uniform)

    @property
    def held_out(self) -> HeldOut:
        """The training samples that are left out of the steps; none once the model has been trained on them."""
        holds_out = self._holds_out and self.plan is not None and not self.plan.has_validation_data
        if not holds_out or self.state.losses.held_out_is_over:
            return NONE_HELD_OUT
        return hold_out(self.plan.source.num_rows, self.state.seed)

    def compared_samples(self) -> ComparedSamples | None:
        """Return the samples that show whether training still generalises; None if there are none now.

        They are validation samples, if there are validation data, and otherwise the held-out training samples.
        """
        if not self._holds_out or self.plan is None:
            return None
        if not self.plan.has_validation_data:
            compared = ComparedSamples.of_training(self.rows, self.held_out)
        else:
            if self._validation is None:
                self._validation = ComparedSamples.of_validation(self._validation_rows, self.plan, self.state.seed)
            compared = self._validation
        return compared if len(compared.held_out) else None

    def describe(self, name: str, importance_steps: int, steps: int) -> str | None:
        """Return a summary of a `fit` in which the sampler drew all batches uniformly."""
        if sum(self._uniform_draws.values()) < importance_steps:
            return None
        why = max(self._uniform_draws, key=self._uniform_draws.get)
        return f"{name} drew uniform batches in all of its {importance_steps} steps: {why}."

    def first_step_warning(self) -> str | None:
        """Return a warning if the first batch was drawn uniformly because of scores that can't be used."""
        scores = self.sampler.candidate_scores
        if not self._begins_uniformly or scores is None or all_usable(scores):
            return None
        return (
            f"the first batch was drawn uniformly: the scores of {type(self.sampler).__name__} are NaN, infinite or "
            "negative. The summary counts such batches"
        )

    def notes(self) -> list[str]:
        """Return lines on the batches that were drawn uniformly, and on validation data that can't be compared."""
        lines = [
            f"In {count} step{'s' * (count != 1)} the sampler drew uniformly: {why}."
            for why, count in self._uniform_draws.items()
            if count
        ]
        if self._holds_out and self.plan.has_validation_data and self.compared_samples() is None:
            lines.append(NOT_COMPARED)
        return lines

    def get_sampler(self) -> BaseSampler | None:
        """Return the sampler of the current data, which is made on the first call; None between fits."""
        if self.sampler is None and self.plan is not None:
            self.sampler = self._make_sampler(self.rows)
            self._register("sampler", _SamplerPart(self))
        return self.sampler

    def update_sampler(self) -> None:
        """Pass the scores that are pending on the device to the sampler, in the order of the steps."""
        pending, self._pending = self._pending, []
        for chunk, scores in pending:
            for drawn, row in zip(chunk, ops.convert_to_numpy(scores).reshape(len(chunk), -1), strict=True):
                self.sampler.update(drawn.indices, row)

    def discard_pending(self) -> None:
        """Forget scores that belong to a state that is being replaced."""
        self._pending = []

    def close(self) -> None:
        """Pass the pending scores to the sampler, and remove its limit of samples left in this `fit`."""
        if self.sampler is not None:
            self.update_sampler()
            self.sampler.samples_left = float("inf")

    def release(self) -> None:
        """Drop all references to the data."""
        super().release()
        self.rows.source = self._validation_rows.source = self._validation = None

    def gate_context(self) -> GateContext:
        """Return the context for the gate's decision."""
        return GateContext(
            step_cost(self.pass_cost + self.batch_cost),
            base_cost=step_cost(self.batch_cost if self.measures_scores else self.pass_cost),
            required_gain=REQUIRED_GAIN,
            required_epochs=1.0,
            is_paid_in_advance=True,
        )

    def signals(self, scores: Any) -> Signals:
        """Compute the gate's signals for rows drawn by score from the scores of uniformly drawn samples."""
        return uniform_signals(scores, self.alpha)

    def _set_up_sampler(self) -> None:
        """Say to the sampler what the gate demands: which rows to leave out, and whether to score all of them."""
        self.get_sampler()
        if self._holds_out:
            self.sampler.held_out = self.held_out.samples
            self.num_held_out = max(self.num_held_out, len(self.sampler.held_out))
        if self.pass_cost:
            self.sampler.recompute = int(self.state.decision.gate_rescores or not self.measures_scores)

    def _draw(self, n: int) -> tuple[list[Drawn], bool]:
        """Draw up to n batches without further scores; return them, and True if the sampler must be updated next."""
        planned = min(int(self.sampler.samples_planned) // self.batch_size, n)
        if planned:
            return [self.sampler.draw(self.batch_size) for _ in range(planned)], False
        self.update_sampler()
        return [self.sampler.draw(self.batch_size)], True

    def _count_uniform(self, chunk: list[Drawn]) -> int:
        """Count the batches that the sampler has just drawn uniformly, by reason."""
        count = sum(bool(np.isnan(one.scores).all()) for one in chunk) if self.draws_by_score else 0
        self._uniform_draws[MEASURING if self.sampler.is_measuring else NO_SCORES] += count
        return count

    def _train(self, draws: list[Drawn]) -> tuple[dict, Any]:
        """Take a step on each batch; return the logs of the last and the measured scores, one row per step."""
        indices, weights, unbiased = (
            np.stack([getattr(drawn, name) for drawn in draws]) for name in ("indices", "weights", "unbiased_weights")
        )
        columns = self.rows.columns(indices)
        # A sampler may draw other weights than those of its policy. One of a biased policy needs one trace, not two.
        is_biased = not self.sampler.reweighting.unbiased or not np.array_equal(weights, unbiased)
        key = indices.shape[1], is_biased
        if key not in self._repeated:
            self._repeated[key] = backend.repeat_steps(self._compiled_step(is_biased), self.model, any_rows=3)
        return self._repeated[key](len(draws), weights, unbiased, indices, *columns)

    def _compiled_step(self, is_biased: bool) -> Callable:
        """Return `step(i, weights, unbiased_weights, indices, *columns) -> (logs, measured)` for step i of n."""
        if self._step is None:
            self._step = self._make_step()
        step = self.compile(
            lambda weights, unbiased, indices, *columns: self._step(
                self.rows.gather(indices, columns), weights, unbiased, is_biased
            ),
            reduce_retracing=False,  # shapes are static: a sampler that draws fewer rows should use few sizes
        )

        def step_of_many(i: Any, weights: Any, unbiased: Any, indices: Any, *columns: Any) -> tuple:
            return step(weights[i], unbiased[i], indices[i], *self.rows.columns_of_step(columns, i))

        return step_of_many

    def _make_step(self) -> Callable:
        """Return `step(data, weights, unbiased_weights, is_biased) -> (logs, measured)`."""
        step = IndexedStep(self.model, self.scorer, self.state, self.alpha)
        self._register("entries", step)
        return step

    def _trained_beside(self, n: int) -> int:
        """Return the number of rows whose gradients n steps take beside those of their batches."""
        return 0

    def _register(self, name: str, part: Any) -> None:
        self._parts[name] = part
        self.state.register(name, part)


class _SamplerPart:
    """A sampler as a part of the saved state: complete, with all scores measured so far."""

    def __init__(self, strategy: IndexedStrategy):
        self._strategy = strategy

    def state(self) -> dict[str, np.ndarray]:
        """Return the sampler's state."""
        self._strategy.update_sampler()
        return self._strategy.sampler.state()

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Restore the sampler's state."""
        self._strategy.discard_pending()
        self._strategy.sampler.restore(state)
