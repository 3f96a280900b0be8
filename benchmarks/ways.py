"""The ways to train that the benchmark compares, by name: each from a model and a seed to whatever has Keras's `fit`.

A trainer with an attribute `forward_equivalents` tells what it has cost so far, in forward passes of a batch; without
one it is taken to cost 3 a step. A new trainer is a line here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from fast_uniform import FastUniform

from importance_sampling import ImportanceTraining, training

YARDSTICKS = ("plain", "fast-uniform")

WAYS: dict[str, Callable[[keras.Model, int], Any]] = {
    "plain": lambda model, seed: model,
    "fast-uniform": FastUniform,
    "default": lambda model, seed: ImportanceTraining(model, seed=seed),
    "presample-5": lambda model, seed: ImportanceTraining(model, presample=5.0, seed=seed),
    "published": lambda model, seed: ImportanceTraining(
        model, presample=3.0, tau_th=2.0, resampling="multinomial", seed=seed
    ),
    "reshuffle": lambda model, seed: training.ReshuffleTraining(model, seed=seed),
    "history": lambda model, seed: training.HistoryImportanceTraining(model, seed=seed),
    "online-batch-selection": lambda model, seed: training.OnlineBatchSelection(model, seed=seed),
    "approximate": lambda model, seed: training.ApproximateImportanceTraining(model, seed=seed),
    "biased": lambda model, seed: training.BiasedImportanceTraining(model, seed=seed),
    "constant-variance": lambda model, seed: training.ConstantVarianceImportanceTraining(model, seed=seed),
    "constant-time": lambda model, seed: training.ConstantTimeImportanceTraining(model, seed=seed),
    "svrg": lambda model, seed: training.SVRG(model, seed=seed),
    "katyusha": lambda model, seed: training.Katyusha(model, seed=seed),
}
