"""`TripletLossLayer`: values, gradients, and training with a hinge loss."""

import keras
import numpy as np
import pytest
from frameworks import gradient_function

from importance_sampling.layers import TripletLossLayer

A = np.array([[0, 0, 1], [1, 2, 0]], "float32")
P = np.array([[1, 0, 1], [1, 5, 0]], "float32")
N = np.array([[0, 2, 1], [0, 2, 2]], "float32")
EXPECTED = np.array([[1.0 - 4.0], [9.0 - 5.0]])


def n(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_the_value_is_the_difference_of_squared_distances():
    np.testing.assert_allclose(n(TripletLossLayer()([A, P, N])), EXPECTED, rtol=1e-6)
    np.testing.assert_allclose(n(TripletLossLayer()([A, N, P])), -EXPECTED, rtol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_gradients_are_twice_the_differences(jit_compile):
    layer = TripletLossLayer()
    result = gradient_function(lambda *triplet: layer(list(triplet)), jit_compile=jit_compile)(A, P, N)
    # d/da = 2(a - p) - 2(a - n), d/dp = 2(p - a), d/dn = 2(a - n)
    for gradient, expected in zip(result, (2 * (N - P), 2 * (P - A), 2 * (A - N)), strict=True):
        np.testing.assert_allclose(n(gradient), expected, rtol=1e-6)


def triplet_model():
    embed = keras.layers.Dense(2, use_bias=False)
    inputs = [keras.Input((3,)) for _ in range(3)]
    return keras.Model(inputs, TripletLossLayer(name="t")([embed(i) for i in inputs]))


def test_a_loaded_model_returns_the_results_of_the_saved_model(tmp_path):
    model = triplet_model()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    before, after = (m.predict([A, P, N], verbose=0) for m in (model, loaded))
    assert isinstance(loaded.get_layer("t"), TripletLossLayer) and np.all(np.abs(before) > 1e-3)
    np.testing.assert_allclose(after, before, rtol=1e-6)


def test_training_with_a_hinge_loss_satisfies_the_triplets():
    keras.utils.set_random_seed(1)
    model = triplet_model()
    model.compile(keras.optimizers.SGD(0.01), lambda y_true, t: keras.ops.relu(t + 0.2))
    for _ in range(60):
        model.train_on_batch([A, P, N], np.zeros((2, 1)))
    assert np.all(model.predict([A, P, N], verbose=0) < -0.15)


def test_with_mixed_float16_the_result_is_computed_and_returned_in_float32():
    layer = TripletLossLayer(dtype="mixed_float16")
    result = layer([np.zeros((1, 1), "float16"), np.full((1, 1), 300, "float16"), np.full((1, 1), 299, "float16")])
    assert keras.backend.standardize_dtype(result.dtype) == "float32"
    np.testing.assert_allclose(n(result), [[90000 - 89401]])


@pytest.mark.parametrize("shapes", [[(2, 3), (2, 4), (2, 3)], [(2, 3), (2, 3), (2, 3, 1)], [(2,), (2,), (2,)]])
def test_embeddings_of_unequal_shapes_raise_value_error(shapes):
    with pytest.raises(ValueError, match=r"must have equal shapes \(batch, d\).*Received: shapes="):
        TripletLossLayer()([np.zeros(shape) for shape in shapes])


def test_inputs_other_than_three_tensors_raise_value_error():
    with pytest.raises(ValueError, match=r"list of 3 tensors.*\[anchor, positive, negative\].*Received: shapes="):
        TripletLossLayer()([A, P])
