"""The facade: one class per training scheme, each saying what it composes.

    fit -> source -> gate -> scores -> sampler -> weights -> step

`importance.py` has the main one, `pools.py` and `sized.py` have those that score candidates before they pick,
`tables.py` those that know their scores beforehand, `own.py` the one for samplers that users bring,
`variance_reduced.py` those that draw uniformly and take the noise out of the gradient. `fit` itself, the same for all,
is in `trainer.py`.
"""

from importance_sampling.training.importance import ImportanceTraining
from importance_sampling.training.own import SamplerTraining
from importance_sampling.training.pools import BiasedImportanceTraining
from importance_sampling.training.sized import ConstantTimeImportanceTraining, ConstantVarianceImportanceTraining
from importance_sampling.training.tables import (
    ApproximateImportanceTraining,
    HistoryImportanceTraining,
    OnlineBatchSelection,
    ReshuffleTraining,
)
from importance_sampling.training.variance_reduced import SVRG, Katyusha

__all__ = [
    "SVRG",
    "ApproximateImportanceTraining",
    "BiasedImportanceTraining",
    "ConstantTimeImportanceTraining",
    "ConstantVarianceImportanceTraining",
    "HistoryImportanceTraining",
    "ImportanceTraining",
    "Katyusha",
    "OnlineBatchSelection",
    "ReshuffleTraining",
    "SamplerTraining",
]
