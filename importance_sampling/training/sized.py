"""Trainers whose pools and batches change in size with what the scores promise: less work, or less variance.

Source: the classes of these names of earlier versions of the method's library. Nothing is computed here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras

from importance_sampling.conditions import gate
from importance_sampling.open_steps import OpenSteps, SizedPoolSteps
from importance_sampling.samplers import resampling as resampling_schemes
from importance_sampling.samplers.sizes import (
    check_time_options,
    constant_time_sizes,
    constant_variance_size,
    constant_variance_threshold,
    quantised,
    quantised_time_sizes,
)
from importance_sampling.sources import Prepared
from importance_sampling.training.pools import PoolTrainer
from importance_sampling.utils.validation import check_alpha


class SizedPoolTrainer(PoolTrainer):
    """What trainers whose pools and batches change in size have in common; a subclass fills in `_sizes`.

    Args:
        tau_th: float, the gate's threshold.
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
        """How many to score and how many to train on at that variance reduction: one of a few pairs."""
        raise NotImplementedError

    def _open_steps(self, keras_function: Callable, prepared: Prepared) -> OpenSteps:
        size, make = prepared.batch_size, functools.partial(self._unbiased_steps, keras_function)
        return SizedPoolSteps(lambda: self._sizes(self._state.counters["tau"], size), make, size)


class ConstantVarianceImportanceTraining(SizedPoolTrainer):
    """Keep the variance, cut the work: of a scored pool of b, train on int(b (1/vr + extra_samples)).

    vr is the moving average of tau. The gate opens at vr > 1 / (backward_time/(1 + backward_time) - extra_samples).
    Unbiased. A step costs a forward pass over b and a training step on the picked, of whom there are a multiple of
    b / 8, so that few sizes are compiled.

    It loses where tau overstates what is gained: out of a pool of one batch the picked ones are never worth more than
    the whole batch was, so an epoch learns less than a plain one, in less time.

    Args:
        model: a compiled `keras.Model`; it stays the user's own.
        backward_time: float > 0, default 2; of a backward pass, in forward passes.
        extra_samples: float, default 0.2; the share of the batch that is trained on beyond what 1/vr says.
        score, layer, forward_batch_size, alpha, resampling, seed: as for `ImportanceTraining`.
        tau_th: float or None (default); the gate's threshold, None: the one above.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> ConstantVarianceImportanceTraining(model).fit(x_train, y_train, batch_size=128)

    Source: the class of that name of earlier versions of the method's library.
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


class ConstantTimeImportanceTraining(SizedPoolTrainer):
    """Keep the time of a step, cut the variance: score B, train on a, with B + (1 + backward_time) a = t.

    t = (1 + backward_time) b is the time of a plain step. With vr the moving average of tau, a0 = max(min_a b, b / vr)
    and Bmax = t - (1 + backward_time) a0: B = int(b + (Bmax - b) ratio), a = int((t - B) / (1 + backward_time)). The
    gate opens at vr > tau_th. Unbiased. a is rounded to a multiple of b / 8, B to what is left of the time, so that few
    sizes are compiled.

    It loses where a backward pass isn't `backward_time` forward passes, and where small batches don't use the machine
    well.

    Args:
        model: a compiled `keras.Model`; it stays the user's own.
        backward_time: float > 0, default 2; of a backward pass, in forward passes.
        score, layer, forward_batch_size, alpha, resampling, seed: as for `ImportanceTraining`.
        tau_th: float, default 2; the gate's threshold.
        ratio: float in [0, 1], default 0.5; of what could be spent on scoring, how much is.
        min_a: float in (0, 1], default 0.2; the smallest share of the batch to be trained on, at ratio 1.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> ConstantTimeImportanceTraining(model).fit(x_train, y_train, batch_size=128)

    Source: the class of that name of earlier versions of the method's library.
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

    def _rows_needed(self, prepared: Prepared) -> int:
        return int((1.0 + self.backward_time) * prepared.batch_size)

    def _sizes(self, vr: float, batch_size: int) -> tuple[int, int]:
        _, picked = constant_time_sizes(vr, batch_size, self.backward_time, self.ratio, self.min_a)
        return quantised_time_sizes(picked, batch_size, self.backward_time)
