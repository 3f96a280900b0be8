"""Statistics of batch normalisation in importance steps: drawn samples count by their importance weights."""

import keras
import numpy as np
import pytest
from frameworks import host

from importance_sampling import ImportanceTraining
from importance_sampling.core.batch_statistics import weighted_moments
from importance_sampling.layers import BatchRenormalization, StatsBatchNorm
from importance_sampling.training import BiasedImportanceTraining

RNG = np.random.default_rng(3)
# The first third has large inputs and labels that can't be learnt, so that it is drawn more often.
X = np.concatenate([RNG.normal(5.0, 1.0, (32, 3)), RNG.normal(0.0, 0.5, (64, 3))]).astype("float32")
Y = np.concatenate([RNG.integers(0, 2, 32), np.zeros(64, "int64")])
LAYERS = {
    "Keras's": lambda: keras.layers.BatchNormalization(momentum=0.0),
    "renormalisation": lambda: BatchRenormalization(momentum=0.0),
    "statistics": lambda: StatsBatchNorm(momentum=0.0, update_stats=True),
}


def trained(layer, x=X, **options):
    """Take one importance step; return the trainer's last batch, its indices and its weights."""
    model = keras.Sequential(
        [keras.Input(x.shape[1:]), layer, keras.layers.Flatten(), keras.layers.Dense(2, "softmax")]
    )
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    draws = []
    trainer = ImportanceTraining(model, tau_th=0.0, seed=1, **options)
    trainer.fit(
        x, Y, batch_size=24, verbose=0, on_sample=lambda _, indices, weights, scores: draws.append((indices, weights))
    )
    return draws[-1]


def test_moments_are_those_of_a_batch_in_which_each_row_occurs_by_its_weight():
    rows = RNG.normal(size=(3, 4, 2)).astype("float32")
    repeated = rows[[0, 0, 0, 1, 2, 2]]
    mean, variance = weighted_moments(keras.ops.convert_to_tensor(rows), np.float32([3, 1, 2]), [0, 1])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(mean), repeated.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variance), repeated.var((0, 1)), rtol=1e-5)


def test_the_scale_of_the_weights_does_not_matter():
    rows, weights = keras.ops.convert_to_tensor(RNG.normal(size=(5, 2)).astype("float32")), np.float32([1, 2, 3, 4, 5])
    for one, other in zip(weighted_moments(rows, weights, [0]), weighted_moments(rows, 7 * weights, [0]), strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other), rtol=1e-5)


@pytest.mark.parametrize("sampler", ["pool", "reshuffle"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_step_updates_the_moving_statistics_by_the_weighted_statistics_of_its_batch(kind, sampler):
    layer = LAYERS[kind]()
    indices, weights = trained(layer, sampler=sampler)
    assert weights.max() > 1.2 * weights.min()
    drawn, w = X[indices], weights[:, None] / weights.sum()
    expected = (w * drawn).sum(0)
    np.testing.assert_allclose(host(layer.moving_mean), expected, rtol=1e-4)
    assert np.abs(expected - drawn.mean(0)).max() > 0.1  # what the moving mean would be without weights


@pytest.mark.parametrize("k", [0.5, -1.0])
def test_pools_with_a_biased_policy_estimate_the_statistics_of_the_data(k):
    layer = keras.layers.BatchNormalization(momentum=0.9)
    model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(2, "softmax")])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")

    def score(_, x, y):
        return keras.ops.square(x[:, 0]) + 1.0

    trainer = BiasedImportanceTraining(model, k, presample=72, tau_th=0.0, score=score, seed=1)
    trainer.fit(X, Y, batch_size=24, epochs=40, verbose=0)
    assert trainer.importance_steps > 40
    np.testing.assert_allclose(host(layer.moving_mean), X.mean(0), atol=0.5)  # of the drawn samples: above 4
    np.testing.assert_allclose(host(layer.moving_variance), X.var(0), rtol=0.3)


def test_a_layer_of_a_class_with_its_own_moments_keeps_them():
    class Fixed(keras.layers.BatchNormalization):
        def _moments(self, inputs, mask):
            return keras.ops.full((3,), 7.0), keras.ops.ones((3,))

    layer = Fixed(momentum=0.0)
    trained(layer, sampler="reshuffle")
    np.testing.assert_allclose(host(layer.moving_mean), 7.0)


def test_statistics_of_images_are_weighted_by_image():
    images = np.tile(X[:, None, None, :], (1, 2, 2, 1)) + RNG.normal(0.0, 0.1, (96, 2, 2, 3)).astype("float32")
    layer = keras.layers.BatchNormalization(momentum=0.0)
    indices, weights = trained(layer, images, sampler="reshuffle")
    w = weights[:, None, None, None] / weights.sum() / 4
    mean = (w * images[indices]).sum((0, 1, 2))
    np.testing.assert_allclose(host(layer.moving_mean), mean, rtol=1e-4)
    variance = (w * (images[indices] - mean) ** 2).sum((0, 1, 2))
    np.testing.assert_allclose(host(layer.moving_variance), variance, rtol=1e-3)


def test_inputs_with_a_mask_or_with_other_rows_than_the_samples_have_the_statistics_of_keras():
    sequences = np.tile(X[:, None, :], (1, 4, 1))
    sequences[::2, 2:] = 0.0
    layer = keras.layers.BatchNormalization(momentum=0.0)
    masked = keras.Sequential([keras.layers.Masking(), layer])
    indices, _ = trained(masked, sequences, sampler="reshuffle")
    valid = sequences[indices][(sequences[indices] != 0).any(-1)]
    np.testing.assert_allclose(host(layer.moving_mean), valid.mean(0), rtol=1e-4)
    layer = keras.layers.BatchNormalization(momentum=0.0)
    indices, _ = trained(keras.layers.TimeDistributed(layer), sequences, sampler="reshuffle")
    assert np.isfinite(host(layer.moving_mean)).all()


def test_the_moments_of_a_layer_are_its_own_again_after_a_step():
    layer = keras.layers.BatchNormalization(momentum=0.0)
    trained(layer, sampler="reshuffle")
    assert "_moments" not in vars(layer)
    layer(X[:24], training=True)
    np.testing.assert_allclose(host(layer.moving_mean), X[:24].mean(0), rtol=1e-4)
