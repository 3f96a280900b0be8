"""Draw by scores that a small recurrent network predicts from each sample's last ones.

Source: [KF17] Katharopoulos & Fleuret, Biased Importance Sampling for Deep Neural Network Training, 2017 (arXiv
1706.00043), section 3.2. No sample is scored to be drawn: rows needn't even be read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.events import LSTM_COMPARISON
from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.base import Drawn, Smoothing
from importance_sampling.samplers.labels import Labels
from importance_sampling.samplers.model import check_model, check_positive
from importance_sampling.samplers.predictor import ScorePredictor
from importance_sampling.samplers.uniform import ShufflingSampler


class LSTMSampler(ShufflingSampler):
    """Draw from a uniform pool by the scores that two LSTM(32) over the last scores and the class predict.

    The network, `ScorePredictor`, is trained on the scores that training steps measure, one gradient step of its own
    for each. Samples not seen yet have a history of zeros and are told apart by class.

    Unbiased with an unbiased policy, however bad the predictions. It costs the network's pass over the pool and a
    training step of it a batch, 4 * `history` + 12 bytes a sample, and reads each sample once for its label. It loses
    where a forward pass of the model over the pool is no dearer than that (small models: see `ModelSampler`), and early
    on, when it has seen little.

    Args:
        dataset: has `train_data` with classes as targets.
        reweighting: a `ReweightingPolicy`.
        presample: int >= 1, default 2048; the pool's size, at most all rows.
        history: int >= 1, default 10; how many last scores it looks at.
        log: bool, default False: predict the mean of the score to be expected; True: its geometric mean.
        options: as `BaseSampler`.

    Raises:
        ValueError: an argument is out of its range, or targets aren't classes.

    Example:
        >>> sampler = LSTMSampler(dset, BiasedReweightingPolicy(0.5))
        >>> indices, (x, y), weights = sampler.sample(128)
        >>> sampler.update(indices, scores)  # what training on them measured

    Source: [KF17], section 3.2.
    """

    needs_scores = True
    _saved = (*ShufflingSampler._saved, "_histories")
    _parts = ("predictor",)

    def __init__(
        self,
        dataset: Any,
        reweighting: ReweightingPolicy,
        presample: int = 2048,
        history: int = 10,
        log: bool = False,
        **options: Any,
    ):
        super().__init__(dataset, reweighting, **options)
        check_positive(presample=presample, history=history)
        self.presample = int(presample)
        self.labels = Labels(dataset)
        self.predictor = ScorePredictor(int(history), self.labels.count, bool(log), self.seed)
        self._histories = np.zeros((self.size, int(history)), "float32")  # the last score last

    def predict(self, indices: np.ndarray) -> np.ndarray:
        """Predicted scores, float64 `(n,)`, of samples, int `(n,)`."""
        return self.predictor.predict(self._histories[indices], self.labels.of(indices))

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Train the network on what was measured, then remember it."""
        indices, scores = np.asarray(indices, "int64"), np.asarray(scores, "float32")
        self.predictor.train(self._histories[indices], self.labels.of(indices), scores)
        usable = np.isfinite(scores) & (scores >= 0)
        indices, last = np.unique(indices[usable], return_index=True)
        self._histories[indices, :-1] = self._histories[indices, 1:]
        self._histories[indices, -1] = scores[usable][last]

    def _candidates(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        indices = self._next(min(self.presample, self.size))
        return indices, self.predict(indices)


class LSTMComparisonSampler(LSTMSampler):
    """An `LSTMSampler` that shows how good its predictions are, on a fixed subset of the samples.

    Ahead of every draw, the signal `is.lstm_comparison_sampler.scores` is sent `scores`, float32 `(subset, 2)`: true
    ones, by the model, beside predicted ones. That costs a forward pass of the model over the subset a batch, and
    nothing while nobody listens. Bias, and where it loses, as `LSTMSampler`.

    Args:
        dataset: has `train_data` with classes as targets.
        reweighting: a `ReweightingPolicy`.
        model: has `score(x, y, batch_size=128)` -> float `(n,)`.
        subset: int >= 1, default 1024; how many samples are compared, at most all.
        presample, history, log and options: as `LSTMSampler`.

    Raises:
        ValueError: an argument is out of its range, or targets aren't classes.

    Example:
        >>> blinker.signal("is.lstm_comparison_sampler.scores").connect(lambda sampler, scores: ...)
        >>> LSTMComparisonSampler(dset, UNBIASED, model).draw(128)
    """

    needs_model = True

    def __init__(
        self,
        dataset: Any,
        reweighting: ReweightingPolicy,
        model: Any,
        subset: int = 1024,
        presample: int = 2048,
        history: int = 10,
        log: bool = False,
        **options: Any,
    ):
        super().__init__(dataset, reweighting, presample, history, log, **options)
        check_model(model)
        check_positive(subset=subset)
        self.model = model
        # Of the seed alone, so that it isn't part of the state.
        order = np.random.default_rng((self.seed, 3)).permutation(self.size)
        self.subset = np.sort(order[: int(subset)])

    def _draw(self, batch_size: int, smooth: Smoothing) -> Drawn:
        if LSTM_COMPARISON.receivers:
            x, y = self.dataset.train_data[self.subset]
            true = np.reshape(self.model.score(x, y, batch_size=128), self.subset.size)
            pairs = np.stack([true, self.predict(self.subset)], axis=1).astype("float32")
            LSTM_COMPARISON.send(self, scores=pairs)
        return super()._draw(batch_size, smooth)
