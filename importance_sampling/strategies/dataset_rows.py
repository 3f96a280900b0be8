"""The rows of the training set as a sampler uses them: read by index, scored by the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from importance_sampling import backend
from importance_sampling.core import eligibility
from importance_sampling.core.scoring import Scorer
from importance_sampling.data.arrays import is_on_host, read_column
from importance_sampling.model_wrappers.base import ModelWrapper
from importance_sampling.samplers.table import ROWS_PER_FORWARD


class DatasetRows:
    """A sampler's data set and model in one.

    Args:
        model: a compiled model.
        scorer: scores rows with the model.
        batch_size: int, of a training step.

    Attributes:
        source: the training data; None between fits.
    """

    def __init__(self, model: keras.Model, scorer: Scorer, batch_size: int):
        self.source: Any = None
        self._model = model
        self._scorer = scorer
        self._batch_size = batch_size
        self._score: Callable | None = None
        self._accepts: dict[int, bool] = {}  # numbers of rows that the model accepts
        self._wrapper: ModelWrapper | None = None
        self._scored = 0

    def __len__(self) -> int:
        return self.source.num_rows

    def __getitem__(self, indices: Any) -> tuple:
        """Return `(x, y)` of rows."""
        if isinstance(indices, slice):
            indices = np.arange(len(self))[indices]
        return self.source.read(indices)[:2]

    def targets(self, indices: np.ndarray) -> Any:
        """Return the targets of rows as NumPy arrays, without reading the inputs.

        Args:
            indices: int `(n,)`.
        """
        _, positions, _ = self.source.pack(range(len(self.source.columns)))
        columns = self.source.columns
        return keras.tree.map_structure(lambda i: ops.convert_to_numpy(read_column(columns[i], indices)), positions)

    @property
    def train_data(self) -> DatasetRows:
        """The rows themselves, as the attribute of a sampler's data set."""
        return self

    def take_scored(self) -> int:
        """Return the number of rows scored since the last call."""
        scored, self._scored = self._scored, 0
        return scored

    def columns(self, indices: np.ndarray) -> list:
        """Return the leaves of the data as compiled functions take them.

        Args:
            indices: int `(n, b)`, the rows of n steps.

        Returns:
            Whole tensors, or for columns that are read on the host their rows, `(n, b, ...)`.
        """
        return [
            backend.as_input(column.read(indices.ravel()).reshape(*indices.shape, *column.shape[1:]))
            if is_on_host(column)
            else column
            for column in self.source.columns
        ]

    def columns_of_step(self, columns: Any, i: Any) -> list:
        """Return the columns of step i: its own rows of what is read on the host, whole tensors otherwise."""
        return [
            leaf[i] if is_on_host(column) else leaf for leaf, column in zip(columns, self.source.columns, strict=True)
        ]

    def gather(self, indices: Any, columns: Any) -> tuple:
        """Return `(x, y, sample_weight)` of the rows of one step."""
        return self.source.pack(
            leaf if is_on_host(column) else backend.gather(leaf, indices)
            for leaf, column in zip(columns, self.source.columns, strict=True)
        )

    def score_rows(self, indices: np.ndarray, batch_size: int) -> np.ndarray:
        """Return the model's scores of rows, float32 `(n,)`.

        Args:
            indices: int `(n,)`.
            batch_size: int, how many are scored at once; at most four training batches, or 128 if that is more. A
                model that accepts one batch size only is called with that size.
        """
        self._scored += len(indices)
        return self._evaluate(indices, batch_size, 0).astype("float32")

    def losses(self, indices: np.ndarray) -> np.ndarray:
        """Return the loss of each row in inference mode, float64 `(n,)`; `indices` is int `(n,)`."""
        whole_batches = -(-len(indices) // self._batch_size) * self._batch_size  # which replicas can share
        return self._evaluate(indices, min(ROWS_PER_FORWARD, whole_batches), 1)

    def _evaluate(self, indices: np.ndarray, batch_size: int, which: int) -> np.ndarray:
        """Return a result of `_score_rows` for all rows, float64 `(n,)`: the scores (0) or the losses (1)."""
        size = self._accepted(batch_size)
        results = np.empty(len(indices))
        for start in range(0, len(indices), size):
            rows = np.resize(indices[start : start + size], size)  # of one size, for one trace
            part = ops.convert_to_numpy(self._score_rows(rows)[which])
            results[start : start + size] = part[: len(results) - start]
        return results

    def _score_rows(self, rows: np.ndarray) -> tuple:
        """Return the scores of rows and their losses."""
        if self._score is None:

            def forward(data: tuple) -> tuple:
                scored = self._scorer(data)
                return {}, (scored.scores, scored.sample_losses)

            def score(indices: Any, *columns: Any) -> tuple:
                _, (scores, losses) = backend.on_replicas(self._model, forward, self.gather(indices, columns))
                return scores, losses

            # Static shapes: passes over the data and held-out samples are scored in parts of different sizes.
            self._score = backend.compile_step(score, self._model, reduce_retracing=False)
        return self._score(rows, *self.columns_of_step(self.columns(rows[None]), 0))

    def score(self, x: Any, y: Any, batch_size: int = 128) -> np.ndarray:
        """Return the model's scores of any rows, float32; see `ModelWrapper.score`."""
        if self._wrapper is None:
            self._wrapper = ModelWrapper(self._model, self._scorer.score, self._scorer.logits.layer)
        scores = self._wrapper.score(x, y, batch_size)
        self._scored += len(scores)
        return scores

    def _accepted(self, batch_size: int) -> int:
        """Return how many rows are scored at once: at most `batch_size`, and a size that the model accepts."""
        size = min(batch_size, max(4 * self._batch_size, 128))
        if size not in self._accepts:
            self._accepts[size] = eligibility.accepts(self._model, self.source.example(self._batch_size), size)
        return size if self._accepts[size] else self._batch_size
