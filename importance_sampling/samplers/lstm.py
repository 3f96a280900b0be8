"""Draw by scores that a small recurrent network predicts from the last scores of each sample.

Source: [KF17] Katharopoulos & Fleuret, Biased Importance Sampling for Deep Neural Network Training, 2017 (arXiv
1706.00043), section 3.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from importance_sampling.events import LSTM_COMPARISON
from importance_sampling.reweighting import ReweightingPolicy
from importance_sampling.samplers.base import Drawn, Smoothing
from importance_sampling.samplers.labels import Labels
from importance_sampling.samplers.uniform import ShufflingSampler
from importance_sampling.utils.validation import check_flag, check_positive, check_scoring_model


class LSTMSampler(ShufflingSampler):
    """Draw from a uniform pool by scores that two LSTM(32) layers predict from each sample's last scores and class.

    The network, `ScorePredictor`, takes one gradient step on the measured scores of each batch. Samples without a score
    have a history of zeros; their predictions differ by class only.

    Unbiased with an unbiased policy, also if predictions are bad. Cost: per batch a forward pass of the network over
    the pool and one of its training steps; 4 * `history` + 12 bytes per sample; each sample is read once for its label.
    Not suited to small models, whose own forward pass over the pool takes no more time (see `ModelSampler`), or to
    the start of training, when the network has seen few scores.

    Args:
        dataset: has `train_data` with classes as targets.
        reweighting: a `ReweightingPolicy`.
        presample: int >= 1, default 2048, the size of the pool in samples; at most all rows are used.
        history: int >= 1, default 10, the number of last scores that the network uses.
        log: bool, default False: predict the mean of the next score; True: its geometric mean.
        options: as for `BaseSampler`.

    Raises:
        ValueError: an argument is out of its range, or targets are not classes.

    Example:
        >>> sampler = LSTMSampler(dset, BiasedReweightingPolicy(0.5))
        >>> indices, (x, y), weights = sampler.sample(128)
        >>> sampler.update(indices, scores)  # the scores that the training step measured

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
        check_flag(log=log)
        self.presample = int(presample)
        self.labels = Labels(dataset)
        from importance_sampling.samplers.predictor import ScorePredictor  # here, because it needs Keras

        self.predictor = ScorePredictor(int(history), self.labels.num_classes, bool(log), self.seed)
        self._histories = np.zeros((self.size, int(history)), "float32")  # by row index, the latest score last

    def predict(self, indices: np.ndarray) -> np.ndarray:
        """Predict the next scores of samples.

        Args:
            indices: int `(n,)`, row indices.

        Returns:
            float64 `(n,)`.
        """
        return self.predictor.predict(self._histories[indices], self.labels.classes(indices))

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Train the network on measured scores, then add them to the histories."""
        indices, scores = np.asarray(indices, "int64"), np.asarray(scores, "float32")
        self.predictor.train(self._histories[indices], self.labels.classes(indices), scores)
        usable = np.isfinite(scores) & (scores >= 0)
        indices, first = np.unique(indices[usable], return_index=True)
        self._histories[indices, :-1] = self._histories[indices, 1:]
        self._histories[indices, -1] = scores[usable][first]

    def _candidates(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        indices = self._next_indices(min(self.presample, self.size))
        return indices, self.predict(indices)


class LSTMComparisonSampler(LSTMSampler):
    """An `LSTMSampler` that reports the true scores of a fixed subset of samples beside their predictions.

    Before every draw the signal `is.lstm_comparison_sampler.scores` is sent with `scores`, float32 `(subset, 2)`: the
    scores by the model, and the predicted scores. Cost, if the signal has receivers: a forward pass of the model over
    the subset per batch. Otherwise as `LSTMSampler`.

    Args:
        dataset: has `train_data` with classes as targets.
        reweighting: a `ReweightingPolicy`.
        model: has `score(x, y, batch_size=128)` -> float `(n,)`.
        subset: int >= 1, default 1024, the number of samples to compare; at most all rows are used.
        presample, history, log and options: as for `LSTMSampler`.

    Raises:
        ValueError: an argument is out of its range, or targets are not classes.

    Example:
        >>> import blinker
        >>> compared = []
        >>> def receiver(sampler, scores):
        ...     compared.append(scores)
        >>> connected = blinker.signal("is.lstm_comparison_sampler.scores").connect(receiver)
        >>> drawn = LSTMComparisonSampler(dset, UNBIASED, OracleWrapper(model, UNBIASED), subset=100).draw(128)
        >>> compared[0].shape
        (100, 2)
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
        check_scoring_model(model)
        check_positive(subset=subset)
        super().__init__(dataset, reweighting, presample, history, log, **options)
        self.model = model
        # The subset depends on the seed only, so it need not be saved.
        order = np.random.default_rng((self.seed, 3)).permutation(self.size)
        self.subset = np.sort(order[: int(subset)])

    def _draw(self, batch_size: int, smooth: Smoothing) -> Drawn:
        if LSTM_COMPARISON.receivers:
            x, y = self.dataset.train_data[self.subset]
            true = np.reshape(self.model.score(x, y, batch_size=128), self.subset.size)
            pairs = np.stack([true, self.predict(self.subset)], axis=1).astype("float32")
            LSTM_COMPARISON.send(self, scores=pairs)
        return super()._draw(batch_size, smooth)
