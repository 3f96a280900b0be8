"""Data, models and trainers of the scripts that train on several devices, each in a process of its own."""

import warnings

import keras
import numpy as np

from importance_sampling import ImportanceTraining
from importance_sampling.training import SVRG, ReshuffleTraining

ROWS, BATCH, EPOCHS = 500, 40, 2  # the last batch is smaller

TRAINERS = {
    "uniform": lambda model: model,
    "switched off": lambda model: ImportanceTraining(model, tau_th=float("inf")),
    "gate closed": lambda model: ImportanceTraining(model, tau_th=1e9),
    "reshuffled": lambda model: ReshuffleTraining(model, seed=3),
    "pools": lambda model: ImportanceTraining(model, tau_th=0, sampler="pool", seed=3),
    "exact norms": lambda model: ImportanceTraining(model, tau_th=0, score="full_gnorm", seed=3),
    "snapshots": lambda model: SVRG(model, B=200, B_over_b=2, seed=3),
}


def data():
    """Return rows whose scores are very unequal: one row in ten has a large input."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 6)).astype("float32")
    x[::10] *= 8
    return x, (x[:, 0] + x[:, 1] > x[:, 2]).astype("int32") + (x[:, 3] > 1)


def build():
    """Return a model with regularisation and a metric."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(16, "relu", kernel_regularizer="l2", name="hidden"),
            keras.layers.Dense(3, "softmax", name="classes"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def train(name, make_model, *arguments, **options):
    """Train, and return the weights, the losses, the figures of importance sampling and the library's warnings."""
    model = make_model()
    trainer = TRAINERS[name](model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = trainer.fit(*arguments, epochs=EPOCHS, verbose=0, **options).history
    weights = np.concatenate([np.asarray(keras.ops.convert_to_numpy(v.value)).ravel() for v in model.weights])
    return dict(
        weights=weights.tolist(),
        loss=history["loss"],
        importance=history.get("importance", [0.0])[-1],
        score=history.get("score", [0.0])[-1],
        warnings=[str(one.message) for one in caught if "mportance sampling" in str(one.message)],
    )
