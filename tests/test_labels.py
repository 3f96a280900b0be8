"""Wrong labels: predictions out of sample, how they rank the labels, and how training records each sample."""

import random

import keras
import numpy as np
import pytest
from frameworks import needs, tf
from keras import layers
from toys import stream

from importance_sampling import labels
from importance_sampling.callbacks import TrainingDynamics
from importance_sampling.callbacks.dynamics import margins
from importance_sampling.data import ArraySource
from importance_sampling.data.lazy_arrays import LazyArray
from importance_sampling.data.subset import subset
from importance_sampling.labels.model_copy import ModelCopy
from importance_sampling.utils.classes import as_classes, log_probabilities

ROWS = 61
_rng = np.random.default_rng(0)
X = _rng.normal(size=(ROWS, 4)).astype("float32")
Y = X[:, :3].argmax(1)


def build(loss="sparse_categorical_crossentropy", units=3, activation="softmax", rate=0.5):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(units, activation)])
    model.compile(keras.optimizers.SGD(rate), loss)
    return model


def by_hand(model, train, rows, epochs, batch_size):
    """Train a copy on some rows by `fit` without shuffling, and return its losses for others."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.compile(keras.optimizers.SGD(float(model.optimizer.learning_rate)), model.loss)
    copy.fit(X[train], Y[train], batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)
    p = copy.predict(X[rows], verbose=0)
    return -np.log(p[np.arange(len(rows)), Y[rows]])


# Predictions out of sample


def test_every_sample_is_predicted_by_a_copy_that_was_trained_on_the_other_half():
    model = build()
    before = model.get_weights()
    # A batch holds a whole half, so that the order of its rows doesn't matter.
    predicted = labels.out_of_sample(model, X, Y, batch_size=64, epochs=1, seed=5)
    order = np.random.default_rng(5).permutation(ROWS)
    first, second = np.array_split(order, 2)
    np.testing.assert_allclose(predicted.losses[first], by_hand(model, second, first, 1, 64), rtol=1e-4)
    np.testing.assert_allclose(predicted.losses[second], by_hand(model, first, second, 1, 64), rtol=1e-4)
    own = predicted.probabilities[np.arange(ROWS), Y]
    np.testing.assert_allclose(-np.log(own), predicted.losses, rtol=1e-3)
    assert predicted.epochs == (1, 1) and predicted.cost == 3 * ROWS + ROWS
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_label_has_no_influence_on_its_own_prediction():
    changed = Y.copy()
    changed[7] = (Y[7] + 1) % 3
    options = dict(batch_size=64, epochs=1, seed=5)
    one, other = (labels.out_of_sample(build(), X, y, **options).probabilities for y in (Y, changed))
    np.testing.assert_allclose(one[7], other[7], rtol=1e-5)
    same_half = np.array_split(np.random.default_rng(5).permutation(ROWS), 2)
    others = next(half for half in same_half if 7 not in half)
    assert np.abs(one[others] - other[others]).max() > 1e-3


def test_a_copy_stops_two_epochs_after_the_minimum_of_the_loss_on_the_other_half_and_predicts_as_at_the_minimum():
    # Wrong labels with nothing to learn: at a high rate, the first epoch is the best.
    at_random = np.random.default_rng(2).integers(3, size=ROWS)
    model = build(rate=20.0)
    source = ArraySource((X, at_random, None))
    one, other = (subset(source, half) for half in (np.arange(30), np.arange(30, ROWS)))
    keras.utils.set_random_seed(1)
    stopped = ModelCopy(model, True).fit_predict(one, other, 30, 9)
    keras.utils.set_random_seed(1)
    best = ModelCopy(model, True).fit_predict(one, other, 30, stopped.epochs - 2)
    assert 2 < stopped.epochs < 9 and stopped.trained == 30 * stopped.epochs and stopped.scored == 31 * stopped.epochs
    np.testing.assert_allclose(stopped.losses, best.losses, rtol=1e-5)


def test_a_copy_is_compiled_as_the_model_and_starts_from_its_weights_twice():
    inputs = keras.Input((4,))
    outputs = {"a": layers.Dense(1, name="a")(inputs), "b": layers.Dense(1, name="b")(inputs)}
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(0.02), {"a": "mse", "b": "mae"}, loss_weights={"a": 0.25, "b": 3.0})
    copy = ModelCopy(model, True)
    source = ArraySource((X, {"a": X[:, :1], "b": X[:, 1:2]}, None))
    first = copy.fit_predict(source, source, 16, 1)
    a, b = ((first.outputs[name] - X[:, i : i + 1])[:, 0] for i, name in enumerate("ab"))
    np.testing.assert_allclose(first.losses, 0.25 * a**2 + 3 * np.abs(b), rtol=1e-4)
    assert copy.model.optimizer.get_config() == model.optimizer.get_config()
    assert float(copy.model.optimizer.iterations) == 4 and float(model.optimizer.iterations) == 0
    copy.fit_predict(source, source, 16, 1)
    assert float(copy.model.optimizer.iterations) == 4


def test_memory_maps_are_split_without_being_read():
    read = []

    class Array:
        shape, dtype = (ROWS, 4), np.dtype("float32")

        def __len__(self):
            return ROWS

        def __getitem__(self, indices):
            read.extend(np.atleast_1d(indices))
            return X[indices]

    source = ArraySource((LazyArray(Array()), Y, None))
    rows = np.array([2, 5, 11, 60])
    part = subset(source, rows)
    assert read == [] and part.num_rows == 4
    x, y, _ = part.read(np.array([3, 0]))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(x), X[[60, 2]])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(y), Y[[60, 2]])
    assert set(read) == {2, 60}


class OwnLayer(layers.Layer):
    def __init__(self, size):
        super().__init__()
        self.dense = layers.Dense(size)

    def call(self, x):
        return self.dense(x)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(batch_size=0), "`batch_size` must be"),
        (dict(epochs=0), "`epochs` must be"),
        (dict(seed=-1), "`seed` must be"),
        (dict(x=iter([X])), "read by index"),
        (dict(model=keras.Sequential([layers.Dense(3)])), "must be compiled"),
        (dict(y=Y[:5]), "cardinality"),  # Keras's own
        (dict(y=Y.tolist()), "`y` must be an array.*Received: y with an element of type <class 'int'>"),
        (dict(x=X[:0], y=Y[:0]), "at least one row"),
        (dict(x=X[:1], y=Y[:1]), "two rows or more.*Received: 1 rows"),
    ],
)
@pytest.mark.fast
def test_arguments_out_of_range_are_refused(change, message):
    arguments = dict(model=build(), x=X, y=Y) | change
    with pytest.raises(ValueError, match=message):
        labels.out_of_sample(arguments.pop("model"), arguments.pop("x"), arguments.pop("y"), **arguments)


def test_a_model_that_keras_can_not_copy_is_refused_with_the_remedy():
    model = keras.Sequential([keras.Input((4,)), OwnLayer(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match=r"that Keras can copy.*irreducible_loss.*Received: model='sequential"):
        ModelCopy(model, True)


def adapted(layer, values):
    layer.adapt(values)
    return layer


NUMBERS = 5.0 + 3.0 * X
WORDS = np.array([["a b"], ["b c c"], ["d"]] * 10)


@pytest.mark.parametrize(
    "make, values",
    [
        (lambda: adapted(layers.Normalization(), NUMBERS), NUMBERS),
        pytest.param(
            lambda: adapted(layers.Discretization(num_bins=4), NUMBERS[:, 0]),
            NUMBERS[:, :1],
            marks=needs("discretization"),
        ),
        pytest.param(
            lambda: adapted(layers.TextVectorization(output_mode="multi_hot"), WORDS[:, 0]),
            WORDS,
            marks=needs("discretization"),
        ),
    ],
    ids=["Normalization", "Discretization", "TextVectorization"],
)
def test_a_copy_has_what_preprocessing_layers_have_adapted_to(make, values):
    inputs = keras.Input(values.shape[1:], dtype="string" if values.dtype.kind == "U" else "float32")
    model = keras.Model(inputs, layers.Dense(2)(make()(inputs)))
    model.compile("sgd", "mse")
    x = tf.constant(values) if values.dtype.kind == "U" else values
    source = ArraySource((x, np.zeros((len(values), 2), "float32"), None))
    model.optimizer.learning_rate = 0.0
    seen = ModelCopy(model, True).fit_predict(source, source, 10, 1)
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(seen.outputs, expected, rtol=1e-5, atol=1e-6)
    assert np.ptp(expected) > 0


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3, "softmax")

    def call(self, x):
        return self.dense(x)


def test_subclassed_models_without_arguments_are_copied():
    keras.utils.set_random_seed(1)
    model = Subclassed()
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    predicted = labels.out_of_sample(model, X, Y, batch_size=16, epochs=10, seed=1)
    assert predicted.probabilities.shape == (ROWS, 3) and predicted.losses.mean() < np.log(3)


class Sharing(layers.Layer):
    """A layer whose configuration contains another layer itself."""

    def __init__(self, inner, **options):
        super().__init__(**options)
        self.inner = inner

    def call(self, x):
        return self.inner(x)

    def get_config(self):
        return super().get_config() | {"inner": self.inner}


def test_a_copy_that_shares_variables_with_the_model_is_refused():
    model = keras.Sequential([keras.Input((4,)), Sharing(layers.Dense(3, "softmax"))])
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = model.get_weights()
    with pytest.raises(ValueError, match="the copy shares variables with it"):
        labels.out_of_sample(model, X, Y)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_loss_that_is_not_finite_does_not_end_the_training_of_a_copy():
    x = X.copy()
    x[3] = np.nan
    source = ArraySource((x, Y, None))
    training, unseen = subset(source, np.arange(20, ROWS)), subset(source, np.arange(20))
    seen = ModelCopy(build(rate=0.1), True).fit_predict(training, unseen, 16, 4)
    assert seen.epochs == 4 and np.isnan(seen.losses[3]) and np.isfinite(np.delete(seen.losses, 3)).all()


class WithBase(keras.Model):
    def __init__(self):
        super().__init__()
        self.base, self.head = layers.Dense(5), layers.Dense(3, "softmax")

    def call(self, x):
        return self.head(self.base(x))


def test_layers_that_are_frozen_are_frozen_in_a_copy():
    model = WithBase()
    model.base.trainable = False
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    model(X)
    copy, source = ModelCopy(model, True), ArraySource((X, Y, None))
    copy.fit_predict(source, source, 16, 1)
    before, after = (one.base.kernel for one in (model, copy.model))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(before), keras.ops.convert_to_numpy(after))
    assert len(copy.model.trainable_weights) == 2


def test_copying_a_model_leaves_pythons_random_numbers_as_they_were():
    model = keras.Sequential([keras.Input((4,)), layers.Dropout(0.5), layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = random.getstate()
    ModelCopy(model, True)
    assert random.getstate() == before


def test_large_outputs_are_kept_only_if_they_are_asked_for():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1001)])
    model.compile("sgd", "mse")
    source = ArraySource((X, np.zeros((ROWS, 1001), "float32"), None))
    kept, dropped = (ModelCopy(model, keeps).fit_predict(source, source, 61, 1) for keeps in (True, False))
    assert kept.outputs.shape == (ROWS, 1001) and dropped.outputs is None
    np.testing.assert_allclose(kept.losses, dropped.losses, rtol=1e-4)


# Probabilities


@pytest.mark.fast
def test_probabilities_and_logits_of_two_and_more_classes_give_the_same_probabilities():
    p = np.array([[0.2, 0.5, 0.3], [0.0, 0.9, 0.1]], "float32")
    np.testing.assert_allclose(np.exp(log_probabilities(p)), p, atol=1e-7)
    np.testing.assert_allclose(np.exp(log_probabilities(np.log(p + 1e-12) + 7)), p, atol=1e-7)
    one = np.array([[0.25], [0.5]])
    expected = np.array([[0.75, 0.25], [0.5, 0.5]])
    np.testing.assert_allclose(np.exp(log_probabilities(one)), expected)
    logits = np.array([-np.log(3.0), 0.0]) * np.ones(2)
    logits[1] = 2.0
    np.testing.assert_allclose(np.exp(log_probabilities(logits))[:, 1], [0.25, 1 / (1 + np.exp(-2.0))])
    assert np.isfinite(log_probabilities(np.array([[1.0, 0.0], [0.0, 1.0]]))).all()


def test_outputs_are_logits_or_probabilities_as_the_loss_says():
    low = np.array([[0.415], [0.2]])  # logits that could be probabilities
    np.testing.assert_allclose(np.exp(log_probabilities(low, from_logits=True))[:, 1], 1 / (1 + np.exp(-low[:, 0])))
    model = build(keras.losses.SparseCategoricalCrossentropy(from_logits=True), activation=None, rate=0.0)
    model.layers[0].kernel.assign(0.05 + 0.0 * model.layers[0].kernel)
    predicted = labels.out_of_sample(model, np.abs(X), Y, batch_size=16, epochs=1)
    assert predicted.from_logits is True
    np.testing.assert_allclose(predicted.probabilities, 1 / 3, rtol=1e-5)


def test_outputs_of_several_classes_at_once_are_no_probabilities():
    for from_logits in (None, False):
        with pytest.raises(ValueError, match="each sample has one class"):
            log_probabilities(np.array([[0.5, 0.4, 0.3]]), from_logits)


def test_labels_are_classes_or_one_hot_and_others_are_refused():
    np.testing.assert_array_equal(as_classes(np.eye(3)[[2, 0]], 3), [2, 0])
    np.testing.assert_array_equal(as_classes(np.array([[1.0], [0.0]]), 2), [1, 0])
    for wrong in (np.array([0, 3]), np.eye(4)[:2]):
        with pytest.raises(ValueError, match=r"from 0 to 2.*Received: labels"):
            as_classes(wrong, 3)
    for wrong in (np.array([-1, 0]), np.array([0.9, 1.7]), np.array([[0.5, 0.4, 0.1]]), np.zeros((2, 1, 1))):
        with pytest.raises(ValueError, match="Targets must be classes"):
            as_classes(wrong, 3)


def test_outputs_that_are_not_a_classifiers_have_no_probabilities():
    with pytest.raises(ValueError, match=r"outputs of the shapes \[\(2, 3, 4\)\]"):
        _ = labels.OutOfSample(np.zeros(2), np.zeros((2, 3, 4)), (1,), 0.0).probabilities


# Ranking


@pytest.mark.fast
def test_the_suspicion_is_bayes_rule_with_softened_probabilities_times_the_most_likely_other_class():
    # Predicted classes 0, 0, 0, 1, 1 with the labels 0, 0, 1, 1, 1.
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6], [0.1, 0.9]])
    y = np.array([0, 0, 1, 1, 1])
    confusion = np.array([[2 / 3, 1 / 3], [0.0, 1.0]])
    root = np.sqrt(p)
    wrong = [1 - root[i, y[i]] * confusion[y[i], y[i]] / (root[i] @ confusion[:, y[i]]) for i in range(5)]
    expected = np.array(wrong) * p[np.arange(5), 1 - y]
    np.testing.assert_allclose(labels.label_suspicion(y, p), expected)
    np.testing.assert_allclose(labels.label_suspicion(np.eye(2)[y], p), expected)
    assert expected[2] == pytest.approx(0.7 * (1 - np.sqrt(0.3) / (np.sqrt(0.7) / 3 + np.sqrt(0.3))))


def test_a_class_that_is_never_predicted_is_suspicious_as_far_as_another_one_is_likely():
    p = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    np.testing.assert_allclose(labels.label_suspicion([2, 1], p), [0.9, 0.0])


@pytest.mark.fast
def test_labels_are_ranked_by_confusion_where_the_loss_ranks_unusual_samples_first():
    # 200 samples of class 0, of which 40 are labelled 1; 99 of class 1; 50 of class 2, and one more that looks like 0.
    groups = [(160, 0, [0.7, 0.28, 0.02]), (40, 1, [0.7, 0.28, 0.02]), (99, 1, [0.01, 0.98, 0.01])]
    groups += [(50, 2, [0.01, 0.01, 0.98]), (1, 2, [0.6, 0.39, 0.01])]
    p = np.concatenate([np.tile(row, (count, 1)) for count, _, row in groups])
    y = np.concatenate([np.full(count, label) for count, label, _ in groups])
    assert p[np.arange(350), y].argmin() == 349
    order = np.argsort(-labels.label_suspicion(y, p), kind="stable")
    assert set(order[:40]) == set(range(160, 200))


@pytest.mark.parametrize("y, p", [([0, 1], np.ones((3, 2))), ([0, 1], np.ones(2)), ([0, 5], np.ones((2, 2)))])
def test_labels_that_do_not_fit_the_probabilities_are_refused(y, p):
    with pytest.raises(ValueError, match="Received"):
        labels.label_suspicion(y, p)


# How each sample is learnt


class Scripted(keras.Model):
    """Returns the outputs of a script, one after another epoch."""

    def __init__(self, script):
        super().__init__()
        self.script = script

    def predict(self, x, **options):
        return self.script.pop(0)


@pytest.mark.fast
def test_margins_are_averaged_over_the_epochs_and_forgetting_is_counted():
    first = np.array([[0.5, 0.3, 0.2], [0.1, 0.7, 0.2], [0.3, 0.3, 0.4]])
    second = np.array([[0.2, 0.6, 0.2], [0.1, 0.8, 0.1], [0.5, 0.4, 0.1]])
    third = first
    y = np.array([0, 1, 0])
    dynamics = TrainingDynamics(np.zeros((3, 1)), y)
    assert np.isnan(dynamics.aum).all()
    dynamics.set_model(Scripted([first, second, third]))
    for epoch in range(3):
        dynamics.on_epoch_end(epoch)
    logit = [np.log(p[i, y[i]] / np.delete(p[i], y[i]).max()) for p in (first, second, third) for i in range(3)]
    np.testing.assert_allclose(dynamics.aum, np.reshape(logit, (3, 3)).mean(0))
    plain = [p[i, y[i]] - np.delete(p[i], y[i]).max() for p in (first, second, third) for i in range(3)]
    np.testing.assert_allclose(dynamics.mean_margin, np.reshape(plain, (3, 3)).mean(0))
    np.testing.assert_array_equal(dynamics.forgetting_events, [1, 0, 1])
    np.testing.assert_array_equal(dynamics.learned, [True, True, True])
    assert dynamics.epochs == 3 and set(dynamics.arrays()) == {"aum", "mean_margin", "forgetting_events", "learned"}


def test_training_dynamics_are_recorded_in_fit_and_leave_the_training_as_it_is():
    models = [build(), build()]
    dynamics = TrainingDynamics(X, Y)
    for model, callbacks in zip(models, ([], [dynamics]), strict=True):
        keras.utils.set_random_seed(1)
        model.fit(X, Y, batch_size=16, epochs=3, shuffle=False, verbose=0, callbacks=callbacks)
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)
    assert dynamics.epochs == 3
    expected, model = np.zeros(ROWS, bool), build()
    for _ in range(3):
        model.fit(X, Y, batch_size=16, shuffle=False, verbose=0)
        expected |= margins(model.predict(X, verbose=0), Y) > 0
    np.testing.assert_array_equal(dynamics.learned, expected)
    assert 0 < expected.sum() < ROWS


def test_outputs_and_labels_that_are_not_a_classifiers_are_refused():
    model = build("mse", 2, None)
    with pytest.raises(ValueError, match=r"from 0 to 1.*Received: labels"):
        model.fit(X, X[:, :2], verbose=0, callbacks=[TrainingDynamics(X, np.arange(ROWS))])
    batches = stream(X, X[:, :2], 16)  # whose rows nobody knows before they are read
    with pytest.raises(ValueError, match=r"shape \(61, 2\) for 5 labels"):
        model.fit(X, X[:, :2], verbose=0, callbacks=[TrainingDynamics(batches, Y[:5])])
