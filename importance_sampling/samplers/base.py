"""The base class of samplers: draw a batch from scored candidates, weigh it, save and restore the sampler's state.

Samplers run on the host, in NumPy. `PoolSampler` draws from a pool inside a compiled step, with the same functions for
probabilities, resampling and weights.

Source: [KF18] Katharopoulos & Fleuret, Not All Samples Are Created Equal, 2018 (arXiv 1803.00942), Algorithm 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.reweighting.base import check_policy
from importance_sampling.samplers import resampling as resampling_schemes
from importance_sampling.samplers.checks import (
    checked_candidates,
    checked_num_picked,
    checked_probabilities,
    is_uniform_draw,
    saved_array,
)
from importance_sampling.utils.numerics import DEFAULT_ALPHA, probabilities
from importance_sampling.utils.validation import check_alpha, check_positive, check_seed, seed_from_python
from importance_sampling.utils.warn import warn_renamed

Smoothing = Callable[[np.ndarray], np.ndarray]


class Drawn(NamedTuple):
    """A batch drawn by a sampler. b is the batch size that was requested, or less for samplers that say so.

    Attributes:
        indices: int64 `(b,)`, row indices into the training set.
        weights: float32 `(b,)`; or `(b, weight_size)` if the policy finishes them with measured scores.
        scores: float32 `(b,)`, the predicted scores before smoothing; NaN if the batch was drawn uniformly.
        unbiased_weights: float32 `(b,)`, 1 / (B P), independent of the policy. Means over the batch that are weighted
            by them are unbiased estimates of means over the data.
    """

    indices: np.ndarray
    weights: np.ndarray
    scores: np.ndarray
    unbiased_weights: np.ndarray

    @property
    def fair(self) -> np.ndarray:
        """Deprecated name of `unbiased_weights`."""
        warn_renamed("Drawn.fair", "Drawn.unbiased_weights")
        return self.unbiased_weights


class BaseSampler:
    """Draw batches with P_i = (1 - alpha) s_i / sum(s) + alpha / B, and weigh them by a policy.

    A subclass implements `_candidates`, and `update` if it learns from measured scores. It lists in `_saved` the
    attributes that `state` saves, and in `_parts` the attributes that have a `state` and a `restore` of their own.
    `SamplerTraining` trains with any sampler.

    Attributes:
        unbiased: bool, True if the weighted gradient is unbiased with an unbiased policy.
        needs_scores: bool, True if `update` needs the scores that the training step measures.
        needs_model: bool, True if the sampler uses a model.
        candidate_scores: float64 `(n,)`, the scores of the last draw's candidates before smoothing; None if the last
            batch was uniform.
        is_measuring: bool, default False; True while a sampler that learns scores from steps draws uniformly in its
            first pass over the data.
        samples_left: float, the number of samples still to be drawn in the current `fit`, which sets it; infinity
            outside `fit`.

    Args:
        dataset: has `train_data`: `train_data[idxs]` returns `(x, y)`, `len(train_data)` the number of rows.
        reweighting: a `ReweightingPolicy`.
        alpha: float in (0, 1], default 0.1, the uniform share. No unbiased weight exceeds 1 / alpha.
        resampling: "systematic" (default) or "multinomial".
        seed: int in [0, 2**31), of the sampler's own random stream. None (default): the seed follows
            `keras.utils.set_random_seed`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> class LastLoss(BaseSampler):  # samples without a loss have a score of 1
        ...     needs_scores, _saved = True, ("losses",)
        ...     def __init__(self, dataset, reweighting, **options):
        ...         super().__init__(dataset, reweighting, **options)
        ...         self.losses = np.ones(self.size)
        ...     def _candidates(self, batch_size):
        ...         indices = self._rng.permutation(self.size)
        ...         return indices, self.losses[indices]
        ...     def update(self, indices, scores):
        ...         usable = np.isfinite(scores) & (scores >= 0)
        ...         self.losses[indices[usable]] = scores[usable]
        >>> indices, (x, y), weights = LastLoss(dset, UNBIASED, seed=0).sample(128)

    Source: [KF18], Algorithm 1, where alpha is 0 and draws are multinomial.
    """

    unbiased = True
    needs_scores = False
    needs_model = False
    candidate_scores: np.ndarray | None = None
    is_measuring = False
    samples_left = float("inf")
    _saved: tuple[str, ...] = ()
    _saved_keys: Mapping[str, str] = {}  # attribute name to key in the saved state, for those that differ
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
        if not hasattr(getattr(dataset, "train_data", None), "__len__") or len(dataset.train_data) < 1:
            raise ValueError(
                "`dataset` must have `train_data` with at least one row, as a `BaseDataset` has. "
                f"Received: dataset={dataset!r}"
            )
        check_policy(reweighting=reweighting)
        check_alpha(alpha)
        check_seed(seed)
        self.dataset = dataset
        self.reweighting = reweighting
        self.alpha = float(alpha)
        self.resampling = resampling_schemes.get(resampling)
        self.seed = seed_from_python() if seed is None else int(seed)
        self.size = len(dataset.train_data)
        self._rng = np.random.default_rng(self.seed)

    @property
    def left(self) -> float:
        """Deprecated name of `samples_left`."""
        warn_renamed("left", "samples_left")
        return self.samples_left

    @left.setter
    def left(self, left: float) -> None:
        warn_renamed("left", "samples_left")
        self.samples_left = left

    def draw(self, batch_size: int) -> Drawn:
        """Draw a batch. The dataset is read only if candidates must be scored.

        Args:
            batch_size: int >= 1.

        Returns:
            `Drawn`.

        Raises:
            ValueError: `batch_size` is out of its range.
        """
        check_positive(batch_size=batch_size)
        return self._draw(int(batch_size), lambda scores: scores)

    def sample(self, batch_size: int) -> tuple[np.ndarray, tuple, np.ndarray]:
        """Draw a batch and read its rows.

        Args:
            batch_size: int >= 1.

        Returns:
            `(indices, (x, y), weights)`, with indices and weights as in `Drawn`.
        """
        indices, weights, *_ = self.draw(batch_size)
        return indices, self.dataset.train_data[indices], weights

    @property
    def samples_planned(self) -> int:
        """Samples that can be drawn before measured scores are needed, 0 if every draw depends on the last update."""
        return 0

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Learn from the scores that the training step measured on the last batch.

        Args:
            indices: int `(b,)`, the row indices of the batch.
            scores: float `(b,)`, their measured scores. Negative and non-finite ones are ignored.
        """

    def state(self) -> dict[str, np.ndarray]:
        """Return all data that the next draws depend on, the state of the random stream included.

        Returns:
            Arrays by name, for `numpy.savez`.

        Raises:
            ValueError: an attribute that `_saved` names doesn't exist, or is neither an array nor a number or string.
        """
        state = {self._saved_keys.get(name, name): saved_array(self, name) for name in self._saved}
        for part in self._parts:
            state.update({f"{part}/{name}": value for name, value in getattr(self, part).state().items()})
        return {"generator": np.array(json.dumps(self._rng.bit_generator.state)), **state}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Set the sampler to a saved state. Its next draws are those of the sampler that was saved.

        Args:
            state: as returned by `state` of a sampler that was constructed with the same arguments.

        Raises:
            ValueError: the state is that of another kind of sampler, or of another number of rows.
        """
        expected = {name: np.shape(value) for name, value in self.state().items()}
        received = {name: np.shape(value) for name, value in state.items()}
        if received != expected:
            raise ValueError(
                f"`state` must be of a {type(self).__name__} of {self.size} rows, constructed with the same arguments, "
                f"with arrays of the shapes {expected}. Received: state of {received}"
            )
        self._rng.bit_generator.state = json.loads(str(state["generator"]))
        for name in self._saved:
            value = state[self._saved_keys.get(name, name)]
            setattr(self, name, np.array(value) if np.ndim(value) else value.item())
        for part in self._parts:
            prefix = f"{part}/"
            getattr(self, part).restore({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})

    def _candidates(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the candidates of the next batch.

        Args:
            batch_size: int >= 1.

        Returns:
            Row indices, int `(n,)`, in random order; and scores, float `(n,)`, >= 0. n is any number >= 1. If a score
            is NaN, infinite or negative, or all are zero, `_probabilities` of this class draws the batch uniformly.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `_candidates(batch_size)`")

    def _probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Turn the scores of the candidates, float64 `(n,)`, into probabilities with a sum of 1.

        An override decides alone: the uniform share `alpha` isn't added to what it returns, and scores may be negative.
        With an unbiased policy, only a candidate with a score of 0 may have a probability of 0.
        """
        return probabilities(scores, self.alpha)

    def _num_picked(self, batch_size: int, scores: np.ndarray) -> int:
        """Return the number of samples to draw from candidates with these scores."""
        return batch_size

    def _draw(self, batch_size: int, smooth: Smoothing) -> Drawn:
        """Draw a batch by smoothed scores. Decorators override this method."""
        name = type(self).__name__
        indices, scores = checked_candidates(name, self._candidates(batch_size), self.size)
        self.candidate_scores = scores
        p = self._probabilities(smooth(scores))
        p = checked_probabilities(name, p, scores, self.unbiased and self.reweighting.unbiased)
        num_picked = checked_num_picked(name, self._num_picked(batch_size, scores))
        uniforms = self._rng.random(self.resampling.num_uniforms(num_picked))
        positions = self.resampling.positions(p, uniforms, num_picked)
        weights = self.reweighting.sample_weights(positions, scores, p)
        unbiased = 1.0 / (len(indices) * p[positions])
        drawn_scores = np.full(num_picked, np.nan) if is_uniform_draw(scores, p) else scores[positions]
        return Drawn(indices[positions], _squeeze(weights), drawn_scores.astype("float32"), unbiased.astype("float32"))

    def _uniform_batch(self, indices: np.ndarray) -> Drawn:
        """Return a batch that was drawn uniformly: no scores, and unbiased weights of 1."""
        self.candidate_scores = None
        size = len(indices)
        weights = _squeeze(self.reweighting.uniform_weights(size))
        return Drawn(indices, weights, np.full(size, np.nan, "float32"), np.ones(size, "float32"))


def joined(parts: Sequence[Drawn]) -> Drawn:
    """Return several batches as one."""
    return parts[0] if len(parts) == 1 else Drawn(*map(np.concatenate, zip(*parts, strict=True)))


def _squeeze(weights: np.ndarray) -> np.ndarray:
    """Turn weights `(b, 1)` into `(b,)`."""
    return weights[:, 0] if weights.shape[1] == 1 else weights
