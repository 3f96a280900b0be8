"""Arguments that `model.fit` refuses: a trainer raises the same error, before any step, and without a warning."""

import tempfile

import keras
import numpy as np
import pytest
from frameworks import all_warnings, lacks
from toys import stream
from ways import WAYS

from importance_sampling import ImportanceTraining
from importance_sampling.callbacks import SamplingRecorder

ROWS = 48
rng = np.random.default_rng(0)
X = rng.normal(size=(ROWS, 4)).astype("float32")
Y = X[:, :3].argmax(1)
WEIGHTS = np.ones(ROWS, "float32")
PIXELS, MASKS = rng.normal(size=(ROWS, 2, 2, 1)).astype("float32"), rng.integers(0, 3, (ROWS, 2, 2))


def dense(**layer_options):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax", **layer_options)])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def pixels():
    model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Conv2D(3, 1, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def two_outputs():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [keras.layers.Dense(3, "softmax", name=name)(inputs) for name in "ab"])
    model.compile("sgd", ["sparse_categorical_crossentropy"] * 2)
    return model


class Batches(keras.utils.PyDataset):
    def __init__(self):
        super().__init__()

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[16 * index : 16 * index + 16], Y[16 * index : 16 * index + 16]


def generator():
    while True:
        yield X[:16], Y[:16]


ARRAYS = {
    "class weights, a mask per sample": (pixels, dict(x=PIXELS, y=MASKS, class_weight={1: 2.0})),
    "class weights, one-hot masks": (pixels, dict(x=PIXELS, y=np.eye(3)[MASKS], class_weight={1: 2.0})),
    "class weights, masks with a channel": (pixels, dict(x=PIXELS, y=MASKS[..., None], class_weight={1: 2.0})),
    "class weights and sample weights": (dense, dict(x=X, y=Y, class_weight={1: 2.0}, sample_weight=WEIGHTS)),
    "class weights, two outputs": (two_outputs, dict(x=X, y=[Y, Y], class_weight={1: 2.0})),
    "class weights without targets": (dense, dict(x=X, class_weight={1: 2.0})),
    "class weights in a list": (dense, dict(x=X, y=Y, class_weight=[1.0, 2.0, 3.0])),
    "class weights that are text": (dense, dict(x=X, y=Y, class_weight={1: "high"})),
    "class weights that are lists": (dense, dict(x=X, y=Y, class_weight={1: [1.0, 2.0]})),
    "class weights of text": (dense, dict(x=X, y=np.array(["a", "b"] * 24), class_weight={1: 2.0})),
    "fewer targets": (dense, dict(x=X, y=Y[:40])),
    "fewer sample weights": (dense, dict(x=X, y=Y, sample_weight=WEIGHTS[:40])),
    "sample weights of another structure": (two_outputs, dict(x=X, y=[Y, Y], sample_weight=[WEIGHTS])),
    "a matrix of sample weights": (two_outputs, dict(x=X, y=[Y, Y], sample_weight=np.ones((ROWS, 2)))),
    "a split of too few rows": (dense, dict(x=X[:3], y=Y[:3], validation_split=0.9)),
    "a split without training rows": (dense, dict(x=X, y=Y, validation_split=1.0)),
    "a split that is text": (dense, dict(x=X, y=Y, validation_split="0.2")),
    "a negative batch size": (dense, dict(x=X, y=Y, batch_size=-1)),
    "half a batch": (dense, dict(x=X, y=Y, batch_size=2.5)),
    "a batch size that is text": (dense, dict(x=X, y=Y, batch_size="16")),
    "a batch size in a list": (dense, dict(x=X, y=Y, batch_size=[16])),
}
# Refused, or accepted below.
ODD_SIZES = {
    "True rows": (dense, dict(batch_size=True, x=X[:8], y=Y[:8])),
    "a batch size in an array": (dense, dict(x=X, y=Y, batch_size=np.array(16))),
}
if lacks("batch sizes that are no int"):
    ARRAYS |= ODD_SIZES
OTHERS = {
    "lists of numbers": (dense, lambda: dict(x=X.tolist(), y=Y)),
    "targets in a list": (dense, lambda: dict(x=X, y=Y.tolist())),
    "sample weights in a list": (dense, lambda: dict(x=X, y=Y, sample_weight=WEIGHTS.tolist())),
    "a file name": (dense, lambda: dict(x="data.csv")),
    "nothing": (dense, dict),
    "no inputs": (dense, lambda: dict(y=Y)),
    "a number": (dense, lambda: dict(x=np.array(3.0), y=np.array(1))),
    "objects": (dense, lambda: dict(x=np.array([object()] * ROWS), y=Y)),
    "a stream and targets": (dense, lambda: dict(x=stream(X, Y, 16), y=Y, shuffle=False)),
    "a stream and sample weights": (dense, lambda: dict(x=stream(X, Y, 16), sample_weight=WEIGHTS, shuffle=False)),
    "a stream, class weights in a list": (dense, lambda: dict(x=stream(X, Y, 16), class_weight=[1.0], shuffle=False)),
    "a stream and a split": (dense, lambda: dict(x=stream(X, Y, 16), validation_split=0.5, shuffle=False)),
    "a PyDataset and targets": (dense, lambda: dict(x=Batches(), y=Y)),
    "a PyDataset, class weights in a list": (dense, lambda: dict(x=Batches(), class_weight=[1.0])),
    "a PyDataset and a split": (dense, lambda: dict(x=Batches(), validation_split=0.5)),
    "a generator and targets": (dense, lambda: dict(x=generator(), y=Y, steps_per_epoch=3, shuffle=False)),
    "a generator and class weights": (
        dense,
        lambda: dict(x=generator(), class_weight={1: 2.0}, steps_per_epoch=3, shuffle=False),
    ),
}


def fitted(make, arguments, way):
    """What `fit` raised, if anything, the warnings of it, and whether the weights are other ones."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)
    model = make()
    trainer = model if way is None else ImportanceTraining(model, **WAYS[way])
    weights, error = model.get_weights(), None
    with all_warnings() as caught:
        try:
            trainer.fit(**{"verbose": 0, **arguments})
        except Exception as raised:
            error = raised
    has_moved = any((a != b).any() for a, b in zip(weights, model.get_weights(), strict=True))
    return error, [str(warning.message) for warning in caught], has_moved


def assert_refused_alike(make, arguments, way):
    plain, expected, _ = fitted(make, arguments(), None)
    error, messages, has_moved = fitted(make, arguments(), way)
    assert plain is not None
    assert (type(error), without_addresses(error)) == (type(plain), without_addresses(plain))
    assert messages == expected
    assert not has_moved


def without_addresses(error):
    return " ".join(word for word in str(error).split() if not word.startswith("0x"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_and_weights_that_keras_refuses_are_refused_in_its_words(case, way):
    make, arguments = ARRAYS[case]
    assert_refused_alike(make, lambda: dict(arguments), way)


def mapped(array):
    with tempfile.TemporaryFile() as file:
        copy = np.memmap(file, array.dtype, "w+", shape=array.shape)
    copy[:] = array
    return copy


@pytest.mark.parametrize("way", ["off", "default"])
@pytest.mark.parametrize("case", ARRAYS)
def test_memory_maps_that_keras_refuses_are_refused_in_its_words(case, way):
    make, arguments = ARRAYS[case]
    data = {name: value for name, value in arguments.items() if name in ("x", "y", "sample_weight")}
    assert_refused_alike(make, lambda: {**arguments, **keras.tree.map_structure(mapped, data)}, way)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", OTHERS)
def test_other_data_that_keras_refuses_are_refused_in_its_words(case, way):
    assert_refused_alike(*OTHERS[case], way)


class Rows:
    """A store without `__array__`, which Keras can't read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __len__(self):
        return len(self.array)

    def __getitem__(self, index):
        return self.array[index]


@pytest.mark.parametrize("case", ["class weights, a mask per sample", "fewer targets", "a negative batch size"])
def test_stores_are_refused_in_the_words_that_keras_has_for_arrays(case):
    make, arguments = ARRAYS[case]
    plain, _, _ = fitted(make, arguments, None)
    error, messages, has_moved = fitted(make, arguments | dict(x=Rows(arguments["x"]), y=Rows(arguments["y"])), "pools")
    assert (type(error), str(error)) == (type(plain), str(plain))
    assert (messages, has_moved) == ([], False)


ACCEPTED = {
    "a batch size of 0": (dense, dict(x=X, y=Y, batch_size=0)),
    "a split of more than all": (dense, dict(x=X, y=Y, validation_split=1.5)),
    "a class weight of no class": (dense, dict(x=X, y=Y, class_weight={1: 2.0, 9: "high"})),
}
if not lacks("batch sizes that are no int"):
    ACCEPTED |= ODD_SIZES


@pytest.mark.parametrize("store", [np.asarray, mapped])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", ACCEPTED)
def test_odd_arguments_that_keras_accepts_are_accepted(case, way, store):
    make, arguments = ACCEPTED[case]
    error, messages, has_moved = fitted(make, arguments | dict(x=store(arguments["x"])), way)
    assert (error, messages, has_moved) == (None, [], True)


UNSUPPORTED = dict(activity_regularizer="l2")


@pytest.mark.parametrize("way", ["default", "pools", "rows"])
@pytest.mark.parametrize("arguments", [dict(x=X[:, :2], y=Y), dict(x=X, y=Y[:40]), dict(x="data.csv"), dict(x=X)])
def test_an_error_of_keras_comes_without_a_warning_that_sampling_stays_off(arguments, way):
    error, messages, _ = fitted(lambda: dense(**UNSUPPORTED), arguments, way)
    assert error is not None
    assert messages == []


def test_an_error_of_keras_comes_without_a_warning_that_nothing_is_recorded():
    arguments = dict(x=X.tolist(), y=Y, callbacks=[SamplingRecorder()])
    error, messages, _ = fitted(dense, arguments, "default")
    assert "Unrecognized data type" in str(error)
    assert messages == []


@pytest.mark.parametrize("way", ["default", "pools", "rows"])
def test_data_that_keras_accepts_get_one_warning_that_names_the_line_of_fit(way):
    trainer = ImportanceTraining(dense(**UNSUPPORTED), **WAYS[way])
    with pytest.warns(UserWarning, match="Importance sampling stays off") as caught:
        trainer.fit(X, Y, verbose=0)
    messages = [warning for warning in caught if "__array__ implementation" not in str(warning.message)]  # of Keras
    assert [warning.filename for warning in messages] == [__file__]


class OwnLoop(keras.Model):
    """A `fit` that never calls Keras's."""

    def fit(self, x, y, **_):
        self.train_on_batch(x, y)
        return keras.callbacks.History()


def test_a_fit_that_does_not_call_that_of_keras_gets_the_warning_as_it_ends():
    inputs = keras.Input((4,))
    model = OwnLoop(inputs, keras.layers.Dense(3, "softmax", **UNSUPPORTED)(inputs))
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.warns(UserWarning, match="Importance sampling stays off"):
        ImportanceTraining(model).fit(X, Y, verbose=0)
