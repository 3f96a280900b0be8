"""Trainers along variance-reduced gradients: uniform batches, the noise taken out by snapshots of the weights.

Source: [JZ13] Johnson & Zhang, Accelerating Stochastic Gradient Descent using Predictive Variance Reduction, 2013;
[LJ17] Lei & Jordan, Less than a Single Pass: Stochastically Controlled Stochastic Gradient, 2017; [AZ17] Allen-Zhu,
Katyusha: The First Direct Acceleration of Stochastic Gradient Methods, 2017. Nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Callable

import keras

from importance_sampling.conditions import gate
from importance_sampling.model_wrappers import KatyushaWrapper, SVRGWrapper
from importance_sampling.model_wrappers.variance_reduced import check_shares
from importance_sampling.open_steps import OpenSteps, VarianceReducedSteps
from importance_sampling.sources import Prepared
from importance_sampling.trainer import Trainer
from importance_sampling.utils.validation import check_positive, is_real


class SVRG(Trainer):
    """Train along grad_i(w) - grad_i(w') + m, w' a snapshot of the weights every `B_over_b` steps, m its mean gradient.

    The model's own optimizer follows it, on uniform batches, from the first step on. Unbiased with B=0, which is SVRG;
    else it is SCSG, m being over part of the samples, and unbiased over the draw of that part.

    A step costs two plain ones, and a snapshot as many as it holds batches: by the defaults 2 + 10/128 plain steps.
    Memory: two more copies of the weights. It gains where plain SGD at a constant learning rate stalls in its own noise
    near the optimum, as on convex losses. It loses elsewhere: early on; with deep networks, dropout or batch
    normalisation, where the gradient at a snapshot soon has little to do with the one at hand; and where B is small and
    B_over_b large, for then the steps between two snapshots all chase the samples of the first. On MNIST's perceptron
    plain Adam ends at a tenth of its training loss in the same time, and of Katyusha's at less than that.

    Args:
        model: a compiled `keras.Model` whose loss is a mean over the batch; it stays the user's own.
        B: float >= 0, default 10; samples of the first snapshot, in batches. 0: the whole set.
        B_rate: float >= 1, default 1; by what B grows from one snapshot to the next, up to the whole set.
        B_over_b: int >= 1, default 128; steps between snapshots.
        seed: int or None (default); of the library's own random stream. None follows `keras.utils.set_random_seed`.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> model.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy", metrics=["accuracy"])
        >>> SVRG(model, B=0, B_over_b=256).fit(x_train, y_train, batch_size=32, epochs=10)

    Source: [JZ13], [LJ17].
    """

    needs_rows = True

    def __init__(
        self, model: keras.Model, B: float = 10.0, B_rate: float = 1.0, B_over_b: int = 128, *, seed: int | None = None
    ):
        for name, value, least in (("B", B, 0), ("B_rate", B_rate, 1)):
            if not is_real(value) or not least <= value < float("inf"):
                raise ValueError(f"`{name}` must be a finite number of at least {least}. Received: {name}={value!r}")
        check_positive(B_over_b=B_over_b)
        super().__init__(model, gate(0.0), seed=seed)
        self.B, self.B_rate, self.B_over_b = float(B), float(B_rate), int(B_over_b)

    def _rows_needed(self, prepared: Prepared) -> int:
        return 1

    def _wrapper(self) -> SVRGWrapper:
        return SVRGWrapper(self.model)

    def _open_steps(self, keras_function: Callable, prepared: Prepared) -> OpenSteps:
        size = prepared.batch_size
        samples = max(round(self.B * size), 1) if self.B else 0
        return VarianceReducedSteps(
            self.model, keras_function, self._wrapper, samples, self.B_over_b, self.B_rate, size, self._state
        )


class Katyusha(SVRG):
    """Train as `SVRG` does, with the momentum of Katyusha, of which a share points back to the snapshot.

    x = t1 z + t2 w' + (1 - t1 - t2) y; v = grad_i(x) - grad_i(w') + m; z <- z - lr v / t1; y <- x - lr v. The model's
    weights are y, lr is its optimizer's; nothing else of the optimizer is used, which a warning says.

    Costs, bias and where it loses: as `SVRG`; memory: a third copy of the weights. It is made for convex losses that
    are badly conditioned.

    Args:
        model, B, B_rate, B_over_b, seed: as for `SVRG`.
        t1: float in (0, 1], default 0.5; the share of z.
        t2: float in [0, 1 - t1], default 0.5; the share of the snapshot.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> model.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy", metrics=["accuracy"])
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
