"""The base class of decorators: samplers that change how another sampler draws."""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.samplers.base import BaseSampler


class SamplerDecorator(BaseSampler):
    """A sampler around another sampler, with the dataset, policy, random stream and options of that sampler.

    Args:
        sampler: a `BaseSampler`; it can be a decorator itself.

    Raises:
        ValueError: `sampler` is not a sampler.
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
        """The model of the decorated sampler, or None."""
        return getattr(self.sampler, "model", None)

    @property
    def samples_left(self) -> float:
        """The decorated sampler's `samples_left`."""
        return self.sampler.samples_left

    @samples_left.setter
    def samples_left(self, samples_left: float) -> None:
        self.sampler.samples_left = samples_left

    @property
    def samples_planned(self) -> int:
        """The decorated sampler's `samples_planned`."""
        return self.sampler.samples_planned

    @property
    def candidate_scores(self) -> np.ndarray | None:
        """The decorated sampler's `candidate_scores`."""
        return self.sampler.candidate_scores

    @property
    def is_measuring(self) -> bool:
        """The decorated sampler's `is_measuring`."""
        return self.sampler.is_measuring

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Pass measured scores on to the decorated sampler."""
        self.sampler.update(indices, scores)
