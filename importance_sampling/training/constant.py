"""Trainers that keep the gradient variance or the time of a step constant by changing the sizes of pool and batch.

Source: the classes of the same names in earlier versions of the method's library.
"""

from __future__ import annotations

from collections.abc import Callable

import keras

from importance_sampling.conditions import gate
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.trainer import Trainer
from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import PoolSampler
from importance_sampling.samplers import resampling as resampling_schemes
from importance_sampling.samplers.sizes import (
    check_time_options,
    constant_time_sizes,
    constant_variance_size,
    constant_variance_threshold,
    quantised,
    quantised_time_sizes,
)
from importance_sampling.strategies.base import Strategy
from importance_sampling.strategies.pool import PoolStrategy
from importance_sampling.strategies.resized_pool import ResizedPoolStrategy
from importance_sampling.utils.validation import check_alpha


class ResizedPoolTrainer(Trainer):
    """The base class of trainers whose pools and batches change in size. A subclass implements `_sizes`.

    Args:
        tau_th: float, the gate's threshold on tau.
        Others: as for `ImportanceTraining`.
    """

    def __init__(
        self,
        model: keras.Model,
        tau_th: float,
        score: str | Callable,
        layer: keras.Layer | str | int | None,
        forward_batch_size: int | None,
        alpha: float,
        resampling: str,
        seed: int | None,
    ):
        check_alpha(alpha)
        super().__init__(
            model, gate(tau_th), forward_batch_size=forward_batch_size, score=score, layer=layer, seed=seed
        )
        self.alpha = float(alpha)
        self.resampling = resampling_schemes.get(resampling)

    def _sizes(self, vr: float, batch_size: int) -> tuple[int, int]:
        """Return the sizes of pool and batch, one of a few pairs.

        Args:
            vr: float >= 1, the moving average of tau.
            batch_size: int, of a uniform step.
        """
        raise NotImplementedError

    def _make_strategy(self, plan: FitPlan, batch_size: int) -> Strategy:
        def make(pool_size: int, size: int) -> PoolStrategy:
            return self._pools(PoolSampler(pool_size, size, self.alpha, self.resampling, UNBIASED), batch_size)

        return ResizedPoolStrategy(lambda: self._sizes(self._state.decision.tau, batch_size), make, batch_size)


class ConstantVarianceImportanceTraining(ResizedPoolTrainer):
    """Train on fewer samples at the same gradient variance: int(b (1/vr + extra_samples)) of a scored pool of b.

    vr is the moving average of tau, and b is the batch size. The gate opens at
    vr > 1 / (backward_time/(1 + backward_time) - extra_samples). Unbiased. A step costs a forward pass over b samples
    and a training step on the drawn samples, whose number is rounded to a multiple of b / 8, so that only a few sizes
    are compiled.

    It loses if tau overstates the gain: samples drawn from a pool of one batch never contain more information than the
    whole batch, so an epoch makes less progress than an epoch of uniform steps, in less time.

    Args:
        model: a compiled `keras.Model`; `fit` trains this object.
        backward_time: float > 0, default 2; the time of a backward pass, in forward passes.
        extra_samples: float, default 0.2; samples in addition to b / vr, as a share of b.
        score, layer, forward_batch_size, alpha, resampling, seed: as for `ImportanceTraining`.
        tau_th: float or None, default None; the gate's threshold on tau. None: the threshold above.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> ConstantVarianceImportanceTraining(model).fit(x_train, y_train, batch_size=128)

    Source: the class of the same name in earlier versions of the method's library.
    """

    def __init__(
        self,
        model: keras.Model,
        backward_time: float = 2.0,
        extra_samples: float = 0.2,
        score: str | Callable = "gnorm",
        layer: keras.Layer | str | int | None = None,
        *,
        tau_th: float | None = None,
        forward_batch_size: int | None = None,
        alpha: float = 0.1,
        resampling: str = "systematic",
        seed: int | None = None,
    ):
        threshold = constant_variance_threshold(backward_time, extra_samples)
        if tau_th is not None:
            threshold = tau_th
        super().__init__(model, threshold, score, layer, forward_batch_size, alpha, resampling, seed)
        self.extra_samples = float(extra_samples)

    def _sizes(self, vr: float, batch_size: int) -> tuple[int, int]:
        return batch_size, quantised(constant_variance_size(vr, batch_size, self.extra_samples), batch_size)


class ConstantTimeImportanceTraining(ResizedPoolTrainer):
    """Reduce the gradient variance at constant time per step: score B samples and train on a of them.

    The sizes satisfy B + (1 + backward_time) a = t, where t = (1 + backward_time) b is the time of a uniform step with
    the batch size b. With vr the moving average of tau, a0 = max(min_a b, b / vr) and
    Bmax = t - (1 + backward_time) a0: B = int(b + (Bmax - b) ratio) and a = int((t - B) / (1 + backward_time)). a is
    rounded to a multiple of b / 8, and B uses the remaining time, so that only a few sizes are compiled. The gate opens
    at vr > tau_th. Unbiased.

    It loses if a backward pass doesn't take `backward_time` forward passes, or if small batches use the machine
    inefficiently.

    Args:
        model: a compiled `keras.Model`; `fit` trains this object.
        backward_time: float > 0, default 2; the time of a backward pass, in forward passes.
        score, layer, forward_batch_size, alpha, resampling, seed: as for `ImportanceTraining`.
        tau_th: float, default 2; the gate's threshold on tau.
        ratio: float in [0, 1], default 0.5; the share of the available time that is used for scoring.
        min_a: float in (0, 1], default 0.2; the smallest training batch at ratio 1, as a share of b.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> ConstantTimeImportanceTraining(model).fit(x_train, y_train, batch_size=128)

    Source: the class of the same name in earlier versions of the method's library.
    """

    def __init__(
        self,
        model: keras.Model,
        backward_time: float = 2.0,
        score: str | Callable = "gnorm",
        layer: keras.Layer | str | int | None = None,
        *,
        tau_th: float = 2.0,
        ratio: float = 0.5,
        min_a: float = 0.2,
        forward_batch_size: int | None = None,
        alpha: float = 0.1,
        resampling: str = "systematic",
        seed: int | None = None,
    ):
        check_time_options(backward_time, ratio, min_a)
        super().__init__(model, tau_th, score, layer, forward_batch_size, alpha, resampling, seed)
        self.backward_time, self.ratio, self.min_a = float(backward_time), float(ratio), float(min_a)

    def _rows_needed(self, plan: FitPlan, batch_size: int) -> int:
        return int((1.0 + self.backward_time) * batch_size)

    def _sizes(self, vr: float, batch_size: int) -> tuple[int, int]:
        _, drawn = constant_time_sizes(vr, batch_size, self.backward_time, self.ratio, self.min_a)
        return quantised_time_sizes(drawn, batch_size, self.backward_time)
