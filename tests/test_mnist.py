"""The claims that are made on real data: the gate opens, the loss falls faster, hard digits are drawn more often."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest

from importance_sampling import ImportanceTraining
from importance_sampling.models import lr
from importance_sampling.training import SVRG

FILE = Path(os.environ.get("KIS_MNIST") or Path(__file__).parents[2] / "shared" / "data" / "mnist.npz")

pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"needs MNIST; looked for {FILE}, or set KIS_MNIST")

ROWS, BATCH, EPOCHS = 10000, 128, 6


@pytest.fixture(scope="module")
def digits():
    with np.load(FILE) as data:
        x = data["x_train"][:ROWS].reshape(-1, 784).astype("float32") / 255
        return x, keras.utils.to_categorical(data["y_train"][:ROWS])


def perceptron(units=512):
    model = keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


def test_after_six_epochs_the_training_loss_is_at_most_half_of_that_of_uniform_training(digits):
    x, y = digits
    losses = {}
    for way in ("plain", "importance"):
        keras.utils.set_random_seed(1)
        model = perceptron()
        trainer = model if way == "plain" else ImportanceTraining(model)
        history = trainer.fit(x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0)
        losses[way] = model.evaluate(x, y, batch_size=1000, verbose=0)[0]
        assert int(model.optimizer.iterations.value) == EPOCHS * -(-ROWS // BATCH)
    assert max(history.history["importance"][:3]) > 0, "the gate did not open within three epochs"
    assert losses["importance"] <= 0.5 * losses["plain"], losses


class Followed(keras.callbacks.Callback):
    """Notes what every step of SGD with a rate of 1 added to the last layers, and takes it back."""

    def on_train_begin(self, logs=None):
        self.start, self.steps = self.model.get_weights(), []

    def on_train_batch_end(self, batch, logs=None):
        after = self.model.get_weights()
        # Dense kernels and biases; dropout's seeds go on.
        self.steps.append(np.concatenate([(a - b).ravel()[::7] for a, b in zip(after, self.start, strict=True)]))
        for variable, value in zip(self.model.trainable_variables, self.start, strict=True):
            variable.assign(value)


@pytest.fixture(scope="module")
def after_five_epochs(digits):
    """The rows, and the model's weights after plain training on them."""
    x, y = (part[:6400] for part in digits)
    keras.utils.set_random_seed(1)
    model = perceptron(256)
    model.fit(x, y, batch_size=128, epochs=5, verbose=0)
    return x, y, model.get_weights()


def test_with_dropout_after_five_epochs_the_gradient_varies_less_than_a_uniform_one(after_five_epochs):
    x, y, weights = after_five_epochs
    model = perceptron(256)
    model.set_weights(weights)
    model.compile(keras.optimizers.SGD(1.0), "categorical_crossentropy")
    variance = {}
    for way in ("plain", "importance"):
        followed = Followed()
        trainer = model if way == "plain" else ImportanceTraining(model, tau_th=0, seed=1)
        trainer.fit(x, y, batch_size=128, epochs=3, verbose=0, callbacks=[followed])
        variance[way] = np.var(followed.steps, axis=0).sum()
    assert variance["importance"] < 0.7 * variance["plain"], variance


def test_rows_of_a_high_score_are_drawn_more_often(after_five_epochs):
    x, y, weights = after_five_epochs
    model = perceptron(256)
    model.set_weights(weights)
    frozen = model.get_weights()
    model.compile(keras.optimizers.SGD(0.0), "categorical_crossentropy")
    drawn = np.zeros(len(x))

    def count(sampler, indices, weights, scores):
        np.add.at(drawn, indices, 1)

    ImportanceTraining(model, tau_th=0, seed=1).fit(x, y, batch_size=128, epochs=6, verbose=0, on_sample=count)
    for before, after in zip(frozen, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    # With softmax and cross-entropy the score is |p - y|.
    scores = np.linalg.norm(model.predict(x, batch_size=1000, verbose=0) - y, axis=1)
    # A row stands in 3 pools of 384 an epoch, 18 in all; expected draws of it follow 0.9 s/mean(s) + 0.1 closely.
    assert drawn.sum() == 6 * 50 * 128
    assert np.corrcoef(drawn, scores)[0, 1] > 0.9


def test_svrg_on_a_logistic_regression_is_below_sgd_at_the_same_step_from_the_same_weights(digits):
    x, y = (part[:1000] for part in digits)
    losses = {}
    for way in ("sgd", "svrg"):
        keras.utils.set_random_seed(1)
        model = lr((784,), 10)
        model.optimizer.learning_rate = 0.3
        trainer = model if way == "sgd" else SVRG(model, B=0, B_over_b=100)
        trainer.fit(x, y, batch_size=10, epochs=10, verbose=0)
        assert int(model.optimizer.iterations.value) == 1000
        losses[way] = model.evaluate(x, y, batch_size=1000, verbose=0)[0]
    assert losses["svrg"] < 0.97 * losses["sgd"], losses
