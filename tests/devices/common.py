"""Data, models and trainers of the scripts that train on several devices, each in a process of its own."""

import warnings

import keras
import numpy as np

from importance_sampling import ImportanceTraining
from importance_sampling.samplers.pool import Picked
from importance_sampling.training import SVRG, ReshuffleTraining
from importance_sampling.utils.numerics import probabilities

ROWS, BATCH, EPOCHS = 500, 40, 2  # the last batch is smaller

TRAINERS = {
    "uniform": lambda model: model,
    "switched off": lambda model: ImportanceTraining(model, tau_th=float("inf")),
    "gate closed": lambda model: ImportanceTraining(model, tau_th=1e9),
    "reshuffled": lambda model: ReshuffleTraining(model, seed=3),
    "pools": lambda model: ImportanceTraining(model, tau_th=0, sampler="pool", seed=3),
    "exact norms": lambda model: ImportanceTraining(model, tau_th=0, score="full_gnorm", seed=3),
    "default": lambda model: ImportanceTraining(model, seed=3),
    "snapshots": lambda model: SVRG(model, B=200, B_over_b=2, seed=3),
}


def data():
    """Return rows whose scores are very unequal: one row in ten has a large input."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 6)).astype("float32")
    x[::10] *= 8
    return x, (x[:, 0] + x[:, 1] > x[:, 2]).astype("int32") + (x[:, 3] > 1)


def mostly_easy():
    """Return rows that a small model soon fits, but for one in ten: the gate of the default trainer opens."""
    x = 4 * np.random.default_rng(0).normal(size=(ROWS, 6)).astype("float32")
    x[::10, 0] /= 80
    return x, (x[:, 0] > 0).astype("int32")


def default_arguments(rows=ROWS):
    """Return the arguments of `fit` with which the default trainer takes importance steps after a few epochs."""
    x, y = mostly_easy()
    return dict(x=x[:rows], y=y[:rows], batch_size=BATCH, epochs=6, validation_data=(x, y))


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


class Batches(keras.utils.PyDataset):
    """The batches of arrays, in their order."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return -(-len(self.x) // BATCH)

    def __getitem__(self, index):
        rows = slice(index * BATCH, (index + 1) * BATCH)
        return self.x[rows], self.y[rows]


def train(name, make_model, *arguments, **options):
    """Train, and return the weights, the losses, the figures of importance sampling and the library's warnings."""
    model = make_model()
    trainer = TRAINERS[name](model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = trainer.fit(*arguments, **{"epochs": EPOCHS, "verbose": 0} | options).history
    weights = np.concatenate([np.asarray(keras.ops.convert_to_numpy(v.value)).ravel() for v in model.weights])
    return dict(
        weights=weights.tolist(),
        loss=history["loss"],
        importance=history.get("importance", [0.0])[-1],
        importance_by_epoch=history.get("importance", []),
        score=history.get("score", [0.0])[-1],
        warnings=[str(one.message) for one in caught if "mportance sampling" in str(one.message)],
    )


def pick_by_shard(sampler, scores, uniforms, average=None):
    """Draw a batch from a pool with a mistake: each of two replicas draws from its half, with weights for the pool.

    A stand-in for `PoolSampler.pick`.
    """
    p = probabilities(scores, sampler.alpha)
    half, rows = sampler.pool_size // 2, sampler.batch_size // 2
    parts = []
    for start in (0, half):
        own = p[start : start + half]
        parts.append(start + sampler.resampling.positions(own / own.sum(), uniforms[:1], rows))
    positions = np.concatenate(parts)
    weights = 1.0 / (sampler.pool_size * p[positions])
    return Picked(positions, weights, scores[positions], weights)
