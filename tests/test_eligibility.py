"""Which models can be importance-sampled, and with how many rows they can be called."""

import warnings

import keras
import numpy as np
import pytest
from frameworks import lacks
from keras import layers

from importance_sampling import ImportanceTraining
from importance_sampling.core import eligibility
from importance_sampling.utils.errors import Unsupported

X = np.random.default_rng(0).normal(size=(96, 4)).astype("float32")
Y = X[:, :3].argmax(1)


@pytest.mark.parametrize("options", [dict(tau_th=0), dict(tau_th=0, sampler="reshuffle")])
def test_a_frozen_model_that_is_built_by_fit_has_nothing_to_train(options):
    losses = []
    for wrap in (lambda model: model, lambda model: ImportanceTraining(model, **options)):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([layers.Dense(3, "softmax")])
        model.trainable = False
        model.compile("adam", "sparse_categorical_crossentropy")
        trainer = wrap(model)
        with warnings.catch_warnings(record=True) as captured:
            warnings.simplefilter("always")
            losses.append(trainer.fit(X, Y, batch_size=16, epochs=2, verbose=0).history["loss"])
        said = [str(warning.message) for warning in captured]
        is_named = any("any trainable weights" in message for message in said)  # Keras's own
        assert is_named or lacks("warnings of frozen models")
    assert any("stays off" in message for message in said)
    assert trainer.importance_steps == 0 and "it has no trainable weights" in trainer.summary()
    assert losses[0] == losses[1]


# Rows that depend on each other


def compiled(call, loss="mse"):
    """A model of one layer without weights that computes `call`, built on four rows."""
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2, use_bias=False), layers.Lambda(call)])
    model.compile("sgd", loss)
    return model


def quantities(model):
    """What `check_rows` compares, for a mean squared error."""

    def score(batch):
        x, y, _ = batch
        outputs = model(x, training=False)
        return {"outputs": [outputs], "losses": [keras.ops.mean(keras.ops.square(y - outputs), axis=-1)]}

    return score


BATCH = (
    keras.ops.convert_to_tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 4.0], [2.0, 2.5]]),
    keras.ops.convert_to_tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [0.0, 3.0]]),
    None,
)


@pytest.mark.parametrize(
    "call",
    [
        lambda z: z - keras.ops.mean(z, axis=0, keepdims=True),
        lambda z: keras.ops.softmax(z, axis=0),
        lambda z: keras.ops.matmul(keras.ops.matmul(z, keras.ops.transpose(z)), z),
        lambda z: keras.ops.flip(z, axis=0),
    ],
    ids=["centred", "softmax over the batch", "attention over the batch", "reversed"],
)
def test_an_output_that_depends_on_other_rows_is_named(call):
    with pytest.raises(Unsupported, match="outputs of a row depend on the other rows"):
        eligibility.check_rows(quantities(compiled(call)), BATCH)


@pytest.mark.parametrize(
    "call",
    [
        lambda z: z,
        lambda z: z - keras.ops.mean(z, axis=1, keepdims=True),
        lambda z: z + keras.ops.reshape(keras.ops.arange(8.0), (4, 2)),
        lambda z: z * 0.0,
    ],
    ids=["identity", "centred by row", "by position", "constant"],
)
def test_an_output_of_its_own_row_alone_passes(call):
    eligibility.check_rows(quantities(compiled(call)), BATCH)


def test_a_loss_that_depends_on_other_rows_is_named_though_outputs_do_not():
    def score(batch):
        x, y, _ = batch
        losses = keras.ops.mean(keras.ops.square(y - x), axis=-1)
        return {"outputs": [x], "losses": [losses / keras.ops.sum(losses)]}

    with pytest.raises(Unsupported, match="losses of a row depend on the other rows"):
        eligibility.check_rows(score, BATCH)


def test_random_numbers_that_cannot_be_repeated_are_not_taken_for_other_rows():
    rng = np.random.default_rng(0)

    def score(batch):
        noise = keras.ops.convert_to_tensor(rng.normal(size=(4, 1)).astype("float32"))
        return {"outputs": [batch[0] + noise]}

    eligibility.check_rows(score, BATCH)


def test_not_a_number_in_a_row_is_not_taken_for_other_rows():
    x = np.array([[np.nan, 2.0], [3.0, -1.0], [0.5, np.inf], [2.0, 2.5]], "float32")
    eligibility.check_rows(lambda batch: {"outputs": [batch[0]]}, (keras.ops.convert_to_tensor(x), None, None))


def test_a_batch_of_one_row_depends_on_no_other():
    one = (keras.ops.convert_to_tensor([[1.0, 2.0]]), keras.ops.convert_to_tensor([[0.0, 0.0]]), None)
    eligibility.check_rows(quantities(compiled(lambda z: keras.ops.softmax(z, axis=0))), one)


# Numbers of rows


@pytest.mark.parametrize(
    "call, rows, expected",
    [
        (lambda z: z, 7, True),
        (lambda z: z + keras.ops.ones((4, 2)), 7, False),  # an error
        (lambda z: z + keras.ops.ones((4, 2)), 1, False),  # broadcast to four rows
        (lambda z: z + keras.ops.ones((4, 2)), 4, True),
        (lambda z: keras.ops.reshape(z, (4, -1))[:, :2], 8, False),  # two rows in one
    ],
    ids=["open", "another size", "one row", "the same size", "reshaped"],
)
def test_a_model_accepts_a_number_of_rows_if_it_returns_as_many(call, rows, expected):
    assert eligibility.accepts(compiled(call), BATCH, rows) is expected


# Terms of the loss


class Encoder(keras.Model):
    """Keeps a code as an attribute, as variational autoencoders do, and adds a term of it to the compiled loss."""

    def __init__(self, term, **options):
        super().__init__()
        self.encode = layers.Dense(3, **options)
        self.decode = layers.Dense(2)
        self.term = term

    def call(self, x):
        self.code = self.encode(x)
        return self.decode(self.code)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        return loss + self.term(self)


def encoder(term, **options):
    model = Encoder(term, **options)
    model.compile("sgd", "mse")
    eligibility.build(model, BATCH)
    return model


@pytest.mark.parametrize(
    "term", [lambda model: keras.ops.mean(model.code**2), lambda model: keras.ops.max(model.code)], ids=["mean", "max"]
)
def test_a_term_of_a_hidden_layer_without_sample_weights_is_found(term):
    with pytest.raises(Unsupported, match="adds a term to the compiled loss that depends on the data"):
        eligibility.check_loss(encoder(term), BATCH)


@pytest.mark.parametrize("regulariser", [None, "l2"])
def test_a_constant_added_to_the_loss_and_weight_regularisers_are_no_terms_of_the_data(regulariser):
    eligibility.check_loss(encoder(lambda model: 3.0, kernel_regularizer=regulariser), BATCH)
