"""`RobustImportanceTraining`: resample epochs by the worst case of outdated scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import BaseSampler, RobustSampler
from importance_sampling.training.indexed import IndexedTrainer
from importance_sampling.utils.validation import check_non_negative


class RobustImportanceTraining(IndexedTrainer):
    """Resample every epoch by scores of earlier steps, as far as they can be trusted: the published RAIS, for epochs.

    P_i = (1 - alpha) e_i / sum(e) + alpha / N with e_i = sqrt(c_i + width d_i), and the weights are 1 / (N P_i), at
    most 1 / alpha. c_i is the expected square of the sample's next score, and d_i is the deviation from it. Both are
    linear in the square of the last score and in the mean square of all scores, with coefficients that depend on the
    age of the last score and are learned from the scores that training measures. These probabilities minimise the
    largest gradient variance that is compatible with c and d. Unbiased given its probabilities. A step costs as much as
    a uniform step.

    `ReshuffleTraining` does the same with the mean square of the next score, estimated without the assumption that it
    is linear; the documentation compares the two. [JG18] also multiplies the learning rate by the estimated gain. This
    trainer leaves the learning rate as you set it.

    There is no gain if each sample is seen only once: the first epoch is a uniform shuffled pass. It loses if high
    scores are due to wrong labels. There is no gate.

    Args:
        model: a compiled `keras.Model`; `fit` trains this object.
        width: float >= 0, default 1; the size of the uncertainty set. At 1, it contains the deviations that were
            observed; larger values draw more uniformly where old scores say little; at 0, only c counts.
        score, layer, alpha, seed: as for `ImportanceTraining`.

    Raises:
        ValueError: an argument is out of its range; in `fit`, data without row indices.

    Example:
        >>> RobustImportanceTraining(model).fit(x_train, y_train, batch_size=128, epochs=10)

    Source: [JG18] Johnson & Guestrin, Training Deep Models Faster with Robust, Approximate Importance Sampling,
    NeurIPS 2018; see `samplers.RobustSampler` for what differs.
    """

    def __init__(
        self,
        model: keras.Model,
        width: float = 1.0,
        *,
        score: str | Callable = "gnorm",
        layer: keras.Layer | str | int | None = None,
        alpha: float = 0.1,
        seed: int | None = None,
    ):
        check_non_negative(width=width)
        super().__init__(model, score=score, layer=layer, tau_th=None, seed=seed, alpha=alpha)
        self.width = float(width)

    def _make_sampler(self, rows: Any) -> BaseSampler:
        return RobustSampler(rows, UNBIASED, self.width, alpha=self.alpha, seed=self._state.seed)
