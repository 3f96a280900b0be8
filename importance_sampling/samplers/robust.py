"""Resample epochs by the worst case of scores that are out of date.

Source: [JG18] Johnson & Guestrin, Training Deep Models Faster with Robust, Approximate Importance Sampling, NeurIPS
2018, with resampled epochs instead of independent batches.
"""

from __future__ import annotations

from typing import Any

from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.reshuffle import ReshuffleSampler
from importance_sampling.samplers.uncertainty_set import UncertaintySet


class RobustSampler(ReshuffleSampler):
    """Draw whole epochs in random order, with probabilities that minimise the worst variance of an uncertainty set.

    P_i = (1 - alpha) e_i / sum(e) + alpha / N with e_i = sqrt(c_i + width d_i): c_i is the expected square of the next
    score, and d_i its deviation. Both are linear in the square of the last score and in the mean square of all scores,
    with coefficients that depend on the age of the last score and are learned from measured scores
    (`uncertainty_set.UncertaintySet`). Epochs and weights are those of `ReshuffleSampler`, which estimates the
    expected square without the assumption that it is linear.

    Unbiased with an unbiased policy, given its probabilities; no unbiased weight exceeds 1 / alpha. Cost: as
    `ReshuffleSampler` without rescoring. Not suited to wrong labels, which have high scores.

    Args:
        dataset: has `train_data`.
        reweighting: a `ReweightingPolicy`.
        width: float >= 0, default 1; the size of the uncertainty set. 0: only the expected squares count.
        options: as for `BaseSampler`; resampling is always systematic.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> sampler = RobustSampler(dset, UNBIASED, seed=0)
        >>> indices, (x, y), weights = sampler.sample(128)
        >>> sampler.update(indices, scores)  # the scores that the training step measured
    """

    def __init__(self, dataset: Any, reweighting: ReweightingPolicy, width: float = 1.0, **options: Any):
        super().__init__(dataset, reweighting, **options)
        self.calibration = UncertaintySet(width)
