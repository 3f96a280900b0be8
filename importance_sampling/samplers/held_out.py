"""Choose training samples that importance steps leave out, because their loss shows whether training still generalises.

Source: this library; the principle is that of a validation set.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

SAMPLES_PER_HELD_OUT = 50  # one in 50 samples
MOST_HELD_OUT = 512  # enough to measure a mean loss
FEWEST_HELD_OUT = 100  # fewer are too few to tell


class HeldOut(NamedTuple):
    """Samples that are left out, and as many others to compare their loss with.

    Attributes:
        samples, others: row indices, int64 `(n,)`, ascending; empty if no samples are left out.
    """

    samples: np.ndarray
    others: np.ndarray


NONE_HELD_OUT = HeldOut(np.zeros(0, "int64"), np.zeros(0, "int64"))


@functools.lru_cache(maxsize=8)
def hold_out(size: int, seed: int) -> HeldOut:
    """Choose the samples to hold out at random: 2 % of them, at most 512; none if there are fewer than 5,000.

    Args:
        size: int >= 1, the number of training samples.
        seed: int >= 0.

    Example:
        >>> len(hold_out(10000, seed=0).samples), len(hold_out(1000, seed=0).samples)
        (200, 0)
    """
    count = min(size // SAMPLES_PER_HELD_OUT, MOST_HELD_OUT)
    if count < FEWEST_HELD_OUT:
        return NONE_HELD_OUT
    chosen = np.random.default_rng((seed, size)).choice(size, 2 * count, replace=False)
    return HeldOut(np.sort(chosen[:count]), np.sort(chosen[count:]))
