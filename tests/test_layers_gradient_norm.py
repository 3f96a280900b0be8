"""`GradientNormLayer`: closed forms, comparison with automatic differentiation, and execution modes."""

import keras
import numpy as np
import pytest
import scipy.special
from frameworks import gradient_function, needs, tf

from importance_sampling.layers import GradientNormLayer

CLASSES = np.array([2, 0, 1])
ONE_HOT = np.eye(3, dtype="float32")[CLASSES]
# Softmax of log(p) is p.
P = np.array([[0.2, 0.3, 0.5], [0.1, 0.7, 0.2], [0.25, 0.25, 0.5]], "float32")
LOGITS = np.log(P) + np.array([[1.0], [-2.0], [0.0]], "float32")
# p - y is (.2 .3 -.5), (-.9 .7 .2), (.25 -.75 .5).
SOFTMAX = np.sqrt(np.array([[0.38], [1.34], [0.875]]))


def n(tensor):
    return keras.ops.convert_to_numpy(tensor)


@keras.saving.register_keras_serializable(package="tests")
def quartic(y_true, y_pred):
    return (y_pred - y_true) ** 4


@keras.saving.register_keras_serializable(package="tests")
def either(y_true, y_pred, from_logits=False):
    return keras.losses.categorical_crossentropy(y_true, y_pred, from_logits=from_logits)


def by_autodiff(loss, targets, z):
    """Compute the gradient norms one sample at a time."""
    gradient = gradient_function(lambda row, target: keras.ops.mean(loss(target, row)), constants=1)
    norms = [np.linalg.norm(gradient(row[None], target[None])[0]) for target, row in zip(targets, z, strict=True)]
    return np.array(norms)[:, None]


TAKES_LOGITS = {
    "categorical_crossentropy": ("categorical_crossentropy", ONE_HOT),
    "sparse_categorical_crossentropy": ("sparse_categorical_crossentropy", CLASSES),
    "sparse, in a column": ("sparse_categorical_crossentropy", CLASSES[:, None]),
    "class by name": ("CategoricalCrossentropy", ONE_HOT),
    "function": (keras.losses.categorical_crossentropy, ONE_HOT),
    "own function": (either, ONE_HOT),
    "object": (keras.losses.CategoricalCrossentropy(from_logits=True), ONE_HOT),
    "summed object": (keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"), CLASSES),
}


@pytest.mark.parametrize("case", TAKES_LOGITS)
def test_for_cross_entropy_the_norm_is_the_distance_of_probabilities_and_labels(case):
    loss, targets = TAKES_LOGITS[case]
    np.testing.assert_allclose(n(GradientNormLayer(loss)([targets, LOGITS])), SOFTMAX, rtol=1e-5)


@pytest.mark.parametrize("loss", ["binary_crossentropy", "bce", "BinaryCrossentropy"])
def test_for_binary_cross_entropy_the_loss_is_the_mean_over_units(loss):
    # Sigmoid of log 3 is 3/4, of 0 is 1/2: (3/4 - 1, 1/2) / 2 and (3/4, -1/2) / 2.
    z = np.array([[np.log(3), 0], [np.log(3), 0]], "float32")
    expected = np.sqrt(np.array([[0.3125], [0.8125]])) / 2
    result = GradientNormLayer(loss)([np.array([[1, 0], [0, 1]]), z])
    np.testing.assert_allclose(n(result), expected, rtol=1e-5)


def test_for_mean_squared_error_the_norm_is_twice_the_distance_per_unit():
    # 2 (3, 4) / 2 and 2 (0, -1) / 2
    result = GradientNormLayer("mse")([np.zeros((2, 2)), np.array([[3.0, 4.0], [0.0, -1.0]])])
    np.testing.assert_allclose(n(result), [[5], [1]], rtol=1e-6)


def test_norms_agree_with_automatic_differentiation_of_single_samples():
    rng = np.random.default_rng(3)
    z, y = rng.normal(size=(2, 4, 5, 3)).astype("float32")
    result = n(GradientNormLayer(quartic)([y, z]))
    assert result.shape == (4, 1)
    np.testing.assert_allclose(result, by_autodiff(quartic, y, z), rtol=1e-5)
    log_cosh = keras.losses.LogCosh(reduction=None)
    np.testing.assert_allclose(n(GradientNormLayer(log_cosh)([y, z])), by_autodiff(log_cosh, y, z), rtol=1e-5)


def test_logits_of_shape_batch_are_treated_as_batch_by_1():
    # 2 (z - y)
    result = GradientNormLayer("mse")([np.array([1.0, 2.0, 0.0]), np.array([2.0, -1.0, 0.0])])
    np.testing.assert_allclose(n(result), [[2], [6], [0]], rtol=1e-6)


def test_masked_entries_are_excluded():
    z = np.array([[[3.0], [4.0], [0.0]], [[2.0], [0.0], [0.0]]], "float32")
    inputs = [keras.Input((3, 1)), keras.Input((3, 1))]
    model = keras.Model(inputs, GradientNormLayer("mse")([inputs[0], keras.layers.Masking()(inputs[1])]))
    # 2 (3, 4) / 2 over two unmasked entries, 2 * 2 over one.
    np.testing.assert_allclose(model.predict([np.zeros_like(z), z], verbose=0), [[5], [4]], rtol=1e-6)


def graph(loss, **options):
    """Build a model of targets and features that returns logits and gradient norms."""
    targets, features = keras.Input((3,)), keras.Input((4,))
    logits = keras.layers.Dense(3, **options)(features)
    return keras.Model(
        [targets, features], [logits, GradientNormLayer(loss, name="norms", **options)([targets, logits])]
    )


FEATURES = np.random.default_rng(7).normal(size=(3, 4)).astype("float32")


BY_XLA = pytest.param({"jit_compile": True}, marks=needs("jit_compile"))


@pytest.mark.parametrize("options_of_compile", [{"run_eagerly": True}, {"jit_compile": False}, BY_XLA], ids=str)
def test_the_layer_runs_in_a_model_in_eager_graph_and_xla_mode(options_of_compile):
    model = graph("categorical_crossentropy")
    model.compile(**options_of_compile)
    logits, norms = model.predict([ONE_HOT, FEATURES], verbose=0)
    np.testing.assert_allclose(
        norms, np.linalg.norm(scipy.special.softmax(logits, axis=1) - ONE_HOT, axis=1)[:, None], rtol=1e-5
    )


@needs("tf.function")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_batches_of_different_sizes_share_one_trace(jit_compile):
    layer, traces = GradientNormLayer("categorical_crossentropy"), []

    @tf.function(jit_compile=jit_compile, input_signature=[tf.TensorSpec((None, 3)), tf.TensorSpec((None, 3))])
    def norms(targets, z):
        traces.append(1)
        return layer([targets, z])

    np.testing.assert_allclose(n(norms(ONE_HOT, LOGITS)), SOFTMAX, rtol=1e-5)
    np.testing.assert_allclose(n(norms(ONE_HOT[:2], LOGITS[:2])), SOFTMAX[:2], rtol=1e-5)
    assert len(traces) == 1


@pytest.mark.parametrize("loss", ["categorical_crossentropy", keras.losses.categorical_crossentropy, either, quartic])
@pytest.mark.slow
def test_a_loaded_model_returns_the_results_of_the_saved_model(loss, tmp_path):
    model = graph(loss)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    before, after = (m.predict([ONE_HOT, FEATURES], verbose=0)[1] for m in (model, loaded))
    assert before.shape == (3, 1) and np.all(before > 0.01)
    np.testing.assert_allclose(after, before, rtol=1e-6)


def test_with_mixed_float16_the_result_is_computed_and_returned_in_float32():
    model = graph("categorical_crossentropy", dtype="mixed_float16")
    logits, norms = model.predict([ONE_HOT, FEATURES], verbose=0)
    assert logits.dtype == "float16" and norms.dtype == "float32"
    assert model.outputs[1].dtype == "float32" and model.outputs[1].shape == (None, 1)
    expected = np.linalg.norm(scipy.special.softmax(logits.astype("float32"), axis=1) - ONE_HOT, axis=1)[:, None]
    np.testing.assert_allclose(norms, expected, rtol=1e-5)  # a higher precision than that of float16


def test_small_gradients_of_float16_logits_do_not_underflow():
    z = np.array([[12.0, 0.0]], "float16")
    # p of the wrong class is exp(-12) = 6e-6. The norm is sqrt(2) times that, and its square underflows in float16.
    norms = GradientNormLayer("categorical_crossentropy", dtype="mixed_float16")([np.array([[1.0, 0.0]]), z])
    np.testing.assert_allclose(n(norms), [[np.sqrt(2) * np.exp(-12) / (1 + np.exp(-12))]], rtol=1e-2)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_gradient_of_the_norm_is_zero_where_the_norm_is_zero(jit_compile):
    layer = GradientNormLayer("mse")
    gradient = gradient_function(lambda z: layer([keras.ops.zeros_like(z), z]), jit_compile=jit_compile)
    # The norm is |z|, its gradient z / |z|.
    np.testing.assert_allclose(gradient([[3.0, 4.0], [0.0, 0.0]])[0], [[0.6, 0.8], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize("loss", [keras.losses.CategoricalCrossentropy(), keras.losses.BinaryCrossentropy()])
def test_loss_objects_with_from_logits_false_raise_value_error(loss):
    with pytest.raises(ValueError, match=r"`loss` must take logits.*from_logits=True.*Received: loss=\w+Crossentropy"):
        GradientNormLayer(loss)


@needs("missing gradients")
def test_losses_without_a_gradient_raise_value_error():
    with pytest.raises(ValueError, match=r"`loss` must be differentiable at the logits.*Received: loss="):
        GradientNormLayer(lambda y_true, y_pred: keras.ops.round(y_true))([ONE_HOT, LOGITS])


def test_an_unknown_loss_or_a_single_input_raises_value_error():
    with pytest.raises(ValueError, match=r"`loss` must be the name of a Keras loss.* Received: loss='nothing'"):
        GradientNormLayer("nothing")
    with pytest.raises(ValueError, match=r"GradientNormLayer must be called on.*\[targets, pre_activations\]"):
        GradientNormLayer("mse")([ONE_HOT])
