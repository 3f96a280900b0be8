"""The mean of the weighted gradient is the full gradient, on asymmetric data; the figures are those of the data."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from importance_sampling import ImportanceTraining

ROWS, BATCH, TIME = 48, 8, 5


def dense_case():
    rng = np.random.default_rng(2)
    x = rng.exponential(size=(ROWS, 4)).astype("float32")
    y = (x[:, 0] > 1.5).astype("int64")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, "relu"), layers.Dense(2, "softmax")])
    return model, "sparse_categorical_crossentropy", x, y


def masked_case():
    """Sequences whose length goes with their loss: long ones have one label, short ones all the others."""
    rng = np.random.default_rng(2)
    lengths = np.where(np.arange(ROWS) % 4 == 0, TIME, 1)
    tokens = np.where(np.arange(TIME) < lengths[:, None], rng.integers(1, 6, (ROWS, TIME)), 0)
    y = np.where(lengths[:, None] == TIME, 1, rng.integers(0, 3, (ROWS, TIME)))
    model = keras.Sequential(
        [keras.Input((TIME,), dtype="int32"), layers.Embedding(6, 4, mask_zero=True), layers.Dense(3, "softmax")]
    )
    return model, "sparse_categorical_crossentropy", tokens, y


class Steps(keras.callbacks.Callback):
    """Notes how far every step of SGD with a rate of 1 went, and goes back."""

    def on_train_begin(self, logs=None):
        self.weights = [v.value.numpy() for v in self.model.trainable_variables]
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        after = [v.value.numpy() for v in self.model.trainable_variables]
        self.steps.append(np.concatenate([(b - a).ravel() for b, a in zip(self.weights, after, strict=True)]))
        for variable, value in zip(self.model.trainable_variables, self.weights, strict=True):
            variable.assign(value)


def input_sum(model, x, y):
    return tf.reduce_sum(tf.cast(x, "float32"), axis=1)


@pytest.mark.parametrize(
    ("case", "score", "scheme"),
    [
        (dense_case, "gnorm", "systematic"),
        (dense_case, "gnorm", "multinomial"),
        (dense_case, "loss", "systematic"),
        (dense_case, input_sum, "systematic"),
        (dense_case, "full_gnorm", "systematic"),
        (masked_case, "gnorm", "systematic"),
        (masked_case, "loss", "multinomial"),
    ],
)
def test_the_mean_step_follows_the_full_gradient(case, score, scheme):
    keras.utils.set_random_seed(4)
    model, loss, x, y = case()
    model.compile(keras.optimizers.SGD(1.0), loss)
    with tf.GradientTape() as tape:
        y_pred = model(x, training=False)
        total = model.compute_loss(x, y, y_pred)
    full = np.concatenate(
        [np.ravel(tf.convert_to_tensor(g)) for g in tape.gradient(total, [v.value for v in model.trainable_variables])]
    )
    steps = Steps()
    trainer = ImportanceTraining(model, tau_th=0, score=score, resampling=scheme, seed=5)
    trainer.fit(x, y, batch_size=BATCH, epochs=250, verbose=0, callbacks=[steps])
    steps = np.array(steps.steps)
    assert len(steps) == 250 * ROWS // BATCH
    moves = steps.std(0) > 1e-9
    # Steps on pools of one pass are a little correlated, to the good: this error is at most too wide.
    error = steps.std(0) / np.sqrt(len(steps))
    off = np.abs(steps.mean(0) - full)[moves] / error[moves]
    # Masked, the valid entries of a pool vary, and Keras divides by them: a ratio, whose bias is of order 1/pool.
    slack = 0.05 * np.abs(full).max() if case is masked_case else 0
    assert (np.abs(steps.mean(0) - full)[moves] < 5 * error[moves] + slack).all(), off.max()
    cosine = steps.mean(0) @ full / np.linalg.norm(full) / np.linalg.norm(steps.mean(0))
    assert cosine > 0.98
    assert np.linalg.norm(steps.mean(0)) == pytest.approx(np.linalg.norm(full), rel=0.08)


class Largest(keras.metrics.Metric):
    """A figure that is no sum over samples."""

    def __init__(self):
        super().__init__(name="largest")
        self.value = self.add_weight(name="value", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.value.assign(keras.ops.maximum(self.value, keras.ops.max(y_pred)))

    def result(self):
        return self.value


def test_figures_are_what_evaluate_says_and_not_those_of_the_batch_trained_on():
    keras.utils.set_random_seed(4)
    model, loss, x, y = dense_case()
    model.compile(keras.optimizers.SGD(0.0), loss, metrics=["accuracy", Largest()], weighted_metrics=["accuracy"])
    weights = np.linspace(0.1, 3, ROWS)
    # 6 steps an epoch read 3 passes of 2 pools of 24 rows: every row three times.
    history = ImportanceTraining(model, tau_th=0, seed=1).fit(
        x, y, sample_weight=weights, batch_size=BATCH, epochs=2, verbose=0
    )
    said = model.evaluate(x, y, sample_weight=weights, batch_size=ROWS, verbose=0, return_dict=True)
    for key in ("loss", "accuracy", "weighted_accuracy"):
        assert history.history[key][-1] == pytest.approx(said[key], rel=1e-4), key
    assert 0 < history.history["largest"][-1] <= said["largest"] + 1e-6
