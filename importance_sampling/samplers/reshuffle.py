"""The weighted reshuffle: draw a whole epoch by known scores with systematic resampling, then shuffle it.

Shuffled epochs have a lower variance than independent draws, because every sample occurs exactly once. The weighted
reshuffle keeps that advantage: the number of times that a sample occurs in an epoch is its expected number, rounded up
or down, so that the weighted gradients of an epoch sum to the full gradient up to rounding.

Source: this library, from systematic resampling (Kitagawa, 1996) and a calibration of old scores (`calibration.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.base import Drawn, Smoothing, joined
from importance_sampling.samplers.calibration import UNSEEN, Calibration, cells
from importance_sampling.samplers.checks import usable_measurements
from importance_sampling.samplers.epochs import EpochSampler
from importance_sampling.samplers.resampling import SystematicResampling
from importance_sampling.samplers.table import RescoringSampler
from importance_sampling.utils.numerics import probabilities

RESCORING_TOLERANCE = 0.1  # epochs that scores can be used beyond `recompute`
MOST_DRAWN_BATCHES = 256  # whose scores may be measured later


class ReshuffleSampler(EpochSampler, RescoringSampler):
    """Draw whole epochs in random order. Sample i occurs N P_i times, rounded at random up or down.

    P_i = (1 - alpha) e_i / sum(e) + alpha / N, where e_i is the expected score of sample i: the root mean square of its
    next score, estimated from the magnitude and the age of its last score with the scores that training measures
    (`Calibration`). Before there are measurements, e_i is the geometric mean of the sample's last score and of the root
    mean square of all scores. The expected score of samples without a score is estimated by the first scores of other
    samples.

    Every `recompute` epochs the model scores all samples before the epoch is drawn, the first epoch included. With
    `recompute=0` the first epoch is a uniform shuffled epoch. Scores can be used for another tenth of an epoch, so that
    a `fit` that ends shortly after a whole epoch doesn't rescore all samples. If `samples_left` is less than an epoch
    and all samples have a score, only the samples left are drawn. The attribute `recompute` can be changed at any time
    for the epochs that follow.

    Samples in `held_out` are never drawn, and the others represent the data.

    Unbiased with an unbiased policy, given its probabilities; no unbiased weight exceeds 1 / alpha. Cost: 18 bytes per
    sample, a few NumPy operations on N numbers per epoch, and 1 / `recompute` of a forward pass over the data per
    epoch. Not suited to data that are seen only once, or to wrong labels, which have high scores; with `recompute=0`
    also not to dropout, where a single measured score is a noisy estimate of the next.

    Args:
        dataset: has `train_data`.
        reweighting: a `ReweightingPolicy`.
        model: has `score(x, y, batch_size=128)` -> float `(n,)`, >= 0; can be None if `recompute` is 0.
        recompute: int >= 0, default 0 (never), in epochs.
        options: as for `BaseSampler`; resampling is always systematic.

    Raises:
        ValueError: an argument is out of its range.

    Attributes:
        held_out: sequence of int, empty by default; the row indices of samples that are left out of the epochs that are
            drawn from now on.
        is_measuring: bool, True in the first epoch, if it was drawn before any score was known.

    Example:
        >>> sampler = ReshuffleSampler(dset, UNBIASED, seed=0)
        >>> indices, (x, y), weights = sampler.sample(128)
        >>> sampler.update(indices, scores)  # the scores that the training step measured
    """

    _saved = (
        "_scores",
        "_scored_at",
        "_samples_drawn",
        "_rescored_at",
        "_order",
        "_cells",
        "_expected",
        "_draw_probabilities",
        "_cursor",
    )
    _saved_keys = {
        "_scored_at": "_seen",
        "_samples_drawn": "_drawn",
        "_rescored_at": "_rescored",
        "_draw_probabilities": "_p",
        "_cursor": "_at",
    }
    _parts = ("calibration",)
    held_out: Sequence[int] = ()

    def __init__(
        self, dataset: Any, reweighting: ReweightingPolicy, model: Any = None, recompute: int = 0, **options: Any
    ):
        super().__init__(dataset, reweighting, model, recompute, **options)
        self.calibration = Calibration()
        self._scores = np.full(self.size, np.nan, "float32")  # last measured score, by row index
        self._scored_at = np.zeros(self.size, "float32")  # time of that measurement, in epochs
        self._samples_drawn = 0  # in total
        self._rescored_at = -1  # `_samples_drawn` when the model last scored all samples; -1: never
        # The current epoch.
        self._cells = np.zeros(self.size, "int16")  # cell of each sample's last score, by row index
        self._expected = self.calibration.expected_scores()  # by cell
        self._draw_probabilities = np.zeros(self.size, "float32")  # by row index
        # Of each drawn batch whose scores may still be measured: row indices, their cells, samples drawn by then.
        self._drawn_batches: deque = deque(maxlen=MOST_DRAWN_BATCHES)

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Record measured scores, and update the calibration with them."""
        batch_cells, drawn = self._when_drawn(indices)
        self.calibration.update(*usable_measurements(batch_cells, scores))
        self._record(*usable_measurements(indices, scores), drawn)

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Set the sampler to a state that `state` returned."""
        super().restore(state)
        self._note_cells()

    def _note_cells(self) -> None:
        """Note whether any score was known when the current epoch was drawn, and if not, why."""
        self._has_scores = bool((self._cells != UNSEEN).any())
        self.is_measuring = not self._has_scores and self._samples_drawn < self.size

    def _when_drawn(self, indices: np.ndarray) -> tuple[np.ndarray, int]:
        """Return the cells of a batch and the number of samples drawn, as of its draw; as of now for other rows."""
        for number, (drawn_indices, batch_cells, drawn) in enumerate(self._drawn_batches):
            if np.array_equal(indices, drawn_indices):
                for _ in range(number + 1):  # batches before it weren't measured
                    self._drawn_batches.popleft()
                return batch_cells, drawn
        return self._cells[np.asarray(indices, "int64")], self._samples_drawn

    def _record(self, indices: np.ndarray, scores: np.ndarray, samples_drawn: int) -> None:
        self._scores[indices] = scores
        self._scored_at[indices] = samples_drawn / self.size

    def _draw(self, batch_size: int, smooth: Smoothing) -> Drawn:
        parts, batch_cells = [], []
        for indices in self._parts_of_batch(batch_size, smooth):
            self._samples_drawn += len(indices)
            batch_cells.append(self._cells[indices])
            p = self._draw_probabilities[indices].astype("float64")
            part = self._weighed(indices, p, self._expected[batch_cells[-1]])
            if not self._has_scores:
                part = part._replace(scores=np.full(len(indices), np.nan, "float32"))
            parts.append(part)
        drawn = joined(parts)
        self._drawn_batches.append((drawn.indices, np.concatenate(batch_cells), self._samples_drawn))
        return drawn

    def _epoch_pool(self) -> tuple[np.ndarray, np.ndarray]:
        return self._expected[self._cells], self._draw_probabilities

    def _draw_epoch(self, smooth: Smoothing, batch_size: int, samples_after: float) -> None:
        """Draw the next epoch, or the samples left if they are fewer."""
        is_drawn = np.ones(self.size, bool)
        is_drawn[np.asarray(self.held_out, "int64")] = False
        n = self.size if (np.isnan(self._scores) & is_drawn).any() else int(min(batch_size + samples_after, self.size))
        if self._must_rescore(n):
            # All samples: when only half of the low scores were recomputed, the training loss jumped in 1 of 4 runs.
            self._score_all(lambda *scored: self._record(*usable_measurements(*scored), self._samples_drawn))
            self._rescored_at = self._samples_drawn
        self._cells = cells(self._scores, self._samples_drawn / self.size - self._scored_at)
        self._note_cells()
        self._expected = self.calibration.expected_scores()
        p = self._probabilities_of_rows(smooth(self._expected[self._cells]), is_drawn)
        # Weights are 1 / (size p): without the held-out samples, fewer represent the data.
        self._draw_probabilities = (p * (1.0 - len(self.held_out) / self.size)).astype("float32")
        # Systematic resampling takes equal scores at equal distances: put them in random order first.
        order = self._rng.permutation(np.arange(self.size, dtype="int32"))  # half the memory of int64
        p = p[order]  # the arrays of large data are dropped as soon as possible
        positions = SystematicResampling().positions(p, self._rng.random(1), n)
        self._rng.shuffle(self._begin_order(order[positions]))

    def _probabilities_of_rows(self, scores: np.ndarray, is_drawn: np.ndarray) -> np.ndarray:
        """Turn the scores of all rows into probabilities, which are 0 where `is_drawn`, bool `(size,)`, is False."""
        if is_drawn.all():  # without a copy
            return probabilities(scores, self.alpha)
        p = np.zeros(self.size)
        p[is_drawn] = probabilities(scores[is_drawn], self.alpha)
        return p

    def _must_rescore(self, n: int) -> bool:
        """Return True if the model must score all samples before n more are drawn."""
        if not self.recompute or self._rescored_at < 0:
            return self.recompute > 0
        return self._samples_drawn + n - self._rescored_at > (self.recompute + RESCORING_TOLERANCE) * self.size
