"""Every backend computes the scores that TensorFlow computed from the same weights.

The scores of TensorFlow are in `tests/data/scores_of_tensorflow.json`. To write the file anew:

    KERAS_BACKEND=tensorflow python tests/test_scores_across_backends.py
"""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.core.logits import Logits
from importance_sampling.core.scoring import NAMES, Scorer

FILE = Path(__file__).parent / "data" / "scores_of_tensorflow.json"
ROWS, TIME = 8, 5


def normal(seed, *shape):
    """Return numbers that every version of NumPy draws: `RandomState` is frozen."""
    return np.random.RandomState(seed).normal(size=shape).astype("float32")


def classes(seed, *shape):
    return np.random.RandomState(seed).randint(0, 3, shape)


def mlp():
    stack = [layers.Dense(6, "relu", kernel_regularizer="l2"), layers.BatchNormalization(), layers.Dropout(0.5)]
    model = keras.Sequential([keras.Input((4,)), *stack, layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model, (normal(1, ROWS, 4), classes(2, ROWS), None)


def convolutional():
    stack = [layers.Conv2D(3, 3, activation="relu"), layers.MaxPooling2D(), layers.Conv2D(2, 2, padding="same")]
    model = keras.Sequential([keras.Input((8, 8, 2)), *stack, layers.Flatten(), layers.Dense(3)])
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1))
    return model, (normal(3, ROWS, 8, 8, 2), np.eye(3, dtype="float32")[classes(4, ROWS)], None)


def masked_lstm():
    words = keras.Input((TIME,), dtype="int32")
    hidden = layers.LSTM(4, return_sequences=True)(layers.Embedding(7, 3, mask_zero=True)(words))
    model = keras.Model(words, layers.Dense(3, "softmax")(hidden))
    model.compile("sgd", "sparse_categorical_crossentropy")
    lengths = 1 + np.arange(ROWS) % TIME
    x = (1 + np.random.RandomState(5).randint(0, 6, (ROWS, TIME))) * (np.arange(TIME) < lengths[:, None])
    return model, (x, classes(6, ROWS, TIME), None)


def two_outputs():
    inputs = keras.Input((4,))
    hidden = layers.Dense(5, "tanh")(inputs)
    model = keras.Model(inputs, [layers.Dense(3, "softmax", name="a")(hidden), layers.Dense(2, name="b")(hidden)])
    model.compile("sgd", ["sparse_categorical_crossentropy", "mse"], loss_weights=[1.0, 0.25])
    weights = np.linspace(0.2, 2, ROWS).astype("float32")
    return model, (normal(7, ROWS, 4), [classes(8, ROWS), normal(9, ROWS, 2)], [weights, weights[::-1].copy()])


MODELS = {make.__name__: make for make in (mlp, convolutional, masked_lstm, two_outputs)}


def scores_of(name):
    """Return the scores of the rows of a model, by the name of the score."""
    model, data = MODELS[name]()
    data = keras.tree.map_structure(lambda array: None if array is None else ops.convert_to_tensor(array), data)
    keras_internals.build_on_batch(model, data)
    for number, variable in enumerate(model.variables):
        if variable.dtype == "float32":  # not the states of random layers
            value = 0.5 * normal(10 + number, *variable.shape)
            variable.assign(np.abs(value) + 0.5 if "variance" in variable.path else value)
    scores = {}
    for score in NAMES:
        scorer = Scorer(model, score, Logits(model))
        step = backend.compile_step(lambda *batch, scorer=scorer: scorer(batch).scores, model)
        scores[score] = ops.convert_to_numpy(step(*data))
    return scores


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_that_tensorflow_computed_from_the_same_weights(name):
    expected = json.loads(FILE.read_text(encoding="utf-8"))[name]
    scores = scores_of(name)
    assert set(scores) == set(expected) == set(NAMES)
    for score, values in scores.items():
        assert np.std(values) > 0.05 * np.mean(values), score  # rows that can't be told apart would prove nothing
        np.testing.assert_allclose(values, expected[score], rtol=1e-5, err_msg=score)


def main():
    """Write the scores that this backend computes."""
    scores = {
        name: {score: [float(f"{value:.9g}") for value in values] for score, values in scores_of(name).items()}
        for name in MODELS
    }
    FILE.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
