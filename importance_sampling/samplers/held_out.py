"""Choose training samples that importance steps leave out, because their loss shows whether training still generalises.

Source: this library; the principle is that of a validation set.
"""

from __future__ import annotations

import numpy as np

SAMPLES_PER_HELD_OUT = 50  # one in 50 samples
MOST_HELD_OUT = 512  # enough to measure a mean loss
FEWEST_HELD_OUT = 64  # fewer say too little


def held_out_samples(size: int, seed: int) -> np.ndarray:
    """Choose the samples to hold out at random: 2 % of them, at most 512.

    Args:
        size: int >= 1, the number of training samples.
        seed: int >= 0.

    Returns:
        Row indices, int64 `(n,)`, ascending; empty if `size` is less than 3,200.

    Example:
        >>> len(held_out_samples(10000, seed=0)), len(held_out_samples(1000, seed=0))
        (200, 0)
    """
    count = min(size // SAMPLES_PER_HELD_OUT, MOST_HELD_OUT)
    if count < FEWEST_HELD_OUT:
        return np.zeros(0, "int64")
    return np.sort(np.random.default_rng((seed, size)).choice(size, count, replace=False))
