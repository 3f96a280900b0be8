"""Trainers that know their scores beforehand: from what earlier steps measured, or from a prediction of it.

They need rows by index. Source: [KF17] Katharopoulos & Fleuret, Biased Importance Sampling, 2017
(arXiv 1706.00043); [LH16] Loshchilov & Hutter, Online Batch Selection (arXiv 1511.06343). Nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from importance_sampling.conditions import gate
from importance_sampling.open_steps import OpenSteps
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
from importance_sampling.sources import Prepared
from importance_sampling.trainer import Trainer
from importance_sampling.utils.validation import check_alpha, check_non_negative, check_positive, check_recompute


class TableTrainer(Trainer):
    """What trainers of samplers that draw by index have in common; a subclass fills in `_sampler`.

    Args:
        model: a compiled `keras.Model`; it stays the user's own.
        tau_th: float, or None: no gate.
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

    def _sampler(self, rows: Any, seed: int) -> BaseSampler:
        """The sampler of a data set, `rows` being that and the model that scores it."""
        raise NotImplementedError

    def _open_steps(self, keras_function: Callable, prepared: Prepared) -> OpenSteps:
        return self._row_steps(keras_function, prepared, lambda rows: self._sampler(rows, self._state.seed), self.alpha)


class ReshuffleTraining(TableTrainer):
    """Epochs resampled by known scores: hard samples several times, easy ones now and then.

    At the start of an epoch sample i is dealt out about N P_i times, P_i = (1 - alpha) e_i / sum(e) + alpha / N, and
    all is shuffled; weights are 1 / (N P_i), at most 1 / alpha. e_i is the root mean square of the score that the
    sample is expected to show next, by size and age of the one it showed last: what a training step measures of it for
    nothing. Unbiased given its probabilities. At `recompute=0` a step costs what a plain one does: no forward pass is
    made for scores (but for "full_gnorm" and callables, which the training pass doesn't see).

    `ImportanceTraining` does the same with `recompute=1`, behind a gate. There is none here, unless `tau_th` is given.

    It gains nothing where data are seen once: the first epoch is a plain shuffled pass. It loses where high scores mean
    wrong labels, and under dropout, where what one step measures is a poor guess at the next, it gains less than with
    `recompute=1`. On MNIST's perceptron its training loss jumps back now and then, by a factor of ten, as scores of
    mixed age let it; with `recompute=1` it doesn't. A convolutional network got further in the same time than by
    `ImportanceTraining`.

    Args:
        model: a compiled `keras.Model`; it stays the user's own.
        score, layer, alpha, seed: as for `ImportanceTraining`.
        recompute: int >= 0, default 0: never; every how many epochs all are scored anew, a third of an epoch.
        tau_th: float or None (default): no gate.

    Raises:
        ValueError: an argument is out of its range; in `fit`, data without rows by index.

    Example:
        >>> ReshuffleTraining(model).fit(x_train, y_train, batch_size=128, epochs=10)

    Source: this library's own; see `samplers.ReshuffleSampler`.
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

    def _sampler(self, rows: Any, seed: int) -> BaseSampler:
        return ReshuffleSampler(rows, UNBIASED, rows, self.recompute, alpha=self.alpha, seed=seed)


class HistoryImportanceTraining(TableTrainer):
    """Draw from the whole training set by every sample's last seen score.

    P_i = (1 - alpha) s_i / sum(s) + alpha / N, weights 1 / (N P_i); unseen samples get the mean of the seen. Unbiased,
    however stale the scores. A step costs what a plain one does; every `recompute` epochs all rows are scored anew, a
    third of an epoch. There is no gate unless `tau_th` is given.

    It loses where scores go stale faster than that, and where dropout makes the score of one pass a poor guess at the
    next: then weights are large where gradients are. On MNIST's perceptron it gets further than plain training in the
    same time, and is thrown back by a factor of ten on the way; on a convolutional network `ReshuffleTraining` got
    further by such scores.

    Args:
        model: a compiled `keras.Model`; it stays the user's own.
        recompute: int >= 0, default 2; every how many epochs all are scored anew. 0: never.
        score, layer, forward_batch_size, alpha, seed: as for `ImportanceTraining`.
        tau_th: float or None (default): no gate.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> HistoryImportanceTraining(model).fit(x_train, y_train, batch_size=128, epochs=10)

    Source: the sampler of that name of earlier versions of the method's library.
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

    def _sampler(self, rows: Any, seed: int) -> BaseSampler:
        return HistorySampler(rows, UNBIASED, rows, self.recompute, alpha=self.alpha, seed=seed)


class OnlineBatchSelection(TableTrainer):
    """Draw rank r, by last seen loss from the highest on, with p(r) proportional to exp(-r log(s) / N).

    s goes from s_e[0] to s_e[1] over `n_epochs` epochs of `steps_per_epoch` batches, exponentially. Ranks are sorted
    anew each epoch; every `recompute` epochs all losses are computed anew. Biased, as published: weights are 1. A step
    costs what a plain one does. There is no gate unless `tau_th` is given.

    At the default s_e = (1, 1) it is uniform sampling with replacement, which on MNIST's perceptron got no further than
    plain training in the same time, and on a convolutional network less far. With a high s it loses where high losses
    are wrong labels.

    Args:
        model: a compiled `keras.Model`; it stays the user's own.
        steps_per_epoch: int, default 300; in batches.
        recompute: int >= 0, default 2; in epochs. 0: never.
        s_e: two floats >= 1, default (1, 1); the selection pressure in the first and in the last epoch.
        n_epochs: int >= 1, default 1; over how many s goes from the one to the other.
        score: default "loss"; what is ranked.
        layer, forward_batch_size, seed: as for `ImportanceTraining`.
        tau_th: float or None (default): no gate.

    Raises:
        ValueError: an argument is out of its range.

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

    def _sampler(self, rows: Any, seed: int) -> BaseSampler:
        return OnlineBatchSelectionSampler(rows, UNWEIGHTED, rows, **self.options, seed=seed)


class ApproximateImportanceTraining(TableTrainer):
    """Draw from a uniform pool by the scores that a small LSTM predicts, weights raised to the power k.

    Two LSTM(32) over a sample's last ten scores and an embedding of its class predict its next score; they are trained
    on what the training step measures. No sample is scored by the model itself. Biased for k < 1. There is no gate
    unless `tau_th` is given.

    It loses where a forward pass over the pool is no dearer than the LSTM's, which is so for small models, and in the
    first epochs, when there is no history to predict from. On MNIST's perceptron its steps take five times as long as
    plain ones, and it gets no further in the same time; where one class of two was rare it did. Targets must be
    classes.

    Args:
        model: a compiled `keras.Model`; it stays the user's own.
        k: float in (-inf, 1], default 0.5; 1 is unbiased, 0 weighs the batch evenly.
        smooth: float >= 0, default 0; added to every score, in units of the score, or of the scores' moving average.
        adaptive_smoothing: bool, default False; whether `smooth` is in units of the moving average.
        presample: int, default 2048; the pool's size in samples.
        score: default "loss"; what is predicted.
        layer, alpha, seed: as for `ImportanceTraining`.
        tau_th: float or None (default): no gate.

    Raises:
        ValueError: an argument is out of its range; in `fit`, data without rows by index.

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
        super().__init__(model, score=score, layer=layer, tau_th=tau_th, seed=seed, alpha=alpha)
        self.presample = int(presample)
        self.reweighting = BiasedReweightingPolicy(k)
        self.smooth, self.adaptive_smoothing = float(smooth), bool(adaptive_smoothing)

    def _sampler(self, rows: Any, seed: int) -> BaseSampler:
        sampler = LSTMSampler(rows, self.reweighting, self.presample, alpha=self.alpha, seed=seed)
        if not self.smooth:
            return sampler
        decorator = AdaptiveAdditiveSmoothingSampler if self.adaptive_smoothing else AdditiveSmoothingSampler
        return decorator(sampler, self.smooth)
