"""`QuotaTraining`: a fixed share of every batch for each class or group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import BaseSampler, QuotaSampler
from importance_sampling.samplers.quota import check_groups, check_shares
from importance_sampling.training.indexed import IndexedTrainer
from importance_sampling.utils.validation import check_flag


class QuotaTraining(IndexedTrainer):
    """Draw a fixed share of every batch from each class or group, and hard samples more often. Biased if `balanced`.

    P_i = q_g ((1 - alpha) s_i / S_g + alpha / N_g), within a group, where q_g is the share of the group g in every
    batch, s_i the last score of the sample, S_g the sum of the scores of the group, and N_g its number of samples. A
    batch of b samples contains q_g b samples of group g, rounded up or down. By default, the weights 1 / (N P_i)
    preserve the objective, the mean loss of all samples: a rare class is in every batch, with small weights. With
    `balanced=True`, the objective is the mean of the groups' mean losses, weighted by their shares. Your own sample
    weights and class weights multiply the loss as in `model.fit`.

    Unbiased unless `balanced`. A step costs as much as a uniform step. It loses if the shares are far from what the
    objective needs: with weights, most samples of a batch then count little. There is no gate.

    Args:
        model: a compiled `keras.Model`; `fit` trains this object.
        shares: mapping from a group to its share of every batch, in (0, 1); the other groups divide the rest in
            proportion to their sizes. None (default): equal shares.
        groups: int `(rows,)` or None, default None; the group of every sample. None: the class, from integer or one-hot
            targets.
        balanced: bool, default False; True minimises the mean over the groups instead of the mean over the samples.
        score, layer, seed: as for `ImportanceTraining`, default "gnorm".
        alpha: float in (0, 1], default 0.5; the uniform share within a group. 1: no scores are used.

    Raises:
        ValueError: an argument is out of its range; in `fit`, the data have no row indices, or the targets aren't
            classes and `groups` is None.

    Example:
        >>> QuotaTraining(model, {1: 0.25}).fit(x_train, y_train, batch_size=128, epochs=10)

    Source: stratified sampling; see `samplers.QuotaSampler`.
    """

    def __init__(
        self,
        model: keras.Model,
        shares: Mapping[int, float] | None = None,
        groups: Any = None,
        balanced: bool = False,
        *,
        score: str | Callable = "gnorm",
        layer: keras.Layer | str | int | None = None,
        alpha: float = 0.5,
        seed: int | None = None,
    ):
        check_shares(shares)
        check_flag(balanced=balanced)
        super().__init__(model, score=score, layer=layer, tau_th=None, seed=seed, alpha=alpha)
        self.shares = None if shares is None else dict(shares)
        self.groups = None if groups is None else check_groups(groups)
        self.balanced = bool(balanced)

    def _make_sampler(self, rows: Any) -> BaseSampler:
        return QuotaSampler(
            rows, UNBIASED, self.shares, self.groups, self.balanced, alpha=self.alpha, seed=self._state.seed
        )
