"""Score a uniform pool with a model and draw the batch from it: [KF18] (arXiv 1803.00942), Algorithm 1, by hand.

The same in one compiled step is what `ImportanceTraining` does. When it is worth it isn't decided here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.datasets.base import is_int
from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.uniform import ShufflingSampler


def check_model(model: Any) -> None:
    """Raise unless it has `score`."""
    if not callable(getattr(model, "score", None)) and not hasattr(model, "score_rows"):
        raise ValueError(
            "`model` must have `score(x, y, batch_size=128)`, as an `OracleWrapper` has. "
            f"Received: model={model!r} (of type {type(model)})"
        )


def score_rows(model: Any, dataset: Any, indices: np.ndarray, batch_size: int) -> np.ndarray:
    """A model's scores of rows by index, float64 `(n,)`.

    A model that reads the rows itself has `score_rows(indices, batch_size)`; it is asked in place of `score`.
    """
    if hasattr(model, "score_rows"):
        scores = model.score_rows(indices, batch_size)
    else:
        x, y = dataset.train_data[indices]
        scores = model.score(x, y, batch_size=batch_size)
    return np.asarray(scores, "float64").reshape(len(indices))


def check_recompute(recompute: int) -> None:
    """Raise unless it is a whole number of epochs, or 0."""
    if not is_int(recompute) or recompute < 0:
        raise ValueError(f"`recompute` must be an int of at least 0 (never). Received: recompute={recompute!r}")


def check_positive(**values: Any) -> None:
    """Raise unless they are ints of at least 1."""
    for name, value in values.items():
        if not is_int(value) or value < 1:
            raise ValueError(f"`{name}` must be an int of at least 1. Received: {name}={value!r}")


class ScoringSampler(ShufflingSampler):
    """A sampler that scores the next candidates with a model.

    Args:
        dataset, reweighting and options: as `BaseSampler`.
        model: has `score(x, y, batch_size=128)` -> float `(n,)`.
        forward_batch_size: int, default 128; how many are scored at once.
    """

    needs_model = True

    def __init__(
        self,
        dataset: Any,
        reweighting: ReweightingPolicy,
        model: Any,
        forward_batch_size: int = 128,
        **options: Any,
    ):
        super().__init__(dataset, reweighting, **options)
        check_model(model)
        check_positive(forward_batch_size=forward_batch_size)
        self.model = model
        self.forward_batch_size = int(forward_batch_size)

    def _scored(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The next n candidates, at most all, and their scores."""
        indices = self._next(min(n, self.size))
        return indices, score_rows(self.model, self.dataset, indices, self.forward_batch_size)


class ModelSampler(ScoringSampler):
    """Score a uniform pool of `large_batch` samples, draw from it with P_i = (1 - alpha) s_i / sum(s) + alpha / B.

    Unbiased with an unbiased policy. It costs a forward pass over `large_batch` samples a batch; it loses where scores
    are nearly equal, early in training.

    Args:
        dataset: has `train_data`.
        reweighting: a `ReweightingPolicy`.
        model: has `score(x, y, batch_size=128)` -> float `(n,)`, >= 0.
        large_batch: int, default 1024; the pool's size, at most all rows.
        forward_batch_size: int, default 128; how many are scored at once.
        options: as `BaseSampler`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> sampler = ModelSampler(dset, UNBIASED, OracleWrapper(model, UNBIASED, score="gnorm"), large_batch=384)
        >>> indices, (x, y), weights = sampler.sample(128)

    Source: [KF18], Algorithm 1, where alpha is 0 and draws are multinomial.
    """

    def __init__(
        self,
        dataset: Any,
        reweighting: ReweightingPolicy,
        model: Any,
        large_batch: int = 1024,
        forward_batch_size: int = 128,
        **options: Any,
    ):
        super().__init__(dataset, reweighting, model, forward_batch_size, **options)
        check_positive(large_batch=large_batch)
        self.large_batch = int(large_batch)

    def _candidates(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        return self._scored(self.large_batch)
