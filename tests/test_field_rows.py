"""Programs from bug reports whose losses are of other rows, or depend on them: what every way makes of them."""

import keras
import numpy as np
import pytest
from field import ON, OPEN, classifier, table
from frameworks import HAS_TENSORFLOW, masked, needs, tf
from keras import layers, ops
from ways import DEFAULT, POOLS, Setup, assert_plainly, assert_sampled, plainly, train

# Another number of rows than the batch


def unlabelled_pixels():
    """One loss per valid pixel: those labelled 255 don't count."""

    def loss(y, p):
        valid = ops.not_equal(y, 255)
        return keras.losses.sparse_categorical_crossentropy(masked(y, valid), masked(p, valid))

    rng = np.random.default_rng(0)
    x = rng.normal(size=(96, 8, 8, 3)).astype("float32")
    y = (x[..., 0] > 0).astype("int32")
    y[rng.random(y.shape) < 0.1] = 255
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 1, activation="softmax")])
    model.compile("sgd", loss)
    return Setup(model, dict(x=x, y=y, batch_size=16, epochs=2))


def a_row_per_word():
    """Outputs of shape (batch * 6, 9)."""
    x = np.random.default_rng(0).integers(0, 9, (96, 6))
    flatten = layers.Lambda(lambda t: ops.reshape(t, (-1, 8)), output_shape=(8,))
    model = keras.Sequential([keras.Input((6,), dtype="int32"), layers.Embedding(9, 8), flatten, layers.Dense(9)])
    cross_entropy = keras.losses.sparse_categorical_crossentropy
    model.compile("sgd", lambda y, p: cross_entropy(ops.reshape(y, (-1,)), p, from_logits=True))
    return Setup(model, dict(x=x, y=(x + 1) % 9, batch_size=16, epochs=2))


def a_row_per_word_and_loss_per_sentence():
    """Outputs of shape (batch * 6, 9), losses of shape (batch,)."""
    setup = a_row_per_word()
    cross_entropy = keras.losses.sparse_categorical_crossentropy

    def loss(y, p):
        return ops.mean(cross_entropy(y, ops.reshape(p, (-1, 6, 9)), from_logits=True), axis=-1)

    setup.model.compile("sgd", loss)
    return setup


@ON
@pytest.mark.parametrize(
    "build", [pytest.param(unlabelled_pixels, marks=needs("shapes that depend on values")), a_row_per_word]
)
def test_losses_of_another_number_of_rows_train_as_fit_does_after_one_warning(build, way):
    assert_plainly(plainly(build), train(build, way))


@OPEN
def test_outputs_of_another_number_of_rows_are_sampled_by_their_losses_or_train_as_fit_does(way):
    plain, run = plainly(a_row_per_word_and_loss_per_sentence), train(a_row_per_word_and_loss_per_sentence, way)
    (assert_sampled if run.trainer.importance_steps else assert_plainly)(plain, run)


# Rows that depend on other rows


class Towers(keras.Model):
    """Logits of every user against every item of the batch."""

    def __init__(self):
        super().__init__()
        self.users, self.items = layers.Dense(8), layers.Dense(8)

    def call(self, x):
        return ops.matmul(self.users(x["u"]), ops.transpose(self.items(x["i"])))


class Pairs(keras.utils.PyDataset):
    """Batches of 16 users and items, with the same targets each."""

    def __init__(self, users, items, targets):
        super().__init__()
        self.users, self.items, self.targets = users, items, targets

    def __len__(self):
        return len(self.users) // 16

    def __getitem__(self, index):
        rows = slice(16 * index, 16 * index + 16)
        return {"u": self.users[rows], "i": self.items[rows]}, self.targets


def in_batch_negatives(targets, loss, epochs=3):
    rng = np.random.default_rng(0)
    u = rng.normal(size=(160, 5)).astype("float32")
    i = u + 0.1 * rng.normal(size=u.shape).astype("float32")
    if HAS_TENSORFLOW:
        data = tf.data.Dataset.from_tensor_slices({"u": u, "i": i}).batch(16, drop_remainder=True)
        data = data.map(lambda x: (x, targets))
    else:
        data = Pairs(u, i, targets)
    model = Towers()
    model.compile(keras.optimizers.Adam(1e-2), loss)
    return Setup(model, dict(x=data, epochs=epochs))


def one_hot_negatives():
    return in_batch_negatives(np.eye(16, dtype="float32"), keras.losses.CategoricalCrossentropy(from_logits=True))


def numbered_negatives():
    return in_batch_negatives(
        np.arange(16, dtype="int32"), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )


def contrastive():
    """One loss per sample, each of the whole batch."""

    def loss(y, z):
        z = z / ops.norm(z, axis=1, keepdims=True)
        n = ops.shape(z)[0]
        similarity = ops.matmul(z, ops.transpose(z)) / 0.5 - 1e9 * ops.eye(n)
        same = ops.cast(ops.equal(ops.reshape(y, (-1, 1)), ops.reshape(y, (1, -1))), "float32") * (1 - ops.eye(n))
        gains = same * (similarity - ops.logsumexp(similarity, axis=1, keepdims=True))
        return -ops.sum(gains, 1) / ops.maximum(ops.sum(same, 1), 1.0)

    x, y = table(160)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(8)])
    model.compile("sgd", loss)
    return Setup(model, dict(x=x, y=y, batch_size=16, epochs=2))


def ranked_within_the_batch():
    """Outputs that are a softmax over the rows."""
    x, y = table(160)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(1), layers.Lambda(lambda t: ops.softmax(t, axis=0))])
    model.compile("sgd", "mse")
    return Setup(model, dict(x=x, y=(y == 1) / 5, batch_size=16, epochs=2))


def standardised_losses():
    """Losses that are divided by the spread of their batch."""
    x, y = table(160)

    def loss(y_true, y_pred):
        losses = keras.losses.sparse_categorical_crossentropy(y_true, y_pred)
        return losses / (ops.stop_gradient(ops.std(losses)) + 0.1)

    model = classifier()
    model.compile("sgd", loss)
    return Setup(model, dict(x=x, y=y, batch_size=16, epochs=2))


@pytest.mark.parametrize("way", [DEFAULT, POOLS], ids=["default", "pools"])
@pytest.mark.parametrize("build", [one_hot_negatives, numbered_negatives])
def test_negatives_from_the_batch_train_as_fit_does_after_one_warning(build, way):
    assert_plainly(plainly(build), train(build, way))


@ON
@pytest.mark.parametrize("build", [contrastive, ranked_within_the_batch, standardised_losses])
def test_rows_that_depend_on_other_rows_train_as_fit_does_after_one_warning(build, way):
    assert_plainly(plainly(build), train(build, way))
