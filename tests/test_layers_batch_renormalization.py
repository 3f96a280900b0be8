"""`BatchRenormalization`: its two limits, Algorithm 1 by hand, the schedule of bounds, gradients, and frozen layers."""

import keras
import numpy as np
import pytest
from frameworks import gradient_function, lacks, needs, tf

from importance_sampling.backend.keras_internals import get_mask
from importance_sampling.layers import BatchRenormalization

RNG = np.random.default_rng(4)
X = (RNG.normal(size=(6, 3)) * [1.0, 3.0, 0.2] + [0.5, -2.0, 4.0]).astype("float32")
BATCH_NORM = {"rmax_0": 1.0, "rmax_inf": 1.0, "dmax_0": 0.0, "dmax_inf": 0.0}
NO_CLIPPING = {"rmax_0": 1e6, "rmax_inf": 1e6, "dmax_0": 1e6, "dmax_inf": 1e6}
# mu_B = 2 and 1; with epsilon 1, s_B = sqrt(8 + 1) = 3 and sqrt(3 + 1) = 2.
R3 = float(np.sqrt(3))
BATCH = np.array([[2 - 2 * np.sqrt(2), 1 - R3], [2 + 2 * np.sqrt(2), 1 + R3]], "float32")


def n(tensor):
    return keras.ops.convert_to_numpy(tensor)


def built(weights=None, shape=(None, 3), **options):
    """Build a layer with the given gamma, beta, mu and s; the default values differ from the initial ones."""
    layer = BatchRenormalization(**options)
    layer.build(shape)
    weights = weights or ([1.5, 0.5, -1.0], [0.2, 0.0, 3.0], [0.3, -1.0, 2.0], [1.2, 2.0, 0.5])
    layer.set_weights([np.array(w, "float32") for w in weights] + [np.array(0)])
    return layer


def by_hand(r, d, gamma=(1.0, 1.0), beta=(0.0, 0.0)):
    """Return y of BATCH for given corrections r and d."""
    return ((BATCH - [2, 1]) / [3, 2] * r + d) * gamma + beta


def test_unclipped_corrections_follow_algorithm_1():
    options = {"epsilon": 1.0, "rmax_0": 2.0, "dmax_0": 1.0, "momentum": 0.9}
    layer = built(([2, 3], [1, -1], [1, 2], [2, 4]), (None, 2), **options)
    # r = 3/2, 2/4; d = (2 - 1)/2, (1 - 2)/4
    expected = by_hand([1.5, 0.5], [0.5, -0.25], [2, 3], [1, -1])
    np.testing.assert_allclose(n(layer(BATCH, training=True)), expected, rtol=1e-5)
    # 0.9 * old statistics + 0.1 * batch statistics
    np.testing.assert_allclose(n(layer.moving_mean), [1.1, 1.9], rtol=1e-6)
    np.testing.assert_allclose(n(layer.moving_std), [2.1, 3.8], rtol=1e-6)


def test_corrections_are_clipped_on_both_sides():
    layer = built(([1, 1], [0, 0], [-1, 9], [0.5, 16]), (None, 2), epsilon=1.0, rmax_0=2.0, dmax_0=0.25)
    # r = 6 and 1/8 become 2 and 1/2; d = 6 and -1/2 become 1/4 and -1/4.
    np.testing.assert_allclose(n(layer(BATCH, training=True)), by_hand([2, 0.5], [0.25, -0.25]), rtol=1e-5, atol=1e-6)


def test_inference_uses_the_moving_statistics():
    layer = built(([2, 3], [1, -1], [1, 2], [2, 4]), (None, 2))
    # 2 (3 - 1) / 2 + 1, 3 (10 - 2) / 4 - 1
    np.testing.assert_allclose(n(layer(np.array([[3.0, 10.0]]))), [[3, 5]], rtol=1e-6)
    np.testing.assert_array_equal(n(layer.moving_mean), [1, 2])
    assert int(layer.step) == 0


def test_with_rmax_1_and_dmax_0_the_layer_equals_batch_normalisation():
    layer = built(**BATCH_NORM)
    batch_norm = keras.layers.BatchNormalization()
    batch_norm.build((None, 3))
    batch_norm.gamma.assign(layer.gamma)
    batch_norm.beta.assign(layer.beta)
    weight = RNG.normal(size=X.shape).astype("float32")
    results = []
    for each in (layer, batch_norm):
        gradients = gradient_function(
            lambda x, weight, each=each: weight * each(x, training=True), [each.gamma, each.beta], constants=1
        )
        results.append([n(each(X, training=True)), *gradients(X, weight)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_without_clipping_training_output_equals_inference_output():
    layer = built(**NO_CLIPPING)
    inference = n(layer(X, training=False))
    np.testing.assert_allclose(n(layer(X, training=True)), inference, rtol=1e-4, atol=1e-5)
    assert np.abs(n(layer(X, training=False)) - inference).max() > 1e-3  # the training step updated the statistics


def test_no_gradient_flows_through_the_corrections():
    layer = built(**NO_CLIPPING)
    weight = RNG.normal(size=X.shape)
    gradients = gradient_function(lambda x, weight: weight * layer(x, training=True), constants=1)
    gradient = gradients(X, weight.astype("float32"))[0]
    # The numerical gradient with r and d fixed at their values at X.
    gamma, beta = (np.float64(w) for w in ([1.5, 0.5, -1.0], [0.2, 0.0, 3.0]))
    mu, s = np.float64([0.3, -1.0, 2.0]), np.float64([1.2, 2.0, 0.5])

    def deviation(x):
        return np.sqrt(x.var(axis=0) + 1e-3)

    at = X.astype("float64")
    r, d = deviation(at) / s, (at.mean(axis=0) - mu) / s

    def total_of(x):
        return np.sum(weight * (((x - x.mean(axis=0)) / deviation(x) * r + d) * gamma + beta))

    expected = np.empty_like(at)
    for i in np.ndindex(*at.shape):
        nudge = np.zeros_like(at)
        nudge[i] = 1e-5
        expected[i] = (total_of(at + nudge) - total_of(at - nudge)) / 2e-5
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-3)
    # A gradient through r and d would give the gradient of inference, which differs.
    assert np.abs(gradient - weight * gamma / s).max() > 0.1


SCHEDULE = {0: (1.5, 0.5), 1: (2.0, 0.75), 3: (3.0, 1.25), 6: (4.5, 2.0), 10: (4.5, 3.0), 50: (4.5, 3.0)}


@pytest.mark.parametrize("step", SCHEDULE)
def test_bounds_grow_linearly_up_to_their_final_value(step):
    options = {"rmax_0": 1.5, "rmax_inf": 4.5, "rmax_duration": 6, "dmax_0": 0.5, "dmax_inf": 3.0, "dmax_duration": 10}
    layer = built(**options)
    layer.step.assign(step)
    np.testing.assert_allclose([float(layer.rmax()), float(layer.dmax())], SCHEDULE[step], rtol=1e-6)


def test_the_default_bounds_are_those_of_the_paper():
    layer = built()
    for step, bounds in {0: (1, 0), 12500: (1.625, 2.5), 20000: (2, 4), 25000: (2.25, 5), 40000: (3, 5)}.items():
        layer.step.assign(step)
        np.testing.assert_allclose([float(layer.rmax()), float(layer.dmax())], bounds, rtol=1e-6)


def test_a_duration_of_zero_starts_with_the_final_bound():
    layer = built(rmax_duration=0, dmax_duration=0)
    assert float(layer.rmax()) == 3 and float(layer.dmax()) == 5


def test_fit_increments_the_step_counter_and_the_bounds():
    model = keras.Sequential([keras.Input((3,)), BatchRenormalization(rmax_duration=4, dmax_duration=8)])
    model.compile("sgd", "mse", jit_compile=not lacks("jit_compile"))
    model.fit(X, X, batch_size=2, epochs=1, verbose=0)
    model.predict(X, verbose=0)
    layer = model.layers[0]
    assert int(layer.step) == 3
    # 1 + 2 * 3/4 and 5 * 3/8
    np.testing.assert_allclose([float(layer.rmax()), float(layer.dmax())], [2.5, 1.875], rtol=1e-6)


def test_the_first_step_uses_the_initial_bounds():
    layer = built(([1, 1], [0, 0], [1, 2], [2, 4]), (None, 2), epsilon=1.0, rmax_duration=1, dmax_duration=1)
    # The first step is batch normalisation. The second isn't clipped, with 99 % of the initial statistics.
    np.testing.assert_allclose(n(layer(BATCH, training=True)), by_hand(1, 0), rtol=1e-5, atol=1e-6)
    # s = 2.01 and 3.98, mu = 1.01 and 1.99
    expected = by_hand([3 / 2.01, 2 / 3.98], [0.99 / 2.01, -0.99 / 3.98])
    np.testing.assert_allclose(n(layer(BATCH, training=True)), expected, rtol=1e-5, atol=1e-6)


def test_a_frozen_layer_runs_in_inference_mode():
    layer = built(trainable=False)
    inference = n(layer(X, training=False))
    before_training = layer.get_weights()
    np.testing.assert_array_equal(n(layer(X, training=True)), inference)
    for before, after in zip(before_training, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    layer.trainable = True
    assert np.abs(n(layer(X, training=True)) - inference).max() > 0.1


def test_only_gamma_and_beta_are_trainable():
    assert [v.name for v in built().trainable_variables] == ["gamma", "beta"]
    assert [v.name for v in built().non_trainable_variables] == ["moving_mean", "moving_std", "step"]
    bare = BatchRenormalization(center=False, scale=False)
    bare.build((None, 3))
    assert bare.trainable_variables == [] and bare.gamma is None and bare.beta is None


def test_variables_start_with_the_values_of_their_initialisers():
    layer = BatchRenormalization(
        beta_initializer=keras.initializers.Constant(1),
        gamma_initializer=keras.initializers.Constant(2),
        moving_mean_initializer=keras.initializers.Constant(3),
        moving_std_initializer=keras.initializers.Constant(4),
    )
    # 2 (11 - 3) / 4 + 1
    np.testing.assert_allclose(n(layer(np.array([[11.0]]))), [[5]])


def test_axis_1_normalises_channels_first_inputs():
    x = RNG.normal(size=(2, 3, 4, 5)).astype("float32")
    first, last = built(shape=(None, 3, 4, 5), axis=1), built(shape=(None, 4, 5, 3))
    ours, theirs = n(first(x, training=True)), n(last(np.moveaxis(x, 1, -1), training=True))
    np.testing.assert_allclose(ours, np.moveaxis(theirs, -1, 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(n(first.moving_std), n(last.moving_std), rtol=1e-6)


def test_masked_entries_are_excluded_from_the_batch_statistics():
    x = np.array([[[1.0], [5.0]], [[4.0], [100.0]]], "float32")
    mask = np.array([[True, True], [True, False]])
    layer, alone = (BatchRenormalization(momentum=0.0) for _ in range(2))
    masked = n(layer(x, training=True, mask=mask))
    np.testing.assert_allclose(masked[mask], n(alone(x[mask], training=True)), rtol=1e-5)
    np.testing.assert_allclose(n(layer.moving_mean), [10 / 3], rtol=1e-6)


def test_the_layer_propagates_the_mask():
    masked = keras.layers.Masking()(np.array([[[1.0], [0.0]]], "float32"))
    np.testing.assert_array_equal(n(get_mask(BatchRenormalization()(masked))), [[True, False]])


def test_a_loaded_model_predicts_and_trains_as_the_saved_model(tmp_path):
    options = {"momentum": 0.5, "rmax_inf": 4.0, "dmax_inf": 6.0, "rmax_duration": 7, "dmax_duration": 9}
    inputs = keras.Input((3,))
    model = keras.Model(inputs, BatchRenormalization(name="norm", **options)(inputs))
    model.compile("sgd", "mse")
    model.fit(X, X, batch_size=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    ours, theirs = model.get_layer("norm"), loaded.get_layer("norm")
    assert theirs.get_config() == ours.get_config() and int(theirs.step) == 3
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    np.testing.assert_array_equal(n(theirs(X, training=True)), n(ours(X, training=True)))


def test_with_mixed_float16_the_computation_is_in_float32():
    layer = BatchRenormalization(dtype="mixed_float16", momentum=0.0, **BATCH_NORM)
    x = np.array([[600.0], [0.0]], "float16")  # the variance 90000 overflows float16
    result = layer(x, training=True)
    assert keras.backend.standardize_dtype(result.dtype) == "float16"
    np.testing.assert_allclose(n(result), [[1], [-1]], rtol=1e-3)
    np.testing.assert_allclose(n(layer.moving_std), [300], rtol=1e-6)
    assert {v.dtype for v in layer.variables[:-1]} == {"float32"}
    assert layer.step.dtype == keras.optimizers.SGD().iterations.dtype


@needs("tf.function")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_compiled_function_gives_the_results_of_eager_execution(jit_compile):
    eager, compiled = (built(rmax_0=1.2, dmax_0=0.1, rmax_duration=2, dmax_duration=2) for _ in range(2))
    function = tf.function(lambda x: compiled(x, training=True), jit_compile=jit_compile)
    for _ in range(3):
        np.testing.assert_allclose(n(function(tf.constant(X))), n(eager(X, training=True)), rtol=1e-4, atol=1e-5)
    assert int(compiled.step) == 3
    assert function.experimental_get_tracing_count() == 1
    np.testing.assert_allclose(n(compiled.moving_std), n(eager.moving_std), rtol=1e-6)


BAD = {
    "momentum": [1.1, None],
    "epsilon": [0.0, -1.0],
    "rmax_0": [0.9, "1", float("inf")],
    "rmax_inf": [0.5, float("nan")],
    "dmax_0": [-0.1, True],
    "dmax_inf": [-1.0, float("inf")],
    "rmax_duration": [-1, 2.5, True],
    "dmax_duration": [-1, None],
    "axis": [0, "last"],
}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in BAD.items() for value in values])
def test_arguments_out_of_range_raise_value_error(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must be .* Received: {name}="):
        BatchRenormalization(**{name: value})


@pytest.mark.parametrize("bound", ["rmax", "dmax"])
def test_a_final_bound_below_the_initial_bound_raises_value_error(bound):
    with pytest.raises(ValueError, match=rf"`{bound}_inf` must be a finite number of at least 4; .* {bound}_inf=2"):
        BatchRenormalization(**{f"{bound}_0": 4.0, f"{bound}_inf": 2.0})
