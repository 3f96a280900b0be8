"""The weighted reshuffle: a whole epoch resampled at once by known scores, then shuffled.

It keeps what makes a shuffled pass better than independent draws: over the epoch every sample is drawn as often as its
probability says, rounded, so that the weighted gradients of an epoch add up to the full one but for rounding. No
source; it is this library's own, from systematic resampling (Kitagawa, 1996) and a calibration of old scores
(`calibration.py`). Nothing is scored between the beginnings of epochs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.probabilities import probabilities
from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.base import Drawn, Smoothing, measurements
from importance_sampling.samplers.calibration import Calibration, cells
from importance_sampling.samplers.resampling import SystematicResampling
from importance_sampling.samplers.table import RescoringSampler

LONGER = 0.1  # epochs that scores may serve beyond `recompute`


class ReshuffleSampler(RescoringSampler):
    """Draw epochs: sample i about N P_i times, in random order, P_i = (1 - alpha) e_i / sum(e) + alpha / N.

    e_i is the root mean square of the score that sample i is expected to show next in training, by the size and age of
    the score it showed last; samples not seen yet count as those of them that were drawn turned out. What scores are
    worth is learnt as training measures them; before, e_i is the geometric mean of the sample's score and all scores'
    root mean square. Counts are N P_i rounded up or down, at random, so that their mean is exact.

    Every `recompute` epochs all samples are scored anew, without which the first epoch is a plain shuffled pass. All:
    with half of the easy ones left for the next time, the training loss of one run in four jumped. Where `left` says
    that less than an epoch is to come, only that is laid out, once all were seen. Scores serve a tenth of an epoch
    longer than that, so that they aren't made anew for the few samples that a `fit` draws beyond whole epochs.

    Unbiased with an unbiased policy, given its probabilities; no weight exceeds 1 / alpha. It costs 18 bytes a sample,
    some passes over them in NumPy when an epoch begins, and 1 / `recompute` of a forward pass over the data an epoch.
    It loses where a sample is seen only once, and where high scores mean wrong labels; without scoring anew also under
    dropout, where what one step measures is a poor guess at the next.

    Args:
        dataset: has `train_data`.
        reweighting: a `ReweightingPolicy`.
        model: has `score(x, y, batch_size=128)` -> float `(n,)`, >= 0; may be None if `recompute` is 0.
        recompute: int >= 0, default 0: never; in epochs.
        options: as `BaseSampler`; resampling is systematic.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> sampler = ReshuffleSampler(dset, UNBIASED, seed=0)
        >>> indices, (x, y), weights = sampler.sample(128)
        >>> sampler.update(indices, scores)  # what training on them measured
    """

    _saved = ("_scores", "_seen", "_drawn", "_rescored", "_order", "_cells", "_expected", "_p", "_at")
    _parts = ("calibration",)

    def __init__(
        self, dataset: Any, reweighting: ReweightingPolicy, model: Any = None, recompute: int = 0, **options: Any
    ):
        super().__init__(dataset, reweighting, model, recompute, **options)
        self.calibration = Calibration()
        self._scores = np.full(self.size, np.nan, "float32")  # last measured
        self._seen = np.zeros(self.size, "float32")  # when, in epochs
        self._drawn = 0  # samples, since the beginning
        self._rescored = -1  # what `_drawn` was when all were scored anew
        # The epoch under way, as an order of samples, with the cell and the probability of each sample.
        self._order = np.zeros(self.size, "int32")
        self._cells = np.zeros(self.size, "int16")
        self._expected = self.calibration.expected()  # by cell
        self._p = np.zeros(self.size, "float32")
        self._at = self.size  # how many of it are gone
        self._last: tuple = (None, None)  # samples drawn last, and their cells when they were: plans may have changed

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Remember the scores, and what became of those remembered before."""
        drawn, seen = self._last
        if not np.array_equal(indices, drawn):
            seen = self._cells[np.asarray(indices, "int64")]
        self.calibration.observe(*measurements(seen, scores))
        self._remember(*measurements(indices, scores))

    def _remember(self, indices: np.ndarray, scores: np.ndarray) -> None:
        self._scores[indices] = scores
        self._seen[indices] = self._drawn / self.size

    def _draw(self, batch_size: int, smooth: Smoothing) -> Drawn:
        parts, seen, after = [], [], self.left - batch_size
        while batch_size > 0:
            if self._at == self.size:
                self._plan(smooth, batch_size + max(after, 0))
            parts.append(self._next(batch_size))
            seen.append(self._cells[parts[-1].indices])
            batch_size -= len(seen[-1])
        drawn = parts[0] if len(parts) == 1 else Drawn(*map(np.concatenate, zip(*parts, strict=True)))
        self._last = drawn.indices, np.concatenate(seen)
        return drawn

    def _next(self, n: int) -> Drawn:
        """Up to n samples of the epoch under way, weighed by its probabilities."""
        indices = self._order[self._at : self._at + n].astype("int64")
        self._at += len(indices)
        self._drawn += len(indices)
        expected, p = self._expected[self._cells[indices]], self._p[indices].astype("float64")
        if self.reweighting.weight_size == 1:
            weights = self.reweighting.weights(p, self.size, expected)
        else:
            weights = self.reweighting.sample_weights(indices, self._expected[self._cells], self._p)
        fair = 1.0 / (self.size * p)
        return Drawn(indices, weights.astype("float32"), expected.astype("float32"), fair.astype("float32"))

    def _plan(self, smooth: Smoothing, left: float) -> None:
        """Lay out the next epoch, or what is left."""
        n = self.size if np.isnan(self._scores).any() else int(min(left, self.size))
        if self._is_due(n):
            self._rescore(lambda *scored: self._remember(*measurements(*scored)))
            self._rescored = self._drawn
        self._cells = cells(self._scores, self._drawn / self.size - self._seen)
        self._expected = self.calibration.expected()
        p = probabilities(smooth(self._expected[self._cells]), self.alpha)
        order = self._rng.permutation(self.size)  # or equal samples would be taken in step with their order
        self._at = self.size - n
        drawn = SystematicResampling().positions(p[order], self._rng.random(1), n)
        self._order[self._at :] = self._rng.permutation(order[drawn])
        self._p = p.astype("float32")

    def _is_due(self, n: int) -> bool:
        """Whether all samples are to be scored anew before n more are drawn."""
        if not self.recompute or self._rescored < 0:
            return self.recompute > 0
        return self._drawn + n - self._rescored > (self.recompute + LONGER) * self.size
