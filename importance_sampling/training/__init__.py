"""The trainers: one class per training method, with Keras's `fit`.

`importance.py` contains `ImportanceTraining`. The other trainers are grouped by how they obtain scores: `biased.py` and
`constant.py` score a pool of candidates for every step, `selective.py` does so too and selects hard samples without
weights, `indexed.py` stores or predicts scores by row index, `skipping.py` leaves well-learned samples out of an epoch,
`quota.py` draws a share of every batch from each class, `robust.py` resamples epochs by the worst case of old scores,
`reducible_loss.py` leaves out samples with wrong labels, and `custom_sampler.py` uses the user's own sampler.
`variance_reduced.py` draws uniformly and reduces the gradient variance by snapshots of the weights. The `fit` that all
of them share is in `importance_sampling.fit.trainer`.
"""

from importance_sampling.training.biased import BiasedImportanceTraining
from importance_sampling.training.constant import ConstantTimeImportanceTraining, ConstantVarianceImportanceTraining
from importance_sampling.training.custom_sampler import SamplerTraining
from importance_sampling.training.importance import ImportanceTraining
from importance_sampling.training.indexed import (
    ApproximateImportanceTraining,
    HistoryImportanceTraining,
    OnlineBatchSelection,
    ReshuffleTraining,
)
from importance_sampling.training.quota import QuotaTraining
from importance_sampling.training.reducible_loss import ReducibleLossTraining
from importance_sampling.training.robust import RobustImportanceTraining
from importance_sampling.training.selective import HardExampleMining, SelectiveBackprop
from importance_sampling.training.skipping import SkippingTraining
from importance_sampling.training.variance_reduced import SVRG, Katyusha

__all__ = [
    "SVRG",
    "ApproximateImportanceTraining",
    "BiasedImportanceTraining",
    "ConstantTimeImportanceTraining",
    "ConstantVarianceImportanceTraining",
    "HardExampleMining",
    "HistoryImportanceTraining",
    "ImportanceTraining",
    "Katyusha",
    "OnlineBatchSelection",
    "QuotaTraining",
    "ReducibleLossTraining",
    "ReshuffleTraining",
    "RobustImportanceTraining",
    "SamplerTraining",
    "SelectiveBackprop",
    "SkippingTraining",
]
