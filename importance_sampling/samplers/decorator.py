"""What decorators of samplers have in common: to whoever uses them they are the sampler, but for what they change.

No source. Nothing is drawn here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.samplers.base import BaseSampler


class SamplerDecorator(BaseSampler):
    """A sampler around a sampler, whose dataset, policy, random stream and options it uses.

    Args:
        sampler: a `BaseSampler`, perhaps decorated itself.

    Raises:
        ValueError: `sampler` isn't one.
    """

    _parts = ("sampler",)

    def __init__(self, sampler: BaseSampler):
        if not isinstance(sampler, BaseSampler):
            raise ValueError(f"`sampler` must be a sampler. Received: sampler={sampler!r} (of type {type(sampler)})")
        super().__init__(
            sampler.dataset,
            sampler.reweighting,
            alpha=sampler.alpha,
            resampling=sampler.resampling.name,
            seed=sampler.seed,
        )
        self.sampler = sampler
        self.unbiased = sampler.unbiased
        self.needs_scores = sampler.needs_scores
        self.needs_model = sampler.needs_model

    @property
    def model(self) -> Any:
        """The model that the sampler scores with, if it does."""
        return getattr(self.sampler, "model", None)

    @property
    def left(self) -> float:
        """The sampler's."""
        return self.sampler.left

    @left.setter
    def left(self, left: float) -> None:
        self.sampler.left = left

    @property
    def candidate_scores(self) -> np.ndarray | None:
        """The sampler's."""
        return self.sampler.candidate_scores

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Pass on what was measured."""
        self.sampler.update(indices, scores)
