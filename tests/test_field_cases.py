"""Programs from bug reports that `model.fit` survives, by value: what every way to train must make of them."""

import keras
import numpy as np
import pytest
from frameworks import tf
from keras import layers, ops
from situations import policy
from ways import (
    DEFAULT,
    OFF,
    POOLS,
    ROWS,
    WAYS,
    Setup,
    added,
    assert_off,
    assert_plainly,
    assert_sampled,
    assert_trained_alike,
    plainly,
    train,
)

from importance_sampling import ImportanceTraining

ON = pytest.mark.parametrize("way", [DEFAULT, POOLS, ROWS], ids=["default", "pools", "rows"])
OPEN = pytest.mark.parametrize("way", [POOLS, ROWS], ids=["pools", "rows"])


def table(rows, threshold=None):
    x = np.random.default_rng(0).normal(size=(rows, 8)).astype("float32")
    return x, x[:, :3].argmax(1) if threshold is None else (x[:, 0] > threshold).astype("int64")


def classifier(*more, classes=3):
    return keras.Sequential([keras.Input((8,)), *more, layers.Dense(classes, activation="softmax")])


# Another number of rows than the batch


def unlabelled_pixels():
    """One loss per valid pixel: those labelled 255 don't count."""

    def loss(y, p):
        valid = tf.not_equal(y, 255)
        return keras.losses.sparse_categorical_crossentropy(tf.boolean_mask(y, valid), tf.boolean_mask(p, valid))

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
@pytest.mark.parametrize("build", [unlabelled_pixels, a_row_per_word])
def test_losses_of_another_number_of_rows_train_as_fit_does_after_one_warning(build, way):
    assert_plainly(plainly(build), train(build, way))


@OPEN
def test_outputs_of_another_number_of_rows_are_sampled_by_their_losses_or_train_as_fit_does(way):
    plain, run = plainly(a_row_per_word_and_loss_per_sentence), train(a_row_per_word_and_loss_per_sentence, way)
    (assert_sampled if run.trainer.importance_steps else assert_plainly)(plain, run)


# A batch size written into a layer


class Noise(layers.Layer):
    """Adds noise for 32 rows."""

    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, z):
        return z + 0.01 * keras.random.normal((32, 16), seed=self.seeds)


def batch_size_in_a_layer(epochs=2, stream=False, rows=1600):
    x, y = table(rows, 2.0)
    model = classifier(layers.Dense(16, activation="relu"), Noise(), classes=2)
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(32, drop_remainder=True)
    arguments = dict(x=data) if stream else dict(x=x, y=y, batch_size=32)
    return Setup(model, dict(arguments, epochs=epochs))


def test_a_batch_size_in_a_layer_outlives_the_opening_of_the_default_gate():
    plain, run = (train(lambda: batch_size_in_a_layer(8), way) for way in (None, DEFAULT))
    assert_sampled(plain, run)
    assert run.evaluate() <= 1.5 * plain.evaluate() + 0.05


@OPEN
def test_arrays_are_sampled_in_batches_of_the_size_that_a_layer_takes(way):
    plain, run = plainly(batch_size_in_a_layer), train(batch_size_in_a_layer, way)
    assert_sampled(plain, run)
    assert run.evaluate() <= 1.5 * plain.evaluate() + 0.05


@pytest.mark.parametrize("way", [DEFAULT, POOLS], ids=["default", "pools"])
def test_streams_train_with_a_batch_size_in_a_layer(way):
    plain, run = plainly(batch_size_in_a_layer, 2, True), train(lambda: batch_size_in_a_layer(2, True), way)
    assert len(added(plain, run)) <= 1
    if run.trainer.importance_steps:
        assert_sampled(plain, run)
    else:
        assert_trained_alike(plain, run)


@pytest.mark.parametrize("way", [OFF, dict(tau_th=1e9)], ids=["off", "closed"])
def test_a_short_last_batch_that_a_layer_refuses_is_an_error_of_the_same_kind(way):
    plain, run = (train(lambda: batch_size_in_a_layer(rows=170), one, raises=False) for one in (None, way))
    assert type(run.error) is type(plain.error) is not type(None)


# float64, and the other policies


@pytest.fixture
def float64():
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")


def rare_class(epochs=2, rows=640, threshold=1.5, optimizer=None):
    x, y = table(rows, threshold)
    model = classifier(layers.Dense(16, activation="relu"), classes=2)
    model.compile(optimizer or keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    return Setup(model, dict(x=x.astype(keras.config.floatx()), y=y, batch_size=32, epochs=epochs))


def test_the_default_gate_opens_in_float64(float64):
    plain, run = (train(lambda: rare_class(6, 3200, 2.5), way) for way in (None, DEFAULT))
    assert_sampled(plain, run)
    assert {str(variable.dtype) for variable in run.model.trainable_variables} == {"float64"}
    assert run.evaluate() <= plain.evaluate() + 0.02


@pytest.mark.parametrize("way", [OFF, POOLS, ROWS], ids=["off", "pools", "rows"])
def test_every_way_trains_in_float64(float64, way):
    plain, run = plainly(rare_class), train(rare_class, way)
    (assert_off if way is OFF else assert_sampled)(plain, run)


def under(name):
    with policy(name):
        return rare_class(optimizer=keras.optimizers.SGD(0.01))


POLICIES = ["float64", "float32", "bfloat16", "float16", "mixed_float16", "mixed_bfloat16"]


@pytest.mark.parametrize("way", [OFF, POOLS, ROWS], ids=["off", "pools", "rows"])
@pytest.mark.parametrize("name", POLICIES)
def test_every_way_trains_under_every_dtype_policy(name, way):
    plain, run = plainly(under, name), train(lambda: under(name), way)
    (assert_off if way is OFF else assert_sampled)(plain, run)


# Text inside the model


TEXTS = ["rank 0", "rank 1", "stream"]


def texts(kind):
    """A model that splits its texts into words: its layer has no static batch dimension."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(50)])
    text = np.array([" ".join(rng.choice(words, 8)) for _ in range(320)])
    y = np.array(["w1 " in one or "w2 " in one for one in text], "float32")
    vectorize = layers.TextVectorization(60, output_sequence_length=8)
    vectorize.adapt(text)
    inputs = keras.Input((1,) if kind == "rank 1" else (), dtype="string")
    h = layers.GlobalAveragePooling1D()(layers.Embedding(60, 8)(vectorize(inputs)))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(h))
    model.compile("adam", "binary_crossentropy")
    data = {
        "rank 0": dict(x=tf.constant(text), y=y),
        "rank 1": dict(x=tf.constant(text[:, None]), y=y),
        "stream": dict(x=tf.data.Dataset.from_tensor_slices((text, y)).batch(32)),
    }[kind]
    return Setup(model, dict(data, epochs=2))


@pytest.mark.parametrize(
    ("kind", "way"),
    [(kind, way) for kind in TEXTS for way in (POOLS, ROWS) if (kind, way) != ("stream", ROWS)],
    ids=lambda value: value if isinstance(value, str) else value.get("sampler", "pool"),
)
def test_texts_inside_a_model_are_importance_sampled(kind, way):
    plain, run = plainly(texts, kind), train(lambda: texts(kind), way)
    assert_sampled(plain, run)
    assert min(run.history["importance"]) > 0


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_inside_a_model_are_probed_by_the_default_gate(kind):
    plain, run = plainly(texts, kind), train(lambda: texts(kind), DEFAULT)
    assert added(plain, run) == []
    assert np.isfinite(run.history["tau"]).all()


# Rows that depend on other rows


class Towers(keras.Model):
    """Logits of every user against every item of the batch."""

    def __init__(self):
        super().__init__()
        self.users, self.items = layers.Dense(8), layers.Dense(8)

    def call(self, x):
        return ops.matmul(self.users(x["u"]), ops.transpose(self.items(x["i"])))


def in_batch_negatives(targets, loss, epochs=3):
    rng = np.random.default_rng(0)
    u = rng.normal(size=(160, 5)).astype("float32")
    i = u + 0.1 * rng.normal(size=u.shape).astype("float32")
    data = tf.data.Dataset.from_tensor_slices({"u": u, "i": i}).batch(16, drop_remainder=True)
    model = Towers()
    model.compile(keras.optimizers.Adam(1e-2), loss)
    return Setup(model, dict(x=data.map(lambda x: (x, targets)), epochs=epochs))


def one_hot_negatives():
    return in_batch_negatives(tf.eye(16), keras.losses.CategoricalCrossentropy(from_logits=True))


def numbered_negatives():
    return in_batch_negatives(tf.range(16), keras.losses.SparseCategoricalCrossentropy(from_logits=True))


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
    model.compile("adam", loss)
    return Setup(model, dict(x=x, y=y, batch_size=16, epochs=2))


def ranked_within_the_batch():
    """Outputs that are a softmax over the rows."""
    x, y = table(160)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(1), layers.Lambda(lambda t: ops.softmax(t, axis=0))])
    model.compile("adam", "mse")
    return Setup(model, dict(x=x, y=(y == 1) / 5, batch_size=16, epochs=2))


def standardised_losses():
    """Losses that are divided by the spread of their batch."""
    x, y = table(160)

    def loss(y_true, y_pred):
        losses = keras.losses.sparse_categorical_crossentropy(y_true, y_pred)
        return losses / (ops.stop_gradient(ops.std(losses)) + 0.1)

    model = classifier()
    model.compile("adam", loss)
    return Setup(model, dict(x=x, y=y, batch_size=16, epochs=2))


@pytest.mark.parametrize("way", [DEFAULT, POOLS], ids=["default", "pools"])
@pytest.mark.parametrize("build", [one_hot_negatives, numbered_negatives])
def test_negatives_from_the_batch_train_as_fit_does_after_one_warning(build, way):
    assert_plainly(plainly(build), train(build, way))


@ON
@pytest.mark.parametrize("build", [contrastive, ranked_within_the_batch, standardised_losses])
def test_rows_that_depend_on_other_rows_train_as_fit_does_after_one_warning(build, way):
    assert_plainly(plainly(build), train(build, way))


# A short batch that comes first


class ShortFirst(keras.utils.PyDataset):
    """Five rows, and then ten batches of 16."""

    def __init__(self):
        super().__init__()
        self.x, self.y = table(165)

    def __len__(self):
        return 11

    def __getitem__(self, index):
        rows = slice(max(16 * index - 11, 0), 16 * index + 5)
        return self.x[rows], self.y[rows]


def short_first_dataset():
    data = ShortFirst()
    return tf.data.Dataset.from_generator(
        lambda: (data[index] for index in range(len(data))),
        output_signature=(tf.TensorSpec((None, 8), "float32"), tf.TensorSpec((None,), "int64")),
    ).apply(tf.data.experimental.assert_cardinality(11))


@pytest.mark.parametrize("make", [ShortFirst, short_first_dataset])
@pytest.mark.parametrize("threshold", [0.0, 1e9], ids=["open", "closed"])
def test_a_short_batch_that_comes_first_leaves_steps_and_probes_their_usual_size(make, threshold):
    keras.utils.set_random_seed(1)
    model = classifier()
    model.compile("sgd", "sparse_categorical_crossentropy")
    steps, scored = [], []
    ImportanceTraining(model, tau_th=threshold).fit(
        make(),
        epochs=3,
        verbose=0,
        shuffle=False,
        on_sample=lambda sampler, indices, weights, scores: steps.append(len(indices)),
        on_scores=lambda sampler, scores: scored.append(len(scores)),
    )
    assert len(steps) == 33
    if threshold == 0:
        for epoch in range(3):
            assert set(steps[11 * epoch : 11 * epoch + 10]) == {16}, steps
    assert scored and min(scored) >= 16, scored


# Interrupted


class Interrupting(keras.callbacks.Callback):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def on_train_batch_end(self, batch, logs=None):
        if batch == 20:
            raise self.error


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("disk full")], ids=["ctrl-c", "exception"])
def test_after_an_interruption_the_summary_says_how_many_steps_there_were(error, way):
    x, y = table(960)
    model = classifier()
    model.compile("sgd", "sparse_categorical_crossentropy")
    trainer = ImportanceTraining(model, **way)
    with pytest.raises(type(error)):
        trainer.fit(x, y, batch_size=16, epochs=3, verbose=0, callbacks=[Interrupting(error)])
    assert "21 steps" in trainer.summary()
    assert (model.train_function is None) == (way != WAYS["off"])  # switched off: as `model.fit` leaves it


# This version of Keras


def one_epoch():
    x, y = table(96)
    model = classifier()
    model.compile("sgd", "sparse_categorical_crossentropy")
    return Setup(model, dict(x=x, y=y, batch_size=16))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_way_trains_on_this_version_of_keras(way):
    plain, run = plainly(one_epoch), train(one_epoch, way)
    if way in (OFF, DEFAULT):
        assert_trained_alike(plain, run)
    else:
        assert_sampled(plain, run)


# Awkward


def weighted_pixels():
    x = np.random.default_rng(0).normal(size=(96, 4, 4, 1)).astype("float32")
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(2, 1, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return Setup(model, dict(x=x, y=(x > 0).astype("int32"), batch_size=16, class_weight={0: 1.0, 1: 2.0}))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_class_weights_of_pixels_are_refused_in_the_words_of_keras(way):
    plain, run = plainly(weighted_pixels, raises=False), train(weighted_pixels, way, raises=False)
    assert (type(run.error), str(run.error)) == (type(plain.error), str(plain.error))
    assert plain.error is not None and added(plain, run) == []


def time_series():
    x = np.random.default_rng(0).normal(size=(165, 8)).astype("float32")
    data = keras.utils.timeseries_dataset_from_array(x, x[:, 0], sequence_length=6, batch_size=16)
    model = keras.Sequential([keras.Input((None, 8)), layers.LSTM(4), layers.Dense(1)])
    model.compile("adam", "mse")
    return Setup(model, dict(x=data, epochs=2))


@pytest.mark.parametrize("way", [DEFAULT, POOLS], ids=["default", "pools"])
def test_a_time_axis_that_only_the_batches_know_is_sampled_or_the_remedy_is_named(way):
    plain, run = plainly(time_series), train(time_series, way)
    messages = added(plain, run)
    assert messages == [] or "ensure_shape" in messages[0]
    if messages:
        assert_plainly(plain, run)
    elif run.trainer.importance_steps:
        assert_sampled(plain, run)
    else:
        assert_trained_alike(plain, run)


class Preprocessing(keras.Model):
    """Scales its inputs in a `fit` of its own."""

    def __init__(self):
        super().__init__()
        self.out = layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.out(x)

    def fit(self, x=None, y=None, **arguments):
        return super().fit(x / 2, y, **arguments)


def scaled_in_fit():
    x, y = table(160)
    model = Preprocessing()
    model.compile("adam", "sparse_categorical_crossentropy")
    return Setup(model, dict(x=x, y=y, batch_size=16, epochs=2), dict(x=x / 2, y=y))


@ON
def test_a_fit_of_the_models_own_is_sampled_or_named_as_the_reason(way):
    plain, run = plainly(scaled_in_fit), train(scaled_in_fit, way)
    messages = added(plain, run)
    assert len(messages) <= 1
    if messages:
        assert "`fit`" in messages[0] and "defines a training step" not in messages[0]
        assert_plainly(plain, run)
    elif run.trainer.importance_steps:
        assert_sampled(plain, run)
    else:
        assert_trained_alike(plain, run)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_progress_bar_shows_no_figure_that_was_never_measured(way, capsys):
    x, y = table(96)
    model = classifier()
    model.compile("sgd", "sparse_categorical_crossentropy")
    history = ImportanceTraining(model, **way).fit(x, y, batch_size=16, epochs=2, verbose=2).history
    assert "nan" not in capsys.readouterr().out
    assert {len(values) for values in history.values()} == {2}


def lengths_that_differ():
    x, y = table(96)
    model = classifier()
    model.add(layers.ActivityRegularization(l2=0.1))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return Setup(model, dict(x=x, y=y[:-1], batch_size=16))


@ON
def test_data_that_keras_refuses_get_no_warning(way):
    plain, run = plainly(lengths_that_differ, raises=False), train(lengths_that_differ, way, raises=False)
    assert plain.error is not None and type(run.error) is type(plain.error)
    assert added(plain, run) == []
