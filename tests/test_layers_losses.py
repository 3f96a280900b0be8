"""`LossLayer`: closed forms, input shapes, masks, dtypes, and saving."""

import keras
import numpy as np
import pytest
from frameworks import gradient_function, needs

from importance_sampling.layers import LossLayer


def n(tensor):
    return keras.ops.convert_to_numpy(tensor)


def column(*values):
    return np.array(values, "float32")[:, None]


@keras.saving.register_keras_serializable(package="tests")
def cubed(y_true, y_pred):
    return keras.ops.abs(y_true - y_pred) ** 3


@keras.saving.register_keras_serializable(package="tests")
class Doubled(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return 2.0 * (y_pred - y_true)


# Differences (0, 2), (-1, 0), (3, 1).
Y_TRUE = np.array([[0, 1], [2, 2], [-1, 5]], "float32")
Y_PRED = np.array([[0, 3], [1, 2], [2, 6]], "float32")
CASES = {
    "name": ("mse", (2, 0.5, 5)),  # 4/2, 1/2, 10/2
    "function": (keras.losses.mean_absolute_error, (1, 0.5, 2)),
    "own function, per entry": (cubed, (4, 0.5, 14)),  # 8/2, 1/2, 28/2
    "object": (keras.losses.MeanSquaredError(), (2, 0.5, 5)),
    "object with arguments": (keras.losses.Huber(delta=1.0), (0.75, 0.25, 1.5)),  # (1.5, 0), (0.5, 0), (2.5, 0.5)
    "summed": (keras.losses.MeanSquaredError(reduction="sum"), (2, 0.5, 5)),
    "own class": (Doubled(), (2, -1, 4)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_loss_of_a_sample_is_the_mean_over_its_entries_for_every_reduction(case):
    loss, expected = CASES[case]
    np.testing.assert_allclose(n(LossLayer(loss)([Y_TRUE, Y_PRED])), column(*expected), rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_a_loaded_model_returns_the_results_of_the_saved_model(case, tmp_path):
    inputs = [keras.Input((2,)), keras.Input((2,))]
    model = keras.Model(inputs, LossLayer(CASES[case][0], name="losses")(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.get_layer("losses"), LossLayer)
    np.testing.assert_allclose(loaded.predict([Y_TRUE, Y_PRED], verbose=0), column(*CASES[case][1]), rtol=1e-6)


def test_all_axes_but_the_first_are_averaged():
    y_pred = np.arange(12, dtype="float32").reshape(2, 3, 2)
    # Squares 0 1 4 9 16 25 are 55, 36 to 121 are 451.
    result = n(LossLayer("mse")([np.zeros((2, 3, 2)), y_pred]))
    np.testing.assert_allclose(result, column(55 / 6, 451 / 6), rtol=1e-6)


@pytest.mark.parametrize("true_shape", [(3,), (3, 1)])
@pytest.mark.parametrize("pred_shape", [(3,), (3, 1)])
def test_inputs_of_shape_batch_are_treated_as_batch_by_1(true_shape, pred_shape):
    y_true, y_pred = np.array([1, 2, 4.0]), np.array([2, 4, 1.0])
    inputs = [y_true.reshape(true_shape), y_pred.reshape(pred_shape)]
    np.testing.assert_allclose(n(LossLayer("mse")(inputs)), column(1, 4, 9), rtol=1e-6)
    np.testing.assert_allclose(n(LossLayer(cubed)(inputs)), column(1, 8, 27), rtol=1e-6)


@pytest.mark.parametrize("labels", [np.array([1, 0]), np.array([[1], [0]])])
def test_sparse_labels_select_the_probability_of_their_class(labels):
    p = np.array([[0.25, 0.5, 0.25], [0.1, 0.6, 0.3]], "float32")
    result = n(LossLayer("sparse_categorical_crossentropy")([labels, p]))
    np.testing.assert_allclose(result, -np.log(column(0.5, 0.1)), rtol=1e-5)


def test_masked_entries_are_excluded():
    x = np.array([[[1.0], [2.0], [0.0]], [[3.0], [0.0], [0.0]], [[0.0], [0.0], [0.0]]], "float32")
    inputs = [keras.Input((3, 1)), keras.Input((3, 1))]
    model = keras.Model(inputs, LossLayer("mse")([inputs[0], keras.layers.Masking()(inputs[1])]))
    # The squared differences from 4 are 9 and 4, then 1; the last sample is fully masked.
    result = model.predict([np.full_like(x, 4.0), x], verbose=0)
    np.testing.assert_allclose(result, column(6.5, 1, 0), rtol=1e-6)


def test_entries_with_the_ignored_class_are_excluded():
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=0)
    p = np.array([[[0.2, 0.8], [0.5, 0.5]]], "float32")
    # The second entry has the ignored label.
    np.testing.assert_allclose(n(LossLayer(loss)([np.array([[1, 0]]), p])), -np.log(column(0.8)), rtol=1e-5)


def test_with_mixed_float16_the_result_is_computed_and_returned_in_float32():
    layer = LossLayer("mse", dtype="mixed_float16")
    y_pred = np.array([[300.0, 0.0], [1e-3, 0.0]], "float16")  # 300^2 overflows float16, 1e-6 underflows
    result = layer([np.zeros((2, 2), "float16"), y_pred])
    assert keras.backend.standardize_dtype(result.dtype) == "float32"
    np.testing.assert_allclose(n(result), column(45000, 5e-7), rtol=1e-3)
    symbolic = layer([keras.Input((2,), dtype="float16"), keras.Input((2,), dtype="float16")])
    assert symbolic.dtype == "float32" and symbolic.shape == (None, 1)


def test_with_mixed_float16_targets_are_not_rounded_to_float16():
    # 2049 is not a float16; its neighbours are 2048 and 2050.
    result = LossLayer("mse", dtype="mixed_float16")([np.float32([[2049.0]]), np.float32([[2048.0]])])
    np.testing.assert_allclose(n(result), [[1.0]])


@needs("float64")
def test_with_float64_the_result_is_computed_in_float64():
    tiny = 1.0 + 1e-12
    result = LossLayer("mae", dtype="float64")([np.ones((1, 1)), np.full((1, 1), tiny)])
    np.testing.assert_allclose(n(result), [[1e-12]], rtol=1e-3)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_gradients_flow_through_the_layer_in_a_compiled_function(jit_compile):
    layer = LossLayer("mse")
    gradient = gradient_function(lambda y_pred, y_true: layer([y_true, y_pred]), constants=1, jit_compile=jit_compile)
    # 2 (y_pred - y_true) / 2
    np.testing.assert_allclose(gradient(Y_PRED, Y_TRUE)[0], Y_PRED - Y_TRUE, rtol=1e-6)


@pytest.mark.parametrize("loss", [None, "no such loss", 3])
def test_an_unknown_loss_raises_value_error(loss):
    with pytest.raises(ValueError, match=r"`loss` must be the name of a Keras loss.* Received: loss="):
        LossLayer(loss)


def test_a_loss_without_values_per_sample_raises_value_error():
    class ScalarLoss(keras.losses.Loss):
        def __call__(self, y_true, y_pred, sample_weight=None):
            return keras.ops.sum(y_pred)

    with pytest.raises(ValueError, match=r"`loss` must implement `call`.* Received: loss="):
        LossLayer(ScalarLoss())
    with pytest.raises(ValueError, match=r"reduce over the batch axis.*shape \(\) for.*\(3, 2\)"):
        LossLayer(lambda y_true, y_pred: keras.ops.mean(y_pred))([Y_TRUE, Y_PRED])
    with pytest.raises(ValueError, match=r"reduce over the batch axis.*shape \(2,\) for.*\(3, 2\)"):
        LossLayer(lambda y_true, y_pred: keras.ops.mean(y_pred, axis=0))([Y_TRUE, Y_PRED])


def test_a_loss_that_reduces_the_axes_of_the_mask_raises_value_error():
    def over_steps(y_true, y_pred):
        return keras.ops.mean(y_pred, axis=(1, 2))

    masked = keras.layers.Masking()(np.ones((2, 3, 1), "float32"))
    with pytest.raises(ValueError, match=r"must return values with the axes of the mask, \(2, 3\).*shape \(2,\)"):
        LossLayer(over_steps)([np.ones((2, 3, 1)), masked])


@pytest.mark.parametrize("inputs", [Y_TRUE, [Y_TRUE], [Y_TRUE, Y_PRED, Y_PRED], [Y_TRUE, np.float32(1)]])
def test_inputs_other_than_two_batches_raise_value_error(inputs):
    with pytest.raises(ValueError, match=r"LossLayer must be called on a list of 2 tensors.*\[y_true, y_pred\]"):
        LossLayer("mse")(inputs)
