"""Every trainer honours the user's sample weights and class weights: they multiply the loss, and nothing else."""

import keras
import numpy as np
import pytest
from devices.common import build as distributed_build
from devices.common import default_arguments, mostly_easy
from keras import layers
from test_trainers import BATCH, NO_STREAMS, ROWS, TRAINERS, X, Y

from importance_sampling import training
from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import CacheSampler

RATE = 0.25
CLASS_WEIGHT = {0: 0.0, 1: 1.0, 2: 2.5}
WEIGHTS = np.array([CLASS_WEIGHT[label] for label in Y], "float32")
WITHOUT_INFLUENCE = WEIGHTS == 0

# Trainers in whose draws the classes of all samples count, also of those with a weight of 0.
BY_CLASS = {
    "approximate": "the network that predicts the scores knows the class of a sample",
    "quota": "the samples are drawn from groups by class",
}
# Trainers with arguments in units of the loss, and how to double these with the weights.
IN_UNITS_OF_THE_LOSS = {
    "reducible loss": lambda model, **options: training.ReducibleLossTraining(
        model, irreducible_loss=2 * np.linspace(0, 1, ROWS), **options
    ),
    "own": lambda model, **options: training.SamplerTraining(
        model, lambda dataset, model, seed: CacheSampler(dataset, UNBIASED, smooth=0.4, seed=seed), **options
    ),
}
# Trainers whose draws change if all weights are doubled.
NOT_PROPORTIONAL = {"approximate": "the network learns to predict scores, and learns others from scores twice as high"}

MADE = TRAINERS | {
    "reducible loss of copies": lambda model, **options: training.ReducibleLossTraining(
        model, copy_epochs=2, **options
    ),
}
ON_STREAMS = [name for name in TRAINERS if name not in NO_STREAMS]


def build(rate):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy")
    return model


def trained(make, *data, rate=RATE, **weights):
    """Return the weights of a model after three epochs, and the loss of each."""
    model = build(rate)
    trainer = make(model, seed=1)
    history = trainer.fit(*data, batch_size=BATCH, epochs=3, verbose=0, **weights).history
    assert trainer.importance_steps > 0
    return np.concatenate([np.ravel(weight) for weight in model.get_weights()]), np.array(history["loss"])


@pytest.fixture(scope="module", params=MADE)
def weighted(request):
    """The name of a trainer, and what it makes of the weights as sample weights."""
    return request.param, trained(MADE[request.param], X, Y, sample_weight=WEIGHTS)


def assert_trained_alike(one, other, factor=1.0):
    np.testing.assert_allclose(other[0], one[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(other[1], factor * one[1], rtol=1e-5)


@pytest.mark.fast
def test_the_trainers_of_this_module_are_all_that_are_public():
    made = {type(make(build(RATE))).__name__ for make in MADE.values()}
    assert made == set(training.__all__)
    assert BY_CLASS.keys() | NOT_PROPORTIONAL.keys() | IN_UNITS_OF_THE_LOSS.keys() <= TRAINERS.keys()


def test_samples_with_a_weight_of_0_have_no_influence(weighted):
    name, expected = weighted
    rng = np.random.default_rng(1)
    x, y = X.copy(), Y.copy()
    x[WITHOUT_INFLUENCE] = rng.normal(size=(WITHOUT_INFLUENCE.sum(), 4))
    if name not in BY_CLASS:
        y[WITHOUT_INFLUENCE] = rng.integers(0, 3, WITHOUT_INFLUENCE.sum())
    assert_trained_alike(expected, trained(MADE[name], x, y, sample_weight=WEIGHTS))


def test_the_class_of_a_sample_with_a_weight_of_0_changes_the_draws_of_the_trainers_that_draw_by_class():
    y = np.where(WITHOUT_INFLUENCE, 1, Y)
    for name in BY_CLASS:
        one, other = (trained(MADE[name], X, labels, sample_weight=WEIGHTS)[0] for labels in (Y, y))
        assert np.abs(one - other).max() > 0.01


def test_class_weights_are_sample_weights_by_class(weighted):
    name, expected = weighted
    assert_trained_alike(expected, trained(MADE[name], X, Y, class_weight=CLASS_WEIGHT))


def test_weights_of_twice_the_size_are_a_loss_of_twice_the_size(weighted):
    name, expected = weighted
    doubled = trained((MADE | IN_UNITS_OF_THE_LOSS)[name], X, Y, rate=RATE / 2, sample_weight=2 * WEIGHTS)
    if name in NOT_PROPORTIONAL:
        assert np.abs(doubled[0] - expected[0]).max() > 0.01
    else:
        assert_trained_alike(expected, doubled, factor=2.0)


class Batches(keras.utils.PyDataset):
    """Batches of arrays, one after another."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return ROWS // BATCH

    def __getitem__(self, index):
        return tuple(array[index * BATCH : (index + 1) * BATCH] for array in self.arrays)


@pytest.mark.parametrize("name", ON_STREAMS)
def test_weights_of_streams_are_honoured_as_those_of_arrays(name):
    x, y = X.copy(), Y.copy()
    x[WITHOUT_INFLUENCE], y[WITHOUT_INFLUENCE] = -1.0, 2
    expected = trained(MADE[name], Batches(X, Y, WEIGHTS))
    assert_trained_alike(expected, trained(MADE[name], Batches(x, y, WEIGHTS)))
    assert_trained_alike(expected, trained(MADE[name], Batches(X, Y), class_weight=CLASS_WEIGHT))
    assert_trained_alike(expected, trained(MADE[name], Batches(X, Y, 2 * WEIGHTS), rate=RATE / 2), factor=2.0)


def test_samples_with_a_weight_of_0_have_no_influence_on_the_gate():
    x, y = mostly_easy()
    without_influence = np.random.default_rng(5).random(len(x)) < 0.3
    others, labels = x.copy(), y.copy()
    others[without_influence], labels[without_influence] = 1.0, 2

    def opened(*data):
        model = distributed_build()
        trainer = training.ImportanceTraining(model, seed=3)
        arguments = default_arguments() | dict(zip("xy", data, strict=True))
        history = trainer.fit(**arguments, sample_weight=np.where(without_influence, 0, 1), verbose=0).history
        return model.get_weights()[0], history["importance"]

    (one, shares), (other, other_shares) = opened(x, y), opened(others, labels)
    assert shares[0] == 0.0 and shares[-1] == 1.0  # the gate has opened in between
    assert shares == other_shares
    np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)
