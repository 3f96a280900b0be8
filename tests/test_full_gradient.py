"""The mean gradient of importance steps is the gradient of all data, for models and weights that could bias it.

The optimizer adds up the gradients and leaves the weights as they are. The data are skewed, so that a bias doesn't
cancel.
"""

import functools
import itertools
import math

import keras
import numpy as np
import pytest
from frameworks import host
from keras import layers, ops

from importance_sampling import ImportanceTraining
from importance_sampling.core import batch_statistics
from importance_sampling.layers import BatchRenormalization, StatsBatchNorm

ROWS, BATCH, UNITS, RATE = 1536, 512, 4, 0.4
rng = np.random.default_rng(5)
X = rng.lognormal(0.0, 0.7, (ROWS, 3)).astype("float32") - 1.0
Y = (X[:, 0] + X[:, 1] * X[:, 2] + 0.5 * rng.normal(size=ROWS) > 1.5).astype("int64")
SAMPLE_WEIGHTS = rng.exponential(size=ROWS).astype("float32")
WAYS = {"reshuffle": dict(sampler="reshuffle"), "pools": dict(sampler="pool")}


class AddsUp(keras.optimizers.Optimizer):
    """Adds up the gradients in its variables, and changes no weights."""

    def __init__(self):
        super().__init__(learning_rate=0.0)

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self.sums = [self.add_variable_from_reference(variable, "sum") for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        total = self.sums[self._get_variable_index(variable)]
        self.assign(total, ops.add(total, ops.cast(gradient, total.dtype)))

    def total(self):
        return np.concatenate([host(one).ravel().astype("float64") for one in self.sums])


class EpochTotals(keras.callbacks.Callback):
    """Notes the sum of all gradients at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.totals = []

    def on_epoch_begin(self, epoch, logs=None):
        self.totals[epoch:] = [self.model.optimizer.total()]

    def on_epoch_end(self, epoch, logs=None):
        self.totals.append(self.model.optimizer.total())


def network(*between):
    """A classifier with layers between its hidden layer and its outputs."""
    keras.utils.set_random_seed(3)
    hidden = layers.Dense(UNITS, use_bias=False)  # whose gradient would be 0 ahead of batch normalisation
    return compiled([keras.Input((3,)), hidden, *between, layers.Activation("tanh"), layers.Dense(2, "softmax")])


def compiled(parts):
    model = keras.Sequential(parts)
    optimizer = AddsUp()
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def frozen():
    return layers.BatchNormalization(
        trainable=False, moving_mean_initializer="ones", moving_variance_initializer=keras.initializers.Constant(0.3)
    )


MODELS = {
    "class weights": (lambda: (), dict(class_weight={0: 0.5, 1: 3.0})),
    "sample weights": (lambda: (), dict(sample_weight=SAMPLE_WEIGHTS)),
    "batch normalisation": (lambda: (layers.BatchNormalization(),), {}),
    "frozen batch normalisation": (lambda: (frozen(),), {}),
    # The bounds of its corrections and its moving statistics are those of the first step for good.
    "batch renormalisation": (lambda: (BatchRenormalization(1.0, rmax_duration=0, dmax_duration=0),), {}),
    "moving statistics": (lambda: (StatsBatchNorm(moving_mean_initializer="ones"),), {}),
    "dropout": (lambda: (layers.Dropout(RATE),), {}),
}


class Masked(layers.Layer):
    """What dropout does with the units that a mask leaves out."""

    def build(self, shape):
        self.mask = self.add_weight(shape=(UNITS,), trainable=False, name="mask")

    def call(self, x):
        return x * self.mask / (1.0 - RATE)


@functools.cache
def of_all_data(name):
    """Return the gradient of the loss of all data, as Keras's own step computes it; with dropout, its expectation."""
    between, weights = MODELS[name]
    if name != "dropout":
        model = network(*between())
        model.train_on_batch(X, Y, **weights)
        return model.optimizer.total()
    model = network(masked := Masked())
    totals, chances = [np.zeros(())], []
    for mask in itertools.product([0, 1], repeat=UNITS):
        masked.mask.assign(np.array(mask, "float32"))
        model.train_on_batch(X, Y)
        totals.append(model.optimizer.total())
        chances.append((1 - RATE) ** sum(mask) * RATE ** (UNITS - sum(mask)))
    assert math.isclose(sum(chances), 1.0)
    gradients = [after - before for before, after in itertools.pairwise(totals)]
    return sum(chance * gradient for chance, gradient in zip(chances, gradients, strict=True))


@functools.cache
def of_importance_steps(name, way):
    """Return the mean gradient of each epoch of importance steps, float64 `(epochs, weights)`."""
    between, weights = MODELS[name]
    epochs = 120 if name == "dropout" else 30  # whose masks are most of the noise
    totals, spreads = EpochTotals(), []
    trainer = ImportanceTraining(network(*between()), tau_th=0.0, seed=1, **WAYS[way])
    trainer.fit(
        X,
        Y,
        batch_size=BATCH,
        epochs=epochs + 1,  # the first only measures the scores of a reshuffle
        verbose=0,
        callbacks=[totals],
        on_sample=lambda _, indices, weights, scores: spreads.append(weights.std()),
        **weights,
    )
    steps = ROWS // BATCH
    assert np.mean(spreads[steps:]) > 0.15  # that of weights of uniform steps is 0
    return np.diff(np.array(totals.totals), axis=0)[1:] / steps


def deviation(gradients, expected):
    """Return the relative deviation of the mean gradient in the direction of another one, and its standard error."""
    along = gradients @ expected / (expected @ expected)
    return along.mean() - 1.0, along.std(ddof=1) / np.sqrt(len(along))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_the_mean_gradient_of_importance_steps_is_that_of_all_data_and_a_bias_of_two_per_cent_is_found(name, way):
    gradients, expected = of_importance_steps(name, way), of_all_data(name)
    error = gradients.std(axis=0, ddof=1) / np.sqrt(len(gradients))
    assert (np.abs(gradients.mean(axis=0) - expected) < 5 * error).all()
    difference, error = deviation(gradients, expected)
    assert abs(difference) < 5 * error
    for planted in (0.98, 1.02):
        difference, error = deviation(planted * gradients, expected)
        assert abs(difference) > 5 * error, (planted, difference, error)


def test_statistics_of_the_samples_as_drawn_are_a_bias_that_is_found(monkeypatch):
    monkeypatch.setattr(batch_statistics, "weighted_moments", lambda inputs, weights, axes: ops.moments(inputs, axes))
    difference, error = deviation(
        of_importance_steps.__wrapped__("batch normalisation", "reshuffle"), of_all_data("batch normalisation")
    )
    assert abs(difference) > 5 * error
