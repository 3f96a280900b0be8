"""`StatsBatchNorm`: updates of the statistics, closed forms, gradients, and parity with inference of Keras."""

import keras
import numpy as np
import pytest
from frameworks import gradient_function, lacks

from importance_sampling import layers
from importance_sampling.layers import StatsBatchNorm

# Means 2 and 1, variances (1 + 0 + 1) / 3 and (9 + 1 + 4) / 3.
X = np.array([[1.0, 4.0], [2.0, 0.0], [3.0, -1.0]], "float32")
MEAN, VARIANCE = np.array([2.0, 1.0]), np.array([2 / 3, 14 / 3])


def n(tensor):
    return keras.ops.convert_to_numpy(tensor)


def built(shape=(None, 2), **options):
    """Build a layer whose variables all differ from their initial values."""
    layer = StatsBatchNorm(**options)
    layer.build(shape)
    channels = shape[layer.axis]
    rng = np.random.default_rng(2)
    layer.set_weights([rng.uniform(0.5, 2.0, channels).astype("float32") for _ in layer.weights])
    return layer


@pytest.mark.parametrize("training", [True, False, None])
def test_the_layer_uses_the_moving_statistics_in_training_and_inference(training):
    layer = StatsBatchNorm(epsilon=1.0)
    layer.build((None, 2))
    layer.set_weights([np.array(w, "float32") for w in ([2, 3], [1, -1], [1, -1], [8, 3])])
    # sqrt(v + epsilon) is 3 and 2: 2 (x - 1) / 3 + 1 and 3 (x + 1) / 2 - 1.
    expected = [[1, 6.5], [5 / 3, 0.5], [7 / 3, -1]]
    np.testing.assert_allclose(n(layer(X, training=training)), expected, rtol=1e-6)


def test_the_output_of_a_sample_does_not_depend_on_its_batch():
    layer = built(update_stats=True)
    weights = layer.get_weights()
    together = n(layer(X, training=True))
    layer.set_weights(weights)
    np.testing.assert_array_equal(n(layer(X[:1], training=True)), together[:1])


def test_with_update_stats_training_steps_update_the_statistics_by_momentum():
    layer = StatsBatchNorm(momentum=0.75, update_stats=True)
    layer(X, training=True)
    np.testing.assert_allclose(n(layer.moving_mean), 0.25 * MEAN, rtol=1e-6)
    np.testing.assert_allclose(n(layer.moving_variance), 0.75 + 0.25 * VARIANCE, rtol=1e-6)
    layer(X, training=True)
    np.testing.assert_allclose(n(layer.moving_mean), 0.4375 * MEAN, rtol=1e-6)
    np.testing.assert_allclose(n(layer.moving_variance), 0.5625 + 0.4375 * VARIANCE, rtol=1e-6)


@pytest.mark.parametrize(
    "options, training",
    [({}, True), ({"update_stats": True}, False), ({"update_stats": True, "trainable": False}, True)],
    ids=str,
)
def test_statistics_are_not_updated_otherwise(options, training):
    layer = StatsBatchNorm(momentum=0.5, **options)
    layer(X, training=training)
    np.testing.assert_array_equal(n(layer.moving_mean), [0, 0])
    np.testing.assert_array_equal(n(layer.moving_variance), [1, 1])


def test_the_layer_accepts_the_weights_of_a_batch_normalisation_layer():
    batch_norm = keras.layers.BatchNormalization()
    batch_norm.build((None, 2))
    batch_norm.set_weights([np.array(w, "float32") for w in ([2, 3], [1, -1], [0.5, -2], [8, 3])])
    layer = StatsBatchNorm()
    layer.build((None, 2))
    layer.set_weights(batch_norm.get_weights())
    np.testing.assert_allclose(n(layer(X, training=True)), n(batch_norm(X, training=False)), rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_gradients_flow_through_inputs_gamma_and_beta_only(jit_compile):
    layer = built(update_stats=True, epsilon=0.5)
    gamma, _, mean, variance = layer.get_weights()
    c = np.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]], "float32")
    gradients = gradient_function(
        lambda x: keras.ops.convert_to_tensor(c) * layer(x, training=True),
        [layer.gamma, layer.beta],
        jit_compile=jit_compile,
    )
    to_x, to_gamma, to_beta = gradients(X)
    deviation = np.sqrt(variance + 0.5)
    np.testing.assert_allclose(n(to_x), c * gamma / deviation, rtol=1e-5)
    np.testing.assert_allclose(n(to_gamma), np.sum(c * (X - mean) / deviation, axis=0), rtol=1e-5)
    np.testing.assert_allclose(n(to_beta), [4.5, 1.0], rtol=1e-5)
    assert [v.name for v in layer.trainable_variables] == ["gamma", "beta"]
    assert np.any(n(layer.moving_mean) != mean)  # the statistics were updated


def test_axis_1_normalises_channels_first_inputs():
    x = np.random.default_rng(1).normal(size=(2, 3, 4)).astype("float32")
    first, last = built((None, 3, 4), axis=1, update_stats=True), built((None, 4, 3), update_stats=True)
    result = n(first(x, training=True))
    np.testing.assert_allclose(result, n(last(x.swapaxes(1, 2), training=True)).swapaxes(1, 2), rtol=1e-6)
    np.testing.assert_allclose(n(first.moving_mean), n(last.moving_mean), rtol=1e-6)


def test_masked_entries_are_excluded_from_the_update():
    x = np.array([[[1.0], [5.0]], [[4.0], [100.0]]], "float32")
    layer = StatsBatchNorm(momentum=0.0, update_stats=True)
    layer(x, training=True, mask=np.array([[True, True], [True, False]]))
    # The unmasked entries are 1, 5 and 4: mean 10/3, variance 42/3 - 100/9.
    np.testing.assert_allclose(n(layer.moving_mean), [10 / 3], rtol=1e-6)
    np.testing.assert_allclose(n(layer.moving_variance), [26 / 9], rtol=1e-5)
    with pytest.raises(ValueError, match=r"`mask` must have all axes .* except the channel axis.*\(2, 2, 1\)"):
        layer(x, training=True, mask=np.ones((2, 2, 1), bool))


@pytest.mark.parametrize("options", [{}, {"center": False, "update_stats": True}, {"scale": False, "axis": 1}], ids=str)
@pytest.mark.slow
def test_a_loaded_model_returns_the_results_of_the_saved_model(options, tmp_path):
    inputs = keras.Input((2,))
    model = keras.Model(inputs, StatsBatchNorm(name="norm", momentum=0.5, epsilon=0.1, **options)(inputs))
    layer = model.get_layer("norm")
    layer.set_weights([w + 0.5 * i for i, w in enumerate(layer.get_weights(), 1)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("norm").get_config() == layer.get_config()
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))


def test_with_mixed_float16_the_computation_is_in_float32():
    layer = StatsBatchNorm(dtype="mixed_float16", momentum=0.0, update_stats=True)
    x = np.array([[600.0], [0.0]], "float16")  # the variance 90000 overflows float16
    result = layer(x, training=True)
    assert keras.backend.standardize_dtype(result.dtype) == "float16"
    np.testing.assert_allclose(n(layer.moving_variance), [90000])
    np.testing.assert_allclose(n(layer(x)), [[1], [-1]], rtol=1e-3)


@pytest.mark.slow
def test_fit_without_update_stats_trains_gamma_and_beta_and_keeps_the_statistics():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((2,))
    model = keras.Model(inputs, StatsBatchNorm(name="norm")(inputs))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=not lacks("jit_compile"))
    losses = model.fit(X, 3 * X - 1, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.2 * losses[0]
    np.testing.assert_array_equal(n(model.get_layer("norm").moving_mean), [0, 0])


BAD = {
    "momentum": [1.5, -0.1, "0.9", True, float("nan")],
    "epsilon": [0, -1e-3, None, float("inf")],
    "update_stats": [None, 1, "yes"],
    "axis": [0, True, 1.0, [1, 2]],
}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in BAD.items() for value in values])
def test_arguments_out_of_range_raise_value_error(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must be .* Received: {name}="):
        StatsBatchNorm(**{name: value})


def test_an_axis_that_is_missing_or_of_unknown_size_raises_value_error():
    with pytest.raises(ValueError, match=r"`axis` must be an axis of the inputs.*Received: axis=2"):
        StatsBatchNorm(axis=2)(X)
    with pytest.raises(ValueError, match=r"`axis` must be an axis of the inputs.*Received: axis=-2"):
        StatsBatchNorm(axis=-2)(X)
    with pytest.raises(ValueError, match=r"must have a known size.*Received: axis=-1, input_shape=\(None, None\)"):
        StatsBatchNorm()(keras.Input((None,)))


def test_the_normalisation_layers_of_keras_are_exported():
    assert layers.LayerNormalization is keras.layers.LayerNormalization
    assert layers.GroupNormalization is keras.layers.GroupNormalization
