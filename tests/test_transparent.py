"""`TransparentModel`: results equal those of Keras, and observed values come from the same forward pass."""

import keras
import numpy as np
import pytest
from keras import layers

from importance_sampling.transparent import TransparentModel

RNG = np.random.default_rng(2)
X = RNG.normal(size=(12, 4)).astype("float32")
Y = (X[:, 0] > 0.5).astype("int64")


def graph():
    keras.utils.set_random_seed(4)
    inputs = keras.Input((4,))
    hidden = layers.BatchNormalization()(layers.Dense(6, "relu")(inputs))
    dropped = layers.Dropout(0.5)(hidden)
    return inputs, dropped, layers.Dense(3, "softmax", kernel_regularizer="l2")(dropped)


def compiled(model, **options):
    model.compile("adam", **{"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], **options})
    return model


def test_losses_metrics_and_weights_equal_those_of_keras():
    inputs, dropped, outputs = graph()
    transparent = compiled(TransparentModel(inputs, outputs, observed_tensors=[dropped, inputs * 2]))
    inputs, _, outputs = graph()
    model = compiled(keras.Model(inputs, outputs))
    weights = np.linspace(0.1, 3, 12)
    for options in ({}, {"class_weight": {0: 1.0, 1: 3.0}}, {"sample_weight": weights}):
        keras.utils.set_random_seed(2)  # of dropout on torch, where all layers share a generator
        values = transparent.train_on_batch(X, Y, **options)
        keras.utils.set_random_seed(2)
        assert values[:2] == model.train_on_batch(X, Y, **options)
        assert all(isinstance(value, (np.ndarray, np.generic)) for value in values)
        np.testing.assert_array_equal(values[3], 2 * X)
    for a, b in zip(transparent.variables, model.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    values = transparent.test_on_batch(X, Y, sample_weight=weights)
    assert values[:2] == model.test_on_batch(X, Y, sample_weight=weights)
    np.testing.assert_array_equal(values[2], hidden_of(transparent).predict_on_batch(X))
    # Other methods are those of the wrapped model.
    assert transparent.fit(X, Y, verbose=0).history.keys() == {"loss", "accuracy"}


def hidden_of(transparent):
    return keras.Model(transparent.inputs[0], transparent.layers[-2].output)


def test_observed_values_come_from_the_forward_pass_of_the_training_step():
    inputs, dropped, outputs = graph()
    model = compiled(TransparentModel(inputs, outputs, [dropped, outputs]))
    kernel, bias = model.layers[-1].get_weights()
    loss, _, dropped_value, output_values = model.train_on_batch(X, Y)
    assert (dropped_value == 0).mean() > 0.3
    logits = dropped_value @ kernel + bias  # with the weights before the step
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(output_values, expected, rtol=1e-5)
    regularised = 0.01 * np.square(kernel).sum()
    assert loss == pytest.approx(-np.log(expected[np.arange(12), Y]).mean() + regularised, rel=1e-5)
    assert (model.train_on_batch(X, Y)[2] != dropped_value).any()


def test_the_loss_uses_masks_and_several_outputs():
    def build(cls, **observed):
        keras.utils.set_random_seed(4)
        inputs = keras.Input((3,), dtype="int32")
        embedded = layers.Embedding(5, 4, mask_zero=True)(inputs)
        tagged, counted = layers.Dense(2, "softmax")(embedded), layers.Dense(1)(embedded)
        model = cls(inputs, {"tag": tagged, "count": counted}, **{name: embedded for name in observed})
        return compiled(model, loss={"tag": "sparse_categorical_crossentropy", "count": "mse"}, metrics=None)

    x = np.array([[1, 2, 0], [3, 0, 0]])
    y = {"tag": np.array([[0, 1, 1], [1, 0, 0]]), "count": np.arange(6.0).reshape(2, 3, 1)}
    transparent = build(TransparentModel, observed_tensors=True)
    *results, values = transparent.train_on_batch(x, y)
    assert results == build(keras.Model).train_on_batch(x, y)
    assert values.shape == (2, 3, 4)


def test_a_single_value_is_not_returned_as_a_list():
    inputs, _, outputs = graph()
    model = compiled(TransparentModel(inputs, [outputs]), metrics=None)
    assert np.ndim(model.train_on_batch(X, Y)) == 0
    before = model.test_on_batch(X, Y)
    model.compile("adam", "mae")  # a new loss rebuilds the test function
    assert model.test_on_batch(X, keras.utils.to_categorical(Y, 3)) != before


def test_a_step_that_failed_leaves_the_model_as_it_was():
    def results(fails):
        inputs, dropped, outputs = graph()
        model = compiled(TransparentModel(inputs, outputs, dropped))
        if fails:
            with pytest.raises(ValueError, match="incompatible with the layer"):
                model.train_on_batch(np.ones((2, 3)), Y[:2])
        keras.utils.set_random_seed(2)  # of dropout on torch, where all layers share a generator
        return [*model.train_on_batch(X, Y), *model.test_on_batch(X, Y), model.predict(X, verbose=0)]

    for after_failure, usual in zip(results(True), results(False), strict=True):
        np.testing.assert_array_equal(after_failure, usual)


def test_observed_tensors_that_need_another_input_are_refused():
    inputs, _, outputs = graph()
    with pytest.raises(ValueError, match=r"computed from `inputs`\. Received: observed_tensors=<Keras"):
        TransparentModel(inputs, outputs, keras.Input((2,)) + 1)
