"""Trainers with variance-reduced gradients: uniform batches, with snapshots of the weights as control variates.

Source: [JZ13] Johnson & Zhang, Accelerating Stochastic Gradient Descent using Predictive Variance Reduction, 2013;
[LJ17] Lei & Jordan, Less than a Single Pass: Stochastically Controlled Stochastic Gradient, 2017; [AZ17] Allen-Zhu,
Katyusha: The First Direct Acceleration of Stochastic Gradient Methods, 2017.
"""

from __future__ import annotations

import keras

from importance_sampling.conditions import gate
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.trainer import Trainer
from importance_sampling.model_wrappers import KatyushaWrapper, SVRGWrapper
from importance_sampling.model_wrappers.katyusha import check_shares
from importance_sampling.strategies.base import Strategy
from importance_sampling.strategies.snapshot import SnapshotStrategy
from importance_sampling.utils.validation import check_positive, is_real


class SVRG(Trainer):
    """Train with the gradient grad_i(w) - grad_i(w') + m: w' is a snapshot of the weights, m the mean gradient at w'.

    A snapshot is taken every `B_over_b` steps. The model's own optimizer applies the gradient, on uniform batches, from
    the first step on. With B=0, m is the gradient of the whole training set: this is SVRG, which is unbiased.
    Otherwise, m is the gradient of a random part of the samples: this is SCSG, which is unbiased over the choice of
    that part.

    A step costs two uniform steps, and a snapshot costs one uniform step per batch that it contains: with the defaults,
    a step costs 2 + 10/128 uniform steps in total. Memory: two more copies of the weights. There is a gain if SGD at a
    constant learning rate is limited by its own noise near the optimum, as on convex losses. It loses otherwise: early
    in training; with deep networks, dropout or batch normalisation, where the gradient at the snapshot soon differs
    from the current gradient; and with a small B and a large B_over_b, because all steps between two snapshots then fit
    the samples of the first one. On a perceptron for MNIST, uniform training with Adam reached a tenth of the training
    loss of SVRG in the same time, and less than a tenth of that of Katyusha.

    Args:
        model: a compiled `keras.Model` whose loss is a mean over the batch; `fit` trains this object.
        B: float >= 0, default 10; the number of samples of the first snapshot, in batches. 0: the whole training set.
        B_rate: float >= 1, default 1; the factor by which B grows from one snapshot to the next, up to the whole
            training set.
        B_over_b: int >= 1, default 128; the number of steps between snapshots.
        seed: int or None, default None; seed of the trainer's own random stream. None follows
            `keras.utils.set_random_seed`.

    Raises:
        ValueError: an argument is out of its range; in `fit`, data without row indices.

    Example:
        >>> model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
        >>> SVRG(model, B=0, B_over_b=256).fit(x_train, y_train, batch_size=32, epochs=10)

    Source: [JZ13], [LJ17].
    """

    needs_rows = True

    def __init__(
        self, model: keras.Model, B: float = 10.0, B_rate: float = 1.0, B_over_b: int = 128, *, seed: int | None = None
    ):
        for name, value, minimum in (("B", B, 0), ("B_rate", B_rate, 1)):
            if not is_real(value) or not minimum <= value < float("inf"):
                raise ValueError(f"`{name}` must be a finite number of at least {minimum}. Received: {name}={value!r}")
        check_positive(B_over_b=B_over_b)
        super().__init__(model, gate(0.0), seed=seed)
        self.B, self.B_rate, self.B_over_b = float(B), float(B_rate), int(B_over_b)

    def _rows_needed(self, plan: FitPlan, batch_size: int) -> int:
        return 1

    def _wrapper(self) -> SVRGWrapper:
        return SVRGWrapper(self.model)

    def _make_strategy(self, plan: FitPlan, batch_size: int) -> Strategy:
        samples = max(round(self.B * batch_size), 1) if self.B else 0
        return SnapshotStrategy(self.model, self._wrapper, samples, self.B_over_b, self.B_rate, batch_size, self._state)


class Katyusha(SVRG):
    """Train as `SVRG`, with Katyusha momentum, part of which pulls the weights towards the snapshot.

    x = t1 z + t2 w' + (1 - t1 - t2) y; v = grad_i(x) - grad_i(w') + m; z <- z - lr v / t1; y <- x - lr v. y are the
    model's weights. lr is the learning rate of the model's optimizer; nothing else of the optimizer is used. A warning
    says so if the optimizer isn't SGD, or has other options, such as momentum or weight decay.

    The cost, the bias and the cases in which it loses are those of `SVRG`. Memory: a third copy of the weights. The
    method is designed for ill-conditioned convex losses.

    Args:
        model, B, B_rate, B_over_b, seed: as for `SVRG`.
        t1: float in (0, 1], default 0.5; the share of z.
        t2: float in [0, 1 - t1], default 0.5; the share of the snapshot.

    Raises:
        ValueError: an argument is out of its range; in `fit`, data without row indices.

    Example:
        >>> model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
        >>> Katyusha(model, B=0, t1=0.4).fit(x_train, y_train, batch_size=32, epochs=10)

    Source: [AZ17], Algorithm 1.
    """

    def __init__(
        self,
        model: keras.Model,
        B: float = 10.0,
        B_rate: float = 1.0,
        B_over_b: int = 128,
        t1: float = 0.5,
        t2: float = 0.5,
        *,
        seed: int | None = None,
    ):
        check_shares(t1, t2)
        super().__init__(model, B, B_rate, B_over_b, seed=seed)
        self.t1, self.t2 = float(t1), float(t2)

    def _wrapper(self) -> SVRGWrapper:
        return KatyushaWrapper(self.model, self.t1, self.t2)
