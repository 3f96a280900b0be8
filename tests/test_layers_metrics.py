"""`MetricLayer`: kinds of accuracy, closed forms, agreement with `evaluate`, and saving."""

import keras
import numpy as np
import pytest
from frameworks import compile_function

from importance_sampling.layers import MetricLayer

# Classes by decreasing probability: (0 1 2), (1 2 0), (2 0 1).
P = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.2, 0.5]], "float32")
CLASSES = np.array([0, 2, 1])
ONE_HOT = np.eye(3, dtype="float32")[CLASSES]


def n(tensor):
    return keras.ops.convert_to_numpy(tensor)


@keras.saving.register_keras_serializable(package="tests")
def spread(y_true, y_pred):
    return keras.ops.max(y_pred, axis=-1) - keras.ops.min(y_pred, axis=-1)


@pytest.mark.parametrize("name", ["accuracy", "acc", "Accuracy"])
def test_the_shapes_select_the_kind_of_accuracy(name):
    layer = MetricLayer(name)
    np.testing.assert_array_equal(n(layer([ONE_HOT, P])), [[1], [0], [0]])
    layer = MetricLayer(name)
    np.testing.assert_array_equal(n(layer([CLASSES, P])), [[1], [0], [0]])
    layer = MetricLayer(name)
    np.testing.assert_array_equal(n(layer([np.array([[2], [1], [1]]), P])), [[0], [1], [0]])
    layer = MetricLayer(name)
    np.testing.assert_array_equal(n(layer([np.array([1, 0, 1]), np.array([[0.9], [0.6], [0.51]])])), [[1], [0], [1]])
    layer = MetricLayer(name)
    # Two sequences of three steps: the first has one correct prediction, the second three.
    labels = np.array([[0, 2, 1], [0, 1, 2]])
    np.testing.assert_allclose(n(layer([labels, np.stack([P, P])])), [[1 / 3], [1]], rtol=1e-6)


CASES = {
    "accuracy": ("accuracy", CLASSES, (1, 0, 0)),
    "name of a function": ("sparse_categorical_accuracy", CLASSES, (1, 0, 0)),
    "short name": ("mae", ONE_HOT, (0.6 / 3, 1.4 / 3, 1.6 / 3)),  # |p - y| is (.3 .2 .1), (.1 .6 .7), (.3 .8 .5)
    "function": (keras.metrics.categorical_accuracy, ONE_HOT, (1, 0, 0)),
    "object": (keras.metrics.SparseTopKCategoricalAccuracy(k=2), CLASSES, (1, 1, 0)),
    "class by name": ("CategoricalCrossentropy", ONE_HOT, tuple(-np.log([0.7, 0.3, 0.2]))),
    "own function": (spread, ONE_HOT, (0.6, 0.5, 0.3)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_layer_returns_the_metric_of_every_sample(case):
    metric, y_true, expected = CASES[case]
    np.testing.assert_allclose(n(MetricLayer(metric)([y_true, P])), np.array(expected)[:, None], rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow
def test_a_loaded_model_returns_the_results_of_the_saved_model(case, tmp_path):
    metric, y_true, expected = CASES[case]
    inputs = [keras.Input(y_true.shape[1:]), keras.Input((3,))]
    model = keras.Model(inputs, MetricLayer(metric, name="metric")(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.get_layer("metric"), MetricLayer)
    np.testing.assert_allclose(loaded.predict([y_true, P], verbose=0), np.array(expected)[:, None], rtol=1e-5)


@pytest.mark.parametrize("metric", ["accuracy", "mse", keras.metrics.TopKCategoricalAccuracy(k=2)])
def test_the_mean_over_samples_equals_the_result_of_evaluate(metric):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Activation("linear")])
    model.compile(loss="mse", metrics=[metric])
    results = model.evaluate(P, ONE_HOT, verbose=0, return_dict=True)
    (expected,) = (value for name, value in results.items() if name != "loss")
    assert 0 < expected < 1
    np.testing.assert_allclose(np.mean(n(MetricLayer(metric)([ONE_HOT, P]))), expected, rtol=1e-5)


def test_a_metric_object_is_not_tracked_as_a_metric_of_the_model():
    layer = MetricLayer(keras.metrics.BinaryAccuracy(threshold=0.7))
    np.testing.assert_array_equal(n(layer([np.array([[1], [1]]), np.array([[0.6], [0.8]])])), [[0], [1]])
    assert layer.metrics == [] and layer.variables == []


def test_masked_entries_are_excluded():
    p = np.stack([P, P])
    p[1, 1:] = 0.0
    inputs = [keras.Input((3,)), keras.Input((3, 3))]
    model = keras.Model(inputs, MetricLayer("accuracy")([inputs[0], keras.layers.Masking()(inputs[1])]))
    # Two of three are correct; in the second sample, one of one unmasked entry.
    np.testing.assert_allclose(model.predict([np.array([[0, 1, 1], [0, 1, 1]]), p], verbose=0), [[2 / 3], [1]])


def test_with_mixed_float16_the_result_is_computed_and_returned_in_float32():
    layer = MetricLayer("mse", dtype="mixed_float16")
    result = layer([np.zeros((1, 1), "float16"), np.full((1, 1), 300, "float16")])
    assert keras.backend.standardize_dtype(result.dtype) == "float32"
    np.testing.assert_allclose(n(result), [[90000]])
    assert layer([keras.Input((1,)), keras.Input((1,))]).dtype == "float32"


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_layer_runs_in_a_compiled_function(jit_compile):
    layer = MetricLayer("accuracy")
    compiled = compile_function(lambda y, p: layer([y, p]), jit_compile=jit_compile)
    np.testing.assert_array_equal(n(compiled(*map(keras.ops.convert_to_tensor, (ONE_HOT, P)))), [[1], [0], [0]])


@pytest.mark.parametrize("metric", [None, "no such metric", 3, "AUC", keras.metrics.Precision(), keras.metrics.Mean()])
def test_metrics_without_values_per_sample_raise_value_error(metric):
    with pytest.raises(ValueError, match=r"`metric` must be .*no value per sample\. Received: metric="):
        MetricLayer(metric)


def test_functions_that_reduce_over_the_batch_raise_value_error():
    with pytest.raises(ValueError, match=r"`metric` must return a value per sample.*shape \(\) for.*\(3, 3\)"):
        MetricLayer(lambda y_true, y_pred: keras.ops.mean(y_pred))([ONE_HOT, P])


def test_inputs_other_than_two_batches_raise_value_error():
    with pytest.raises(ValueError, match=r"MetricLayer must be called on a list of 2 tensors.*\[y_true, y_pred\]"):
        MetricLayer("mse")([P, P, P])
