"""Trainers that draw rows by index, by scores that earlier steps measured or that a small network predicts.

Source: [KF17] Katharopoulos & Fleuret, Biased Importance Sampling, 2017 (arXiv 1706.00043); [LH16] Loshchilov & Hutter,
Online Batch Selection for Faster Training of Neural Networks, 2015 (arXiv 1511.06343).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from importance_sampling.conditions import gate
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.trainer import Trainer
from importance_sampling.reweighting import UNBIASED, UNWEIGHTED, BiasedReweightingPolicy
from importance_sampling.samplers import (
    AdaptiveAdditiveSmoothingSampler,
    AdditiveSmoothingSampler,
    BaseSampler,
    HistorySampler,
    LSTMSampler,
    OnlineBatchSelectionSampler,
    ReshuffleSampler,
)
from importance_sampling.samplers.online_batch_selection import check_pressure
from importance_sampling.strategies.base import Strategy
from importance_sampling.utils.validation import (
    check_alpha,
    check_flag,
    check_non_negative,
    check_positive,
    check_recompute,
)


class IndexedTrainer(Trainer):
    """The base class of trainers whose sampler draws rows by index. A subclass implements `_make_sampler`.

    Args:
        model: a compiled `keras.Model`; `fit` trains this object.
        tau_th: float or None; the gate's threshold on tau. None: no gate.
        Others: as for `ImportanceTraining`.
    """

    needs_rows = True

    def __init__(
        self,
        model: keras.Model,
        *,
        score: str | Callable,
        layer: keras.Layer | str | int | None,
        tau_th: float | None,
        seed: int | None,
        alpha: float = 0.1,
        forward_batch_size: int | None = None,
    ):
        check_alpha(alpha)
        super().__init__(
            model,
            gate(0.0 if tau_th is None else tau_th),
            forward_batch_size=forward_batch_size,
            score=score,
            layer=layer,
            seed=seed,
        )
        self.alpha = float(alpha)

    def _make_sampler(self, rows: Any) -> BaseSampler:
        """Return the sampler for a data set.

        Args:
            rows: `DatasetRows`, the data set and the model that scores it in one object.
        """
        raise NotImplementedError

    def _make_strategy(self, plan: FitPlan, batch_size: int) -> Strategy:
        return self._indexed(batch_size, self._make_sampler, self.alpha)


class ReshuffleTraining(IndexedTrainer):
    """Resample every epoch by the scores that earlier steps measured: hard samples occur often, easy ones rarely.

    At the start of an epoch, sample i is included about N P_i times, with P_i = (1 - alpha) e_i / sum(e) + alpha / N,
    and all rows are shuffled. The weights are 1 / (N P_i), at most 1 / alpha. e_i is the root mean square of the score
    that the sample is expected to have next, estimated from the size and the age of its last measured score. Unbiased
    given its probabilities. With `recompute=0`, a step costs as much as a uniform step, because a training step
    measures the scores of its rows. The scores "full_gnorm" and callables, which a training step can't measure, need an
    additional pass.

    `ImportanceTraining` does the same with a gate, which also decides whether all samples are scored before each epoch.
    This trainer has no gate unless `tau_th` is set.

    There is no gain if each sample is seen only once: the first epoch is a uniform shuffled pass. It loses if high
    scores are due to wrong labels. With dropout, the score measured in one step predicts the next one poorly, and the
    gain is smaller than with `recompute=1`. With Adam, the training loss sometimes jumps up by a factor of ten, when a
    sample that was learnt becomes hard again; `Adam(amsgrad=True)` prevents this. A convolutional network reached a
    lower training loss than with `ImportanceTraining` in the same time.

    Args:
        model: a compiled `keras.Model`; `fit` trains this object.
        score, layer, alpha, seed: as for `ImportanceTraining`.
        recompute: int >= 0, default 0; the number of epochs between passes that score all samples, each of which costs
            a third of an epoch. 0: never.
        tau_th: float or None, default None; the gate's threshold on tau. None: no gate.

    Raises:
        ValueError: an argument is out of its range; in `fit`, data without row indices.

    Example:
        >>> ReshuffleTraining(model).fit(x_train, y_train, batch_size=128, epochs=10)

    Source: specific to this library; see `samplers.ReshuffleSampler`.
    """

    def __init__(
        self,
        model: keras.Model,
        score: str | Callable = "gnorm",
        layer: keras.Layer | str | int | None = None,
        *,
        recompute: int = 0,
        alpha: float = 0.1,
        tau_th: float | None = None,
        seed: int | None = None,
    ):
        check_recompute(recompute)
        super().__init__(model, score=score, layer=layer, tau_th=tau_th, seed=seed, alpha=alpha)
        self.recompute = int(recompute)
        self.accepts_train_step = self.recompute > 0  # such a step measures no scores

    def _make_sampler(self, rows: Any) -> BaseSampler:
        return ReshuffleSampler(rows, UNBIASED, rows, self.recompute, alpha=self.alpha, seed=self._state.seed)


class HistoryImportanceTraining(IndexedTrainer):
    """Draw from the whole training set by the last measured score of every sample.

    P_i = (1 - alpha) s_i / sum(s) + alpha / N, and the weights are 1 / (N P_i). Samples without a score get the mean
    score of the others. Unbiased, even with old scores. A step costs as much as a uniform step; every `recompute`
    epochs, all samples are scored, which costs a third of an epoch. There is no gate unless `tau_th` is set.

    It loses if scores change faster than that, or if dropout makes the score of one pass a poor estimate of the next,
    so that samples with large gradients get large weights. On a perceptron for MNIST, it reached a lower training loss
    than uniform training in the same time, but the loss jumped up by a factor of ten on the way. On a convolutional
    network, `ReshuffleTraining` reached a lower training loss.

    Args:
        model: a compiled `keras.Model`; `fit` trains this object.
        recompute: int >= 0, default 2; the number of epochs between passes that score all samples. 0: never.
        score, layer, forward_batch_size, alpha, seed: as for `ImportanceTraining`.
        tau_th: float or None, default None; the gate's threshold on tau. None: no gate.

    Raises:
        ValueError: an argument is out of its range; in `fit`, data without row indices.

    Example:
        >>> HistoryImportanceTraining(model).fit(x_train, y_train, batch_size=128, epochs=10)

    Source: `HistorySampler` in earlier versions of the method's library.
    """

    def __init__(
        self,
        model: keras.Model,
        recompute: int = 2,
        score: str | Callable = "gnorm",
        layer: keras.Layer | str | int | None = None,
        *,
        forward_batch_size: int | None = None,
        alpha: float = 0.1,
        tau_th: float | None = None,
        seed: int | None = None,
    ):
        check_recompute(recompute)
        super().__init__(
            model,
            score=score,
            layer=layer,
            tau_th=tau_th,
            seed=seed,
            alpha=alpha,
            forward_batch_size=forward_batch_size,
        )
        self.recompute = int(recompute)
        self.accepts_train_step = self.recompute > 0  # such a step measures no scores

    def _make_sampler(self, rows: Any) -> BaseSampler:
        return HistorySampler(rows, UNBIASED, rows, self.recompute, alpha=self.alpha, seed=self._state.seed)


class OnlineBatchSelection(IndexedTrainer):
    """Draw by the rank of the last measured loss, high losses more often. Biased: weights are 1, as published.

    Rank r has the probability p(r) proportional to exp(-r log(s) / N), and rank 0 is the highest loss. s changes
    exponentially from s_e[0] to s_e[1] over `n_epochs` epochs of `steps_per_epoch` batches. Samples are ranked once per
    epoch; every `recompute` epochs all losses are computed. A step costs as much as a uniform step. There is no gate
    unless `tau_th` is set.

    With the default s_e = (1, 1), it samples uniformly with replacement. In the same time, this reached about the same
    training loss as uniform training on a perceptron for MNIST, and a higher one on a convolutional network. With a
    high s, it loses if high losses are due to wrong labels.

    Args:
        model: a compiled `keras.Model`; `fit` trains this object.
        steps_per_epoch: int >= 1, default 300; the number of batches per epoch.
        recompute: int >= 0, default 2; the number of epochs between passes that compute all losses. 0: never.
        s_e: two floats >= 1, default (1, 1); the selection pressure s in the first and in the last epoch.
        n_epochs: int >= 1, default 1; the number of epochs over which s changes.
        score: as for `ImportanceTraining`, default "loss"; the value that is ranked.
        layer, forward_batch_size, seed: as for `ImportanceTraining`.
        tau_th: float or None, default None; the gate's threshold on tau. None: no gate.

    Raises:
        ValueError: an argument is out of its range; in `fit`, data without row indices.

    Example:
        >>> OnlineBatchSelection(model, steps_per_epoch=469, s_e=(100, 1), n_epochs=10).fit(x_train, y_train)

    Source: [LH16], Algorithm 1.
    """

    def __init__(
        self,
        model: keras.Model,
        steps_per_epoch: int = 300,
        recompute: int = 2,
        s_e: tuple[float, float] = (1, 1),
        n_epochs: int = 1,
        *,
        score: str | Callable = "loss",
        layer: keras.Layer | str | int | None = None,
        forward_batch_size: int | None = None,
        tau_th: float | None = None,
        seed: int | None = None,
    ):
        check_positive(steps_per_epoch=steps_per_epoch, n_epochs=n_epochs)
        check_recompute(recompute)
        check_pressure(s_e)
        super().__init__(
            model, score=score, layer=layer, tau_th=tau_th, seed=seed, forward_batch_size=forward_batch_size
        )
        self.options = dict(steps_per_epoch=steps_per_epoch, recompute=recompute, s_e=s_e, n_epochs=n_epochs)

    def _make_sampler(self, rows: Any) -> BaseSampler:
        return OnlineBatchSelectionSampler(rows, UNWEIGHTED, rows, **self.options, seed=self._state.seed)


class ApproximateImportanceTraining(IndexedTrainer):
    """Draw by scores that a small LSTM predicts, with weights raised to the power k. Biased for k < 1.

    Candidates are uniform pools. Two LSTM layers of 32 units predict the next score of a sample from its last ten
    scores and an embedding of its class. They are trained on the scores that training steps measure. The model itself
    scores no samples. There is no gate unless `tau_th` is set.

    It loses if a forward pass of the model over the pool is cheaper than one of the LSTM, as for small models, and in
    the first epochs, when there are few scores to predict from. On a perceptron for MNIST, a step took five times as
    long as a uniform step and training made no more progress in the same time; with two classes, one of them rare, it
    made more. Targets must be class labels.

    Args:
        model: a compiled `keras.Model`; `fit` trains this object.
        k: float in (-inf, 1], default 0.5; 1 is unbiased, 0 gives equal weights.
        smooth: float >= 0, default 0; added to every score, in units of the score, or of the moving average of scores.
        adaptive_smoothing: bool, default False; True: `smooth` is in units of the moving average.
        presample: int >= 1, default 2048; the size of a pool in samples.
        score: as for `ImportanceTraining`, default "loss"; the value that is predicted.
        layer, alpha, seed: as for `ImportanceTraining`.
        tau_th: float or None, default None; the gate's threshold on tau. None: no gate.

    Raises:
        ValueError: an argument is out of its range; in `fit`, data without row indices.

    Example:
        >>> ApproximateImportanceTraining(model).fit(x_train, y_train, batch_size=128, epochs=10)

    Source: [KF17], section 3.2.
    """

    def __init__(
        self,
        model: keras.Model,
        k: float = 0.5,
        smooth: float = 0.0,
        adaptive_smoothing: bool = False,
        presample: int = 2048,
        *,
        score: str | Callable = "loss",
        layer: keras.Layer | str | int | None = None,
        alpha: float = 0.1,
        tau_th: float | None = None,
        seed: int | None = None,
    ):
        check_positive(presample=presample)
        check_non_negative(smooth=smooth)
        check_flag(adaptive_smoothing=adaptive_smoothing)
        super().__init__(model, score=score, layer=layer, tau_th=tau_th, seed=seed, alpha=alpha)
        self.presample = int(presample)
        self.reweighting = BiasedReweightingPolicy(k)
        self.smooth, self.adaptive_smoothing = float(smooth), bool(adaptive_smoothing)

    def _make_sampler(self, rows: Any) -> BaseSampler:
        sampler = LSTMSampler(rows, self.reweighting, self.presample, alpha=self.alpha, seed=self._state.seed)
        if not self.smooth:
            return sampler
        decorator = AdaptiveAdditiveSmoothingSampler if self.adaptive_smoothing else AdditiveSmoothingSampler
        return decorator(sampler, self.smooth)
