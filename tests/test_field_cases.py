"""Programs from bug reports that `model.fit` survives, by value: what every way to train must make of them."""

import keras
import numpy as np
import pytest
from field import ON, classifier, table
from frameworks import dtype_policy, needs, tf
from keras import layers
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


@needs("float64")
def test_the_default_gate_opens_in_float64(float64):
    plain, run = (train(lambda: rare_class(6, 3200, 2.5), way) for way in (None, DEFAULT))
    assert_sampled(plain, run)
    assert {str(variable.dtype) for variable in run.model.trainable_variables} == {"float64"}
    assert run.evaluate() <= plain.evaluate() + 0.02


@needs("float64")
@pytest.mark.parametrize("way", [OFF, POOLS, ROWS], ids=["off", "pools", "rows"])
def test_every_way_trains_in_float64(float64, way):
    plain, run = plainly(rare_class), train(rare_class, way)
    (assert_off if way is OFF else assert_sampled)(plain, run)


def under(name):
    with dtype_policy(name):
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


@needs("text inputs")
@pytest.mark.parametrize(
    ("kind", "way"),
    [(kind, way) for kind in TEXTS for way in (POOLS, ROWS) if (kind, way) != ("stream", ROWS)],
    ids=lambda value: value if isinstance(value, str) else value.get("sampler", "pool"),
)
def test_texts_inside_a_model_are_importance_sampled(kind, way):
    plain, run = plainly(texts, kind), train(lambda: texts(kind), way)
    assert_sampled(plain, run)
    assert min(run.history["importance"]) > 0


@needs("text inputs")
@pytest.mark.parametrize("kind", TEXTS)
def test_texts_inside_a_model_are_probed_by_the_default_gate(kind):
    plain, run = plainly(texts, kind), train(lambda: texts(kind), DEFAULT)
    assert added(plain, run) == []
    assert np.isfinite(run.history["tau"]).all()


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


@needs("TensorFlow")  # with which Keras makes the batches
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
        self.out = layers.Dense(3)

    def call(self, x):
        return self.out(x)

    def fit(self, x=None, y=None, **arguments):
        return super().fit(x / 2, y, **arguments)


def scaled_in_fit():
    x, y = table(160)
    model = Preprocessing()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
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
