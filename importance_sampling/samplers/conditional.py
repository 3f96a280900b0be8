"""Draw uniform batches until a condition is satisfied.

Source: [KF18] (arXiv 1803.00942), Algorithm 1, which starts importance sampling late in training.
"""

from __future__ import annotations

import numpy as np

from importance_sampling.conditions import Condition
from importance_sampling.samplers.base import BaseSampler, Drawn, Smoothing
from importance_sampling.samplers.decorator import SamplerDecorator
from importance_sampling.samplers.uniform import UniformSampler


class ConditionalStartSampler(SamplerDecorator):
    """Draw by `sampler` while `condition` is satisfied, and uniformly with unbiased weights of 1 while it is not.

    While the condition is not satisfied, it is updated with the scores that training steps measure. While it is
    satisfied, it is updated with the scores of all candidates, since the drawn samples have higher scores than average.
    The decorated sampler is always updated with the measured scores.

    Unbiased if the decorated sampler is. Cost: none beyond that of the sampler. Not suited to conditions that are
    satisfied too early or too late.

    Args:
        sampler: the sampler to decorate.
        condition: a `Condition` with a method `update(scores)`.

    Raises:
        ValueError: an argument has the wrong type.

    Example:
        >>> inner = ModelSampler(dset, UNBIASED, OracleWrapper(model, UNBIASED))
        >>> sampler = ConditionalStartSampler(inner, WarmupCondition(100))
    """

    _saved = ("_is_uniform",)
    _saved_keys = {"_is_uniform": "_is_fair"}
    _parts = ("sampler", "condition", "_uniform")

    def __init__(self, sampler: BaseSampler, condition: Condition):
        super().__init__(sampler)
        if not isinstance(condition, Condition) or not hasattr(condition, "update"):
            raise ValueError(
                "`condition` must be a condition that scores can update, such as `WarmupCondition(100)`. "
                f"Received: condition={condition!r} (of type {type(condition)})"
            )
        self.condition = condition
        self.needs_scores = True
        self._uniform = UniformSampler(sampler.dataset, sampler.reweighting, seed=sampler.seed)
        self._is_uniform = True  # True if the last batch was drawn uniformly

    @property
    def candidate_scores(self) -> np.ndarray | None:
        """The decorated sampler's `candidate_scores`; None if the last batch was drawn uniformly."""
        return None if self._is_uniform else self.sampler.candidate_scores

    @property
    def is_measuring(self) -> bool:
        """The decorated sampler's `is_measuring`; False if the last batch was drawn uniformly for the condition."""
        return not self._is_uniform and self.sampler.is_measuring

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Update the decorated sampler with measured scores; after a uniform batch, the condition too."""
        super().update(indices, scores)
        if self._is_uniform:
            self.condition.update(scores)

    def _draw(self, batch_size: int, smooth: Smoothing) -> Drawn:
        self._is_uniform = not self.condition.satisfied
        if self._is_uniform:
            return self._uniform._draw(batch_size, smooth)
        drawn = self.sampler._draw(batch_size, smooth)
        if self.sampler.candidate_scores is not None:
            self.condition.update(self.sampler.candidate_scores)
        return drawn
