"""Uniform batches until a condition holds.

Source: [KF18] (arXiv 1803.00942), Algorithm 1, for starting late. What the condition compares is its own business.
"""

from __future__ import annotations

import numpy as np

from importance_sampling.conditions import Condition
from importance_sampling.samplers.base import BaseSampler, Drawn, Smoothing
from importance_sampling.samplers.decorator import SamplerDecorator
from importance_sampling.samplers.uniform import UniformSampler


class ConditionalStartSampler(SamplerDecorator):
    """Draw uniformly, with weights of 1, while `condition` is not satisfied; by `sampler` while it is.

    While it isn't, the condition is shown the scores that training steps measured; while it is, those of the
    candidates, since the ones that were picked are no fair sample. The sampler is told of all measured scores.

    As unbiased as the sampler. It costs nothing beyond it, and it loses where the condition opens too early or late.

    Args:
        sampler: the sampler to decorate.
        condition: has `satisfied` and `update(scores)`.

    Raises:
        ValueError: an argument is of another kind.

    Example:
        >>> sampler = ConditionalStartSampler(ModelSampler(dset, UNBIASED, model), WarmupCondition(100))
    """

    _saved = ("_is_fair",)
    _parts = ("sampler", "condition", "_uniform")

    def __init__(self, sampler: BaseSampler, condition: Condition):
        super().__init__(sampler)
        if not isinstance(condition, Condition) or not hasattr(condition, "update"):
            raise ValueError(
                "`condition` must be a condition that can be shown scores, such as `WarmupCondition(100)`. "
                f"Received: condition={condition!r} (of type {type(condition)})"
            )
        self.condition = condition
        self.needs_scores = True
        self._uniform = UniformSampler(sampler.dataset, sampler.reweighting, seed=sampler.seed)
        self._is_fair = True  # whether the batch that was drawn last is a fair sample

    @property
    def candidate_scores(self) -> np.ndarray | None:
        """The sampler's, None while it isn't drawn from."""
        return None if self._is_fair else self.sampler.candidate_scores

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Pass on what was measured, and show it to the condition if the batch was uniform."""
        super().update(indices, scores)
        if self._is_fair:
            self.condition.update(scores)

    def _draw(self, batch_size: int, smooth: Smoothing) -> Drawn:
        self._is_fair = not self.condition.satisfied
        if self._is_fair:
            return self._uniform._draw(batch_size, smooth)
        drawn = self.sampler._draw(batch_size, smooth)
        if self.sampler.candidate_scores is not None:
            self.condition.update(self.sampler.candidate_scores)
        return drawn
