"""The artificial dataset of [C16]: two classes on the unit square, separated by a curve.

Source: [C16] Canevet, Jose & Fleuret, Importance Sampling Tree for Large-scale Empirical Expectation, ICML 2016.
"""

from __future__ import annotations

import numpy as np

from importance_sampling.datasets.base import BaseDataset
from importance_sampling.datasets.in_memory import one_hot
from importance_sampling.utils.validation import is_int, is_real


class CanevetICML2016(BaseDataset):
    """An N x N grid on the unit square with random binary labels.

    The point (a, b) has label 1 with probability 1 / (1 + exp(smooth (b - c(a)))), where
    c(a) = sin(4 (a + 1/2)^5) / 3 + 1/2, else label 0. Most labels are 1 below the curve c and 0 above it. Labels are
    uncertain only in a band around the curve.

    The default grid has 67 million points. It takes 335 MB of memory (five bytes per point; coordinates are computed
    when they are read) and some seconds to construct. N=512 has the same structure.

    Args:
        N: int in [2, 65536), default 8192; the number of points per side, including both edges.
        test_split: float in [0, 1), default 0.33; the fraction of the points, drawn at random, that form the test set.
        smooth: float > 0, default 40; the width of the uncertain band is about 4 / smooth on each side of the curve.
        seed: int >= 0, default 0; the seed of the labels and of the split.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> dset = CanevetICML2016(N=64)
        >>> x, y = dset.train_data[:5]
        >>> x.shape, y.shape
        ((5, 2), (5, 2))
        >>> len(dset.train_data), len(dset.test_data)
        (2745, 1351)

    Source: [C16].
    """

    def __init__(self, N: int = 8192, test_split: float = 0.33, smooth: float = 40, *, seed: int = 0):
        if not is_int(N) or not 2 <= N < 2**16:
            raise ValueError(
                f"`N` must be an int in [2, 65536), the number of points per side of the grid. Received: N={N!r}"
            )
        if not is_real(test_split) or not 0 <= test_split < 1:
            raise ValueError(f"`test_split` must be a number in [0, 1). Received: test_split={test_split!r}")
        if not is_real(smooth) or not 0 < smooth < float("inf"):
            raise ValueError(f"`smooth` must be a finite number above 0. Received: smooth={smooth!r}")
        if not is_int(seed) or seed < 0:
            raise ValueError(f"`seed` must be an int of at least 0. Received: seed={seed!r}")
        self._side = int(N)
        random = np.random.default_rng(seed)
        coordinates = np.linspace(0.0, 1.0, self._side)
        self._labels = np.empty((self._side, self._side), np.uint8)
        for i, a in enumerate(coordinates):
            self._labels[i] = random.random(self._side) < probability(a, coordinates, smooth)
        self._labels = self._labels.ravel()
        self._order = np.arange(self._side**2, dtype=np.uint32)
        random.shuffle(self._order)
        self._num_test = int(test_split * self._side**2)

    def _read(self, indices: np.ndarray) -> tuple:
        x = np.stack(np.divmod(indices, np.uint32(self._side)), axis=1) / (self._side - 1)
        return x.astype("float32"), one_hot(self._labels[indices], 2)

    def _train_data(self, idxs: np.ndarray | slice) -> tuple:
        return self._read(self._order[self._num_test :][idxs])

    def _train_size(self) -> int:
        return len(self._order) - self._num_test

    def _test_data(self, idxs: np.ndarray | slice) -> tuple:
        return self._read(self._order[: self._num_test][idxs])

    def _test_size(self) -> int:
        return self._num_test

    @property
    def shape(self) -> tuple[int, ...]:
        return (2,)

    @property
    def output_size(self) -> int:
        return 2


def probability(a: np.ndarray | float, b: np.ndarray | float, smooth: float) -> np.ndarray:
    """Return the probability that the point (a, b) has label 1.

    Args:
        a: float in [0, 1], the first coordinate.
        b: float in [0, 1], the second coordinate; broadcast against `a`.
        smooth: float > 0.

    Returns:
        float64 in [0, 1].
    """
    boundary = np.sin(4 * (a + 0.5) ** 5) / 3 + 0.5
    # 1 / (1 + e^z) = (1 - tanh(z / 2)) / 2, which doesn't overflow.
    return (1 - np.tanh(smooth * (b - boundary) / 2)) / 2
