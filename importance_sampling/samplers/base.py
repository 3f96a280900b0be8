"""What samplers have in common: from scored candidates to a batch with its weights, and going on from a saved state.

A sampler draws on the host, in NumPy, and reads rows only where it must score them. It neither trains nor decides when
to start. The draw from a pool inside a compiled step is `PoolSampler`'s; probabilities, resampling and weights are the
same functions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from importance_sampling.datasets.base import is_int
from importance_sampling.probabilities import check_alpha, probabilities
from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers import resampling as resampling_schemes
from importance_sampling.state import check_seed, seed_of_python

Smoothing = Callable[[np.ndarray], np.ndarray]

DEFAULT_ALPHA = 0.1


class Drawn(NamedTuple):
    """A batch that a sampler drew; b is the batch size asked for, or less where a sampler says so."""

    indices: np.ndarray  # int64 (b,), into the training set
    weights: np.ndarray  # float32 (b,), or (b, weight_size) where the policy finishes them with measured scores
    scores: np.ndarray  # float32 (b,), as predicted, before any smoothing; NaN where nothing was
    fair: np.ndarray  # float32 (b,), the unbiased weights, whatever the policy: they make the batch a fair sample


class BaseSampler:
    """Draws batches from a dataset with P_i = (1 - alpha) s_i / sum(s) + alpha / B and weighs them by a policy.

    To subclass, fill in `_candidates`, and `update` if it learns from what is measured; name in `_saved` the attributes
    that `state` has to keep, in `_parts` those that have a `state` and `restore` of their own. `SamplerTraining` trains
    by it.

    Attributes:
        unbiased: bool, whether with an unbiased policy the weighted gradient's mean is the full gradient.
        needs_scores: bool, whether `update` wants the scores that the training step measured.
        needs_model: bool, whether it scores with a model.
        candidate_scores: float64 `(n,)`, of the candidates of the last draw, before any smoothing; None where the batch
            was drawn without.
        left: float, how many samples are still to be drawn, infinity where nobody said; a trainer's `fit` sets it.

    Args:
        dataset: has `train_data`, by which `train_data[idxs]` is `(x, y)` and `len(train_data)` the number of rows.
        reweighting: a `ReweightingPolicy`.
        alpha: float in (0, 1], default 0.1; the uniform share. No unbiased weight exceeds 1/alpha.
        resampling: "systematic" (default) or "multinomial".
        seed: int in [0, 2**31), of the sampler's own random stream. None follows `keras.utils.set_random_seed`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> class LastLoss(BaseSampler):  # ones for samples not seen yet
        ...     needs_scores, _saved = True, ("losses",)
        ...     def __init__(self, dataset, reweighting, **options):
        ...         super().__init__(dataset, reweighting, **options)
        ...         self.losses = np.ones(self.size)
        ...     def _candidates(self, batch_size):
        ...         indices = self._rng.permutation(self.size)
        ...         return indices, self.losses[indices]
        ...     def update(self, indices, scores):
        ...         self.losses[indices] = scores
        >>> indices, (x, y), weights = LastLoss(dset, UNBIASED, seed=0).sample(128)
    """

    unbiased = True
    needs_scores = False
    needs_model = False
    candidate_scores: np.ndarray | None = None
    left = float("inf")
    _saved: tuple[str, ...] = ()
    _parts: tuple[str, ...] = ()

    def __init__(
        self,
        dataset: Any,
        reweighting: ReweightingPolicy,
        *,
        alpha: float = DEFAULT_ALPHA,
        resampling: str = "systematic",
        seed: int | None = None,
    ):
        if not hasattr(dataset, "train_data") or len(dataset.train_data) < 1:
            raise ValueError(
                "`dataset` must have `train_data` with at least one row, as a `BaseDataset` has. "
                f"Received: dataset={dataset!r}"
            )
        if not isinstance(reweighting, ReweightingPolicy):
            raise ValueError(
                "`reweighting` must be a policy, such as `reweighting.UNBIASED`. "
                f"Received: reweighting={reweighting!r} (of type {type(reweighting)})"
            )
        check_alpha(alpha)
        check_seed(seed)
        self.dataset = dataset
        self.reweighting = reweighting
        self.alpha = float(alpha)
        self.resampling = resampling_schemes.get(resampling)
        self.seed = seed_of_python() if seed is None else int(seed)
        self.size = len(dataset.train_data)
        self._rng = np.random.default_rng(self.seed)

    def draw(self, batch_size: int) -> Drawn:
        """Draw a batch; rows are read only if they have to be scored.

        Args:
            batch_size: int >= 1.

        Returns:
            `Drawn`.
        """
        if not is_int(batch_size) or batch_size < 1:
            raise ValueError(f"`batch_size` must be an int of at least 1. Received: batch_size={batch_size!r}")
        return self._draw(int(batch_size), lambda scores: scores)

    def sample(self, batch_size: int) -> tuple[np.ndarray, tuple, np.ndarray]:
        """Draw a batch and read it: `(indices, (x, y), weights)`, as `Drawn` has them."""
        indices, weights, *_ = self.draw(batch_size)
        return indices, self.dataset.train_data[indices], weights

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Learn what the training step measured of the batch that was drawn last.

        Args:
            indices: int `(b,)`, as drawn.
            scores: float `(b,)`, of those samples; what isn't finite or is negative is passed over.
        """

    def state(self) -> dict[str, np.ndarray]:
        """Everything that what it does next depends on, the random stream included, as arrays to be saved."""
        state = {name: np.array(getattr(self, name)) for name in self._saved}
        for part in self._parts:
            state.update({f"{part}/{name}": value for name, value in getattr(self, part).state().items()})
        return {"generator": np.array(json.dumps(self._rng.bit_generator.state)), **state}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on exactly as the sampler that `state` is of, constructed with the same arguments, would have.

        Raises:
            ValueError: the state is of another kind of sampler, or of another number of rows.
        """
        mine = {name: np.shape(value) for name, value in self.state().items()}
        given = {name: np.shape(value) for name, value in state.items()}
        if given != mine:
            raise ValueError(
                f"`state` must be of a {type(self).__name__} of {self.size} rows, constructed alike, with {mine}. "
                f"Received: state of {given}"
            )
        self._rng.bit_generator.state = json.loads(str(state["generator"]))
        for name in self._saved:
            setattr(self, name, np.array(state[name]) if np.ndim(state[name]) else state[name].item())
        for part in self._parts:
            prefix = f"{part}/"
            getattr(self, part).restore({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})

    def _candidates(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices, int `(n,)`, in random order, and their scores, float `(n,)`, >= 0; any number of them."""
        raise NotImplementedError

    def _probabilities(self, scores: np.ndarray) -> np.ndarray:
        return probabilities(scores, self.alpha)

    def _num_picked(self, batch_size: int, scores: np.ndarray) -> int:
        """How many to pick from candidates of those scores."""
        return batch_size

    def _draw(self, batch_size: int, smooth: Smoothing) -> Drawn:
        """Draw by smoothed scores; the seam for decorators."""
        indices, scores = self._candidates(batch_size)
        indices, scores = np.asarray(indices, "int64"), np.asarray(scores, "float64")
        if indices.ndim != 1 or scores.shape != indices.shape or not indices.size:
            raise ValueError(
                f"`_candidates` of {type(self).__name__} must return an index and a score for each of at least one "
                f"candidate. Received: indices of shape {indices.shape}, scores of shape {scores.shape}"
            )
        self.candidate_scores = scores
        p = self._probabilities(smooth(scores))
        picked = self._num_picked(batch_size, scores)
        uniforms = self._rng.random(self.resampling.num_uniforms(picked))
        positions = self.resampling.positions(p, uniforms, picked)
        weights = self.reweighting.sample_weights(positions, scores, p)
        fair = 1.0 / (len(indices) * p[positions])
        return Drawn(indices[positions], _flat(weights), scores[positions].astype("float32"), fair.astype("float32"))

    def _even(self, indices: np.ndarray) -> Drawn:
        """A uniform batch."""
        self.candidate_scores = None
        unknown = np.full(len(indices), np.nan, "float32")
        return Drawn(indices, _flat(self.reweighting.even(len(indices))), unknown, np.ones(len(indices), "float32"))


def measurements(indices: Any, scores: Any) -> tuple[np.ndarray, np.ndarray]:
    """What `update` is given, as int64 and float64 arrays, without the scores that are no use."""
    indices, scores = np.asarray(indices, "int64"), np.asarray(scores, "float64")
    if indices.ndim != 1 or indices.shape != scores.shape:
        raise ValueError(
            "`indices` and `scores` must have one number for each sample. "
            f"Received: indices of shape {indices.shape}, scores of shape {scores.shape}"
        )
    usable = np.isfinite(scores) & (scores >= 0)
    return indices[usable], scores[usable]


def _flat(weights: np.ndarray) -> np.ndarray:
    return weights[:, 0] if weights.shape[1] == 1 else weights
