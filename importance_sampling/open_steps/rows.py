"""Open steps of samplers that know their scores beforehand: rows by index, with weights, through one compiled step.

The sampler works on the host, in NumPy; rows are gathered on the device, those of a memory map are read on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from importance_sampling import backend
from importance_sampling.conditions import Signals, Terms
from importance_sampling.events import Listeners
from importance_sampling.fit import eligibility
from importance_sampling.model_wrappers import ModelWrapper, RowStep, fair_signals
from importance_sampling.model_wrappers.rows import MEASURED
from importance_sampling.open_steps.base import OpenSteps
from importance_sampling.samplers.base import DEFAULT_ALPHA, BaseSampler
from importance_sampling.scores import Scoring
from importance_sampling.sources import Prepared, StoreColumn
from importance_sampling.state import TrainerState

# Drawing by known scores costs so little that growth of any size would open a gate on it. It asks for more. Where high
# scores are wrong labels what is gained is lost again: a fifth of them hold the growth below 2 for as long as they
# aren't learnt by heart. And growth says how much less noise there is, not whether noise is what holds training back:
# logistic regression on MNIST has a growth of 3 to 4 from its third pass on, and nothing of it; networks that have
# learnt most of their data are far beyond 5.
LEAST_GROWTH = 5.0


class RowSteps(OpenSteps):
    """Ask the sampler for rows, train on them, hand the scores that were measured back to it.

    Args:
        make_sampler: called as `make_sampler(rows)` with this object's `Rows` when the sampler is first asked for;
            returns a `BaseSampler`.
        scored: float, how often the sampler has every row of an epoch scored.
        alpha: float in (0, 1], default 0.1; the sampler's uniform share.
        Others: as for `OpenSteps`.
    """

    def __init__(
        self,
        model: keras.Model,
        keras_function: Callable,
        make_sampler: Callable,
        batch_size: int,
        state: TrainerState,
        scoring: Scoring,
        scored: float = 0.0,
        alpha: float = DEFAULT_ALPHA,
    ):
        super().__init__(model, keras_function, None, batch_size, state, scoring)
        self.scored = self.scorer.passes * (scored + (self.scorer.score not in MEASURED))
        self.rows = Rows(self)
        self.alpha = alpha
        self._make_sampler = make_sampler
        self._step: Callable | None = None
        self._ready = False
        self._kept: dict[str, Any] = {}
        self._data = ""  # the digest of the data that the sampler has learnt of

    @property
    def sampler(self) -> BaseSampler | None:
        """Made when it is first asked for; None where there are no rows."""
        if self._sampler is None and self.prepared is not None:
            self._sampler = self._make_sampler(self.rows)
            self._keep("sampler", self._sampler)
        return self._sampler

    @sampler.setter
    def sampler(self, sampler: None) -> None:
        self._sampler = sampler

    def use(self, prepared: Prepared) -> None:
        """Take the data of a `fit`."""
        super().use(prepared)
        self._ready = False
        if self._data != prepared.source.digest:
            self._data, self.sampler = prepared.source.digest, None
            # What came with the sampler goes with it: a state that was loaded is for the next one.
            self._kept = {what: part for what, part in self._kept.items() if what == "entries"}
        for name, part in self._kept.items():
            self.state.keep(name, part)  # steps of another batch size may have kept theirs under that name

    def take(self, iterator: Any, n: int, listeners: Listeners) -> dict:
        """Take n open steps."""
        if not self._ready:
            self.prepare()
            self._ready = True
        logs: dict = {}
        if self.scorer.score not in MEASURED:
            self.spend(scored=n * self.batch_size)
        for step in range(n):
            self.sampler.samples_left = (self.left - step) * self.batch_size
            indices, weights, scores, fair = self.sampler.draw(self.batch_size)
            self.spend(trained=len(indices) - self.batch_size)  # a sampler may draw fewer
            logs, measured = self._compiled()(weights, fair, indices, *self.rows.columns(indices))
            measured = np.asarray(measured)
            self.sampler.update(indices, measured)
            if listeners.needs_scores:
                listeners.notify_scores(self.sampler, measured)
            if listeners.needs_samples:
                listeners.notify_sample(self.sampler, indices, weights, scores)
        return logs

    def release(self) -> None:
        """Let the sampler be drawn from by hand."""
        if self._sampler is not None:
            self._sampler.samples_left = float("inf")

    def offer(self, signals: Signals) -> tuple[Signals, Terms]:
        """What these steps promise a gate, and on which terms."""
        return signals, self.cost.terms(self.scored, growth=LEAST_GROWTH, passes=1.0, ahead=True)

    def signals(self, scores: Any) -> Signals:
        """What the scores of a fair sample say of drawing rows by their scores."""
        return fair_signals(scores, self.alpha)

    def _keep(self, what: str, part: Any) -> None:
        self._kept[what] = part
        self.state.keep(what, part)

    def _compiled(self) -> Callable:
        """`step(weights, fair, indices, *columns) -> (logs, measured)`."""
        if self._step is None:
            step = RowStep(self.model, self.scorer, self.points, self.state, self.alpha)
            self._keep("entries", step)
            self._step = backend.compile_step(
                lambda weights, fair, indices, *columns: step(self.rows.gathered(indices, columns), weights, fair),
                self.model,
                reduce_retracing=False,  # shapes are static: a sampler that draws fewer should know few sizes
            )
        return self._step


class Rows:
    """The rows of the training set, for a sampler: how many there are, what they are, and how the model scores them.

    Args:
        steps: whose data and scorer these are.
    """

    def __init__(self, steps: OpenSteps):
        self._steps = steps
        self._score: Callable | None = None
        self._only_batches: bool | None = None  # whether the model takes no other number of rows
        self._wrapper: ModelWrapper | None = None

    def __len__(self) -> int:
        return self._steps.prepared.source.num_rows

    def __getitem__(self, indices: Any) -> tuple:
        """`(x, y)` of rows."""
        if isinstance(indices, slice):
            indices = np.arange(len(self))[indices]
        return self._steps.prepared.source.read(indices)[:2]

    @property
    def train_data(self) -> Rows:
        """Itself, as a sampler's data set."""
        return self

    def columns(self, indices: Any) -> list:
        """The leaves of the data as a compiled function takes them: whole where they live on the device."""
        return [
            backend.resident(column.read(indices)) if isinstance(column, StoreColumn) else column
            for column in self._steps.prepared.source.columns
        ]

    def gathered(self, indices: Any, columns: Any) -> tuple:
        """`(x, y, sample_weight)` of rows, from the leaves that `columns` made."""
        source = self._steps.prepared.source
        return source.pack(
            leaf if isinstance(column, StoreColumn) else backend.gather(leaf, indices)
            for leaf, column in zip(columns, source.columns, strict=True)
        )

    def score_rows(self, indices: np.ndarray, batch_size: int) -> np.ndarray:
        """The model's scores of rows, float32, in slices of up to `batch_size` rows, or up to four batches."""
        batch_size = min(batch_size, max(4 * self._steps.batch_size, 128))
        if self._only_batches is None:
            example = self._steps.prepared.source.example(self._steps.batch_size)
            self._only_batches = not eligibility.accepts(self._steps.model, example, batch_size)
        if self._only_batches:
            batch_size = self._steps.batch_size
        if self._score is None:
            scorer = self._steps.scorer
            self._score = backend.compile_step(
                lambda indices, *columns: scorer(self.gathered(indices, columns)).scores, self._steps.model
            )
        scores = np.empty(len(indices), "float32")
        for start in range(0, len(indices), batch_size):
            rows = np.resize(indices[start : start + batch_size], batch_size)  # of one size, for one trace
            part = np.asarray(self._score(rows, *self.columns(rows)))
            scores[start : start + batch_size] = part[: len(scores) - start]
        self._steps.spend(scored=len(indices))
        return scores

    def score(self, x: Any, y: Any, batch_size: int = 128) -> np.ndarray:
        """The model's scores of any rows, float32; see `ModelWrapper.score`."""
        steps = self._steps
        if self._wrapper is None:
            self._wrapper = ModelWrapper(steps.model, steps.scorer.score, steps.points.layer)
        scores = self._wrapper.score(x, y, batch_size)
        steps.spend(scored=len(scores))
        return scores
