"""Models that accept batches of one size only: candidates are scored in batches of that size, or not at all."""

import keras
import numpy as np
import pytest
from frameworks import host
from keras import layers, ops

from importance_sampling import ImportanceTraining

ROWS, BATCH = 64, 8


def data():
    x = np.random.default_rng(0).normal(size=(ROWS, 6)).astype("float32")
    return x, x[:, :3].argmax(1)


def build(size=BATCH):
    """A model that reshapes what it sees to `size` rows; None: to as many as there are."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input(batch_shape=(size, 6))
    hidden = ops.reshape(layers.Dense(12, "relu")(inputs), (size or -1, 12))
    model = keras.Model(inputs, layers.Dense(3, "softmax")(hidden))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def fitted(model, **options):
    trainer = ImportanceTraining(model, seed=5, **options)
    trainer.fit(*data(), batch_size=BATCH, epochs=3, verbose=0)
    return trainer, np.concatenate([host(v).ravel() for v in model.variables])


@pytest.mark.parametrize("options", [dict(sampler="reshuffle"), dict(forward_batch_size=BATCH), dict(presample=3.0)])
@pytest.mark.slow
def test_a_model_that_accepts_one_batch_size_is_sampled_by_scoring_in_batches(options):
    trainer, weights = fitted(build(), tau_th=0, **options)
    assert trainer.importance_steps == 3 * ROWS // BATCH
    np.testing.assert_allclose(weights, fitted(build(None), tau_th=0, **options)[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("tau_th", [0, 1e9])
@pytest.mark.slow
def test_pools_that_are_no_multiple_of_the_batch_are_left_for_uniform_steps_with_a_warning(tau_th):
    with pytest.warns(UserWarning, match="stays off .* accepts 8 rows only, and a pool of 20 candidates"):
        trainer, weights = fitted(build(), tau_th=tau_th, presample=2.5)
    assert trainer.importance_steps == 0 and "accepts 8 rows only" in trainer.summary()
    np.testing.assert_array_equal(weights, fitted(build(), tau_th=float("inf"))[1])


def test_a_model_that_was_built_for_one_batch_size_but_accepts_others_is_trained_on_pools():
    model = keras.Sequential([layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.build((BATCH, 6))
    trainer, _ = fitted(model, tau_th=0)
    assert trainer.importance_steps == 3 * ROWS // BATCH
