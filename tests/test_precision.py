"""Scores in bfloat16: close to those in float32, and nothing of it is left."""

import keras
import numpy as np
import pytest
from keras import layers

from importance_sampling.pre_activations import PreActivations
from importance_sampling.precision import computing_in
from importance_sampling.scores import Scorer
from importance_sampling.training import ImportanceTraining

rng = np.random.default_rng(3)
X = rng.normal(size=(64, 6)).astype("float32")
Y = np.abs(X[:, :3]).argmax(1)


def build(policy="float32"):
    inputs = keras.Input((6,))
    hidden = layers.Dense(16, "relu", dtype=policy)(inputs)
    hidden = layers.BatchNormalization()(hidden)
    model = keras.Model(inputs, layers.Dense(3, "softmax")(hidden))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def scored(model, dtype, score="gnorm"):
    model.evaluate(X, Y, verbose=0)  # builds the compiled loss
    scorer = Scorer(model, score, PreActivations(model), dtype=dtype)
    return np.asarray(scorer((keras.ops.convert_to_tensor(X), keras.ops.convert_to_tensor(Y), None)).scores)


@pytest.mark.parametrize("score", ["gnorm", "loss"])
def test_scores_in_bfloat16_are_those_in_float32_but_for_rounding(score):
    model = build()
    exact, short = scored(model, None, score), scored(model, "bfloat16", score)
    assert short.dtype == "float32"
    # Eight bits: each of a few roundings is off by up to 0.4 %.
    np.testing.assert_allclose(short, exact, rtol=0.05)
    assert (short != exact).any()


def test_layers_compute_in_it_inside_and_have_their_own_type_afterwards():
    model = build()
    policies = [layer.dtype_policy for layer in model._flatten_layers()]
    with computing_in(model, "bfloat16"):
        assert keras.backend.standardize_dtype(model(X).dtype) == "bfloat16"
        assert {weight.dtype for weight in model.weights} == {"float32"}
    assert keras.backend.standardize_dtype(model(X).dtype) == "float32"
    assert [layer.dtype_policy for layer in model._flatten_layers()] == policies
    with pytest.raises(RuntimeError, match="on purpose"), computing_in(model, "bfloat16"):
        raise RuntimeError("on purpose")
    assert [layer.dtype_policy for layer in model._flatten_layers()] == policies


def test_layers_that_have_a_policy_of_their_own_keep_it():
    model = build("mixed_float16")
    with computing_in(model, "bfloat16"):
        assert model.layers[1].compute_dtype == "float16" and model.layers[2].compute_dtype == "bfloat16"


@pytest.mark.parametrize("sampler", ["pool", "reshuffle"])
def test_training_by_them_stays_in_the_models_own_type_and_costs_less(sampler):
    costs = []
    for dtype in (None, "bfloat16"):
        keras.utils.set_random_seed(3)
        model = build()
        trainer = ImportanceTraining(model, sampler=sampler, tau_th=0, score_dtype=dtype, seed=1)
        history = trainer.fit(X, Y, batch_size=8, epochs=30, verbose=0).history
        assert history["loss"][-1] < 0.6 * history["loss"][0] and set(history["importance"]) == {1.0}
        assert all(layer.dtype_policy.name == "float32" for layer in model._flatten_layers())
        costs.append(trainer.forward_equivalents)
    steps = 240
    # 3 pools a step, or a pass over the rows an epoch, which has a batch's worth of each step.
    scored_batches = {"pool": 3, "reshuffle": 1}[sampler]
    assert costs == [pytest.approx(steps * (3 + scored_batches)), pytest.approx(steps * (3 + 0.6 * scored_batches))]


def test_another_type_is_refused():
    with pytest.raises(ValueError, match="`score_dtype` must be \"bfloat16\", or None.* Received: score_dtype='int8'"):
        ImportanceTraining(build(), score_dtype="int8")
