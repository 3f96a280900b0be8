"""Every builder returns a compiled model that can be trained; small models are trained by importance sampling."""

import doctest
import functools
import importlib
import pkgutil

import keras
import numpy as np
import pytest

from importance_sampling import ImportanceTraining, models
from importance_sampling.core.logits import find_layer
from importance_sampling.models.registry import BUILDERS

SHAPES = {"lstm_lm": (4,), "lstm_mnist": (6, 2), "pretrained_resnet50": (32, 32, 3)}


def make(name, output_size):
    keras.utils.set_random_seed(0)
    shape = SHAPES.get(name, (8, 8, 3))
    if name == "pretrained_resnet50":
        return shape, models.get(name)(shape, output_size, weights=None)
    return shape, models.get(name)(shape, output_size)


# Cached, because some models are large. One test trains a cached model for one step; other tests don't depend on that.
build = functools.cache(make)


@pytest.fixture(scope="module", autouse=True)
def release_cached_models():
    yield
    build.cache_clear()


def data(name, shape, output_size, rows=4):
    random = np.random.default_rng(0)
    labels = np.arange(rows) % max(output_size, 2)
    if name == "lstm_lm":
        return random.integers(0, output_size, (rows, *shape)), labels
    x = random.random((rows, *shape)).astype("float32")
    return x, labels[:, None].astype("float32") if output_size == 1 else keras.utils.to_categorical(labels, output_size)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_builder_returns_a_trainable_classifier(name):
    shape, model = build(name, 3)
    model.run_eagerly = True  # faster than tracing
    x, y = data(name, shape, 3)
    assert model.input_shape == (None, *shape) and model.output_shape == (None, 3)
    np.testing.assert_allclose(model.predict_on_batch(x).sum(axis=1), 1, rtol=1e-5)
    before = [weight.copy() for weight in model.get_weights()]
    logs = model.train_on_batch(x, y, return_dict=True)
    assert np.isfinite(logs["loss"]) and 0 <= logs["accuracy"] <= 1
    assert int(model.optimizer.iterations.value) == 1
    # The step changes nearly all weights. A state that starts at its fixed point may be unchanged.
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert np.mean(changed) > 0.8, changed


@pytest.mark.parametrize("name", ["small_nn", "lr", "svrg_nn", "small_cnn", "all_conv", "lstm_mnist"])
def test_with_one_output_the_model_is_a_binary_classifier(name):
    shape, model = make(name, 1)
    model.run_eagerly = True
    x, y = data(name, shape, 1)
    p = model.predict_on_batch(x).astype("float64")
    assert p.shape == (4, 1) and ((p > 0) & (p < 1)).all()
    penalty = sum(float(keras.ops.convert_to_numpy(loss)) for loss in model.losses)
    wanted = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)) + penalty
    assert model.evaluate(x, y, verbose=0, return_dict=True)["loss"] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    "name, shape, count",
    [
        ("lr", (5,), 5 * 3 + 3),
        ("small_nn", (5,), 5 * 40 + 40 + 40 * 40 + 40 + 40 * 3 + 3),
        ("svrg_nn", (5,), 5 * 100 + 100 + 100 * 3 + 3),
        # 3x3 over 3, 96, 96, 96, 192, 192, 192 channels, 1x1 over 192 and 192, with a bias each.
        (
            "all_conv",
            (32, 32, 3),
            9 * (3 * 96 + 2 * 96 * 96 + 96 * 192 + 3 * 192 * 192) + 192 * 192 + 3 * 96 + 5 * 192 + 192 * 3 + 3,
        ),
        # Four gates over two features, 128 units and a bias; then 128 to 3.
        ("lstm_mnist", (6, 2), 4 * 128 * (2 + 128 + 1) + 128 * 3 + 3),
        # An embedding of 3 words, four gates over 64 and 128, 128 to 3.
        ("lstm_lm", (4,), 3 * 64 + 4 * 128 * (64 + 128 + 1) + 128 * 3 + 3),
    ],
)
def test_the_number_of_parameters_equals_the_count_by_hand(name, shape, count):
    assert models.get(name)(shape, 3).count_params() == count


def test_a_wide_resnet_has_the_requested_depth_and_width():
    model = models.wide_resnet(10, 3, drop_rate=0.4)((32, 32, 3), 5)
    kernels = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    # One convolution, then two in each of 3 groups of one block, and one 1x1 convolution per group for the new shape.
    assert len(kernels) == 1 + 6 + 3
    assert [layer.filters for layer in kernels if layer.kernel_size == (3, 3)] == [16, 48, 48, 96, 96, 192, 192]
    assert sorted(layer.filters for layer in kernels if layer.kernel_size == (1, 1)) == [48, 96, 192]
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.4] * 3
    assert model.get_layer(model.layers[-3].name).input.shape == (None, 8, 8, 192)
    # The paper reports 11.0 million parameters for depth 16 and width 8.
    assert models.wide_resnet(16, 8)((32, 32, 3), 10).count_params() / 1e6 == pytest.approx(11.0, abs=0.05)
    assert not [layer for layer in models.wide_resnet(10, 1)((8, 8, 3), 2).layers if "dropout" in layer.name]


@pytest.mark.parametrize("name", ["svrg_nn", "all_conv", "wide_resnet_28_2"])
def test_the_gradient_of_the_penalty_is_the_documented_one(name):
    rate = {"svrg_nn": 1e-4, "all_conv": 1e-3, "wide_resnet_28_2": 5e-4}[name]
    _, model = build(name, 3)
    kernels = [w for w in model.trainable_weights if w.path.endswith("kernel")]
    wanted = rate / 2 * sum(float(np.sum(np.square(np.asarray(w)))) for w in kernels)
    assert float(keras.ops.convert_to_numpy(sum(model.losses))) == pytest.approx(wanted, rel=1e-4)


def test_the_pretrained_model_preprocesses_pixels_for_its_weights():
    _, model = build("pretrained_resnet50", 3)
    first = keras.Model(model.input, model.get_layer("conv1_pad").input)
    x = np.zeros((1, 32, 32, 3), "float32")
    x[..., 0], x[..., 2] = 1.0, 0.5
    # Blue, green, red in [0, 255], minus the means 103.939, 116.779 and 123.68 of ImageNet.
    wanted = [127.5 - 103.939, -116.779, 255 - 123.68]
    np.testing.assert_allclose(first.predict_on_batch(x)[0, 5, 7], wanted, rtol=1e-5)


def test_a_model_rebuilt_from_json_and_weights_gives_the_same_outputs(tmp_path):
    shape, model = build("pretrained_resnet50", 3)
    x, _ = data("pretrained_resnet50", shape, 3)
    copy = keras.models.model_from_json(model.to_json())
    copy.set_weights(model.get_weights())
    n = keras.ops.convert_to_numpy
    np.testing.assert_allclose(n(copy(x)), n(model(x)), rtol=1e-5)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_logits_are_the_output_of_a_layer_named_logits(name):
    _, model = build(name, 3)
    if name not in ("lstm_lm",):
        assert model.loss == "categorical_crossentropy"
    layer = find_layer(model, "logits")
    assert tuple(layer.output.shape) == (None, 3)
    assert model.layers[-1].activation is keras.activations.softmax


@pytest.mark.parametrize("name", ["small_nn", "lr", "lstm_mnist", "lstm_lm"])
def test_a_model_trains_by_importance_sampling(name):
    shape, model = make(name, 3)
    x, y = data(name, shape, 3, rows=96)
    history = ImportanceTraining(model, tau_th=0, seed=0).fit(x, y, batch_size=16, epochs=2, verbose=0)
    assert history.history["importance"] == [1.0, 1.0]
    assert np.isfinite(history.history["loss"]).all()
    assert int(model.optimizer.iterations.value) == 12


@pytest.mark.fast
def test_an_unknown_name_raises_value_error_with_the_known_names():
    with pytest.raises(ValueError, match=r"`name` must be one of small_nn, .*_resnet50\. Received: name='vgg'"):
        models.get("vgg")
    assert set(models.__all__) - {"get", "wide_resnet"} == set(BUILDERS) - {"wide_resnet_28_2"}


@pytest.mark.parametrize(
    "name, shape, output_size, message",
    [
        ("small_nn", (), 3, "`input_shape` must be a tuple, the shape of one sample"),
        ("small_nn", 784, 3, "`input_shape` must be a tuple"),
        ("lr", (5,), 0, "`output_size` must be an int of at least 1"),
        ("svrg_nn", (5,), 2.0, "`output_size` must be an int of at least 1"),
        ("small_cnn", (784,), 3, r"`input_shape` must be a tuple.*\(height, width, channels\)"),
        ("wide_resnet_28_2", (784, 1), 3, r"`input_shape` must be a tuple.*\(height, width, channels\)"),
        ("lstm_mnist", (784,), 3, r"`input_shape` must be a tuple.*\(steps, features\)"),
        ("lstm_lm", (4, 1), 3, r"`input_shape` must be a tuple.*\(context,\)"),
        ("lstm_lm", (4,), 1, "`output_size` must be an int of at least 2"),
        ("pretrained_resnet50", (32, 32, 1), 3, r"`input_shape` must be \(height, width, 3\)"),
        ("pretrained_resnet50", (28, 32, 3), 3, "at least 32 high and wide"),
    ],
)
def test_invalid_arguments_of_builders_raise_value_error(name, shape, output_size, message):
    with pytest.raises(ValueError, match=message):
        models.get(name)(shape, output_size)


@pytest.mark.parametrize(
    "arguments, message",
    [((27, 2), "`L` must be an int"), ((28, 0), "`k` must be an int"), ((28, 2, 1.0), "`drop_rate` must be a number")],
)
def test_invalid_arguments_of_a_wide_resnet_raise_value_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.wide_resnet(*arguments)


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(models.__path__)])
def test_docstring_examples_of_models_give_the_shown_output(name):
    module = importlib.import_module(f"importance_sampling.models.{name}")
    assert doctest.testmod(module, extraglobs=vars(models)).failed == 0
