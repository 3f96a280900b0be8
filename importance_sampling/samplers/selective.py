"""Select hard samples from a pool by the order of their losses, with weights of 1. Biased on purpose.

The draws run on tensors inside a compiled step, and on NumPy arrays.

Source: [J19] Jiang et al., Accelerating Deep Learning by Focusing on the Biggest Losers, 2019 (arXiv 1910.00762), and
the probabilities by rank of MosaicML's Composer, for selective backprop; [S16] Shrivastava et al., Training
Region-based Object Detectors with Online Hard Example Mining, CVPR 2016 (arXiv 1604.03540), for the highest losses.
"""

from __future__ import annotations

from typing import Any

from importance_sampling.reweighting import UNWEIGHTED
from importance_sampling.samplers import resampling
from importance_sampling.samplers.pool import Picked, PoolSampler
from importance_sampling.utils.numerics import DEFAULT_ALPHA, array_namespace, as_floats, clean_scores


class SelectingSampler(PoolSampler):
    """The base class of samplers that select samples of a pool by their order. Biased: weights are 1.

    A subclass implements `select`. Pools with unusable scores are treated as pools of equal scores.

    Args:
        pool_size: int, the number of candidates.
        batch_size: int, the number of samples to select, without replacement.
    """

    def __init__(self, pool_size: int, batch_size: int):
        super().__init__(pool_size, batch_size, DEFAULT_ALPHA, resampling.get("systematic"), UNWEIGHTED)
        if batch_size > pool_size:
            raise ValueError(
                "`batch_size` must be at most `pool_size`, because no sample is selected twice. "
                f"Received: batch_size={batch_size!r}, pool_size={pool_size!r}"
            )

    @property
    def num_uniforms(self) -> int:
        """The number of random numbers in [0, 1) that `pick` needs: one for each candidate."""
        return self.pool_size

    def pick(self, scores: Any, uniforms: Any, average: Any = float("nan")) -> Picked:
        """Select a batch; the arguments are those of `PoolSampler.pick`."""
        xp = array_namespace(scores, uniforms)
        positions = self.select(clean_scores(scores)[0], as_floats(uniforms, xp))
        picked = xp.take(as_floats(scores, xp), positions, axis=0)
        return Picked(positions, xp.ones_like(picked), picked, xp.ones_like(picked))

    def select(self, scores: Any, uniforms: Any) -> Any:
        """Return the positions of the selected samples, int `(batch_size,)`.

        Args:
            scores: float `(pool_size,)`, in [0, 1].
            uniforms: float `(pool_size,)`, random numbers in [0, 1).
        """
        raise NotImplementedError


class RankSampler(SelectingSampler):
    """Draw samples of a pool by the rank of their score, without replacement. Biased: weights are 1.

    The b of B samples have probabilities proportional to ((r + 1/2) / B)^(B / b - 1), where r is the rank of the loss
    in the pool, 0 for the lowest.

    Args:
        pool_size, batch_size: as for `SelectingSampler`.

    Example:
        >>> RankSampler(4, 2).pick(np.array([3.0, 1.0, 4.0, 2.0]), np.array([0.5, 0.5, 0.5, 0.5])).positions
        array([2, 0])

    Source: `select_using_loss` of Composer's selective backprop. Drawing without replacement by the smallest
    -log(u) / p is Efraimidis and Spirakis's (2006).
    """

    def select(self, scores: Any, uniforms: Any) -> Any:
        """Return the positions with the smallest exponential random numbers, divided by their probabilities."""
        xp = array_namespace(scores, uniforms)
        ranks = as_floats(xp.argsort(xp.argsort(scores)), xp)
        p = ((ranks + 0.5) / self.pool_size) ** (self.pool_size / self.batch_size - 1.0)
        keys = -xp.log(uniforms) / p
        return xp.argsort(keys)[: self.batch_size]


class HighestSampler(SelectingSampler):
    """Select the b of B samples with the highest scores. Biased: weights are 1.

    Args:
        pool_size, batch_size: as for `SelectingSampler`.

    Example:
        >>> HighestSampler(4, 2).pick(np.array([3.0, 1.0, 4.0, 2.0]), np.zeros(0)).positions
        array([2, 0])

    Source: [S16], section 4, without the suppression of overlapping regions.
    """

    @property
    def num_uniforms(self) -> int:
        """The number of random numbers in [0, 1) that `pick` needs: 0."""
        return 0

    def select(self, scores: Any, uniforms: Any) -> Any:
        """Return the positions of the highest scores, in descending order."""
        return array_namespace(scores).argsort(-scores)[: self.batch_size]
