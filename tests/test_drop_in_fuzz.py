"""The swap, fuzzed: whatever the arguments, Keras and the trainer both accept and agree, or both refuse."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from importance_sampling import ImportanceTraining

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import strategies as st  # noqa: E402

ROWS = 40
rng = np.random.default_rng(0)
X = rng.normal(size=(ROWS, 4)).astype("float32")
Y = X[:, :3].argmax(1)
WEIGHTS = np.linspace(0.1, 2, ROWS)


class Subject:
    """A model that every case starts anew, with what trains it; nothing is compiled twice."""

    def __init__(self, wrap):
        keras.utils.set_random_seed(1)
        self.model = keras.Sequential([keras.Input((4,)), layers.Dense(4, "relu"), layers.Dense(3, "softmax")])
        self.model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        self.model.optimizer.build(self.model.trainable_variables)
        self.variables = [*self.model.variables, *self.model.optimizer.variables]
        self.start = [np.asarray(variable.value) for variable in self.variables]
        self.fit = wrap(self.model).fit

    def run(self, arguments):
        """The error's type, or the history, the number of batches and the weights."""
        for variable, value in zip(self.variables, self.start, strict=True):
            variable.assign(value)
        keras.utils.set_random_seed(2)
        batches = []
        callback = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: batches.append(batch))
        given = {name: make() if callable(make) else make for name, make in arguments.items()}
        form = given.pop("callbacks")
        given["callbacks"] = [callback] if form == "list" else callback
        if form == "CallbackList":
            given["callbacks"] = keras.callbacks.CallbackList([callback], add_history=True, model=self.model)
        try:
            history = self.fit(verbose=0, **given).history
        except Exception as error:
            return type(error)
        return history, batches, [np.asarray(weight) for weight in self.model.get_weights()]


@pytest.fixture(scope="module")
def subjects():
    return [
        Subject(lambda model: model),
        Subject(lambda model: ImportanceTraining(model, tau_th=1e9)),
        Subject(lambda model: ImportanceTraining(model, tau_th=0)),
    ]


def dataset(*parts):
    return lambda: tf.data.Dataset.from_tensor_slices(parts).batch(8)


def frames():
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(X)


class Batches(keras.utils.PyDataset):
    def __init__(self):
        super().__init__()

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return X[index * 8 : index * 8 + 8], Y[index * 8 : index * 8 + 8]


def generator():
    for start in range(0, ROWS, 8):
        yield X[start : start + 8], Y[start : start + 8]


# By name, so that a failing case can be read: the usual value comes first, and twice as often as all others.
OPTIONS = dict(
    x=dict(
        numpy=X,
        tensor=tf.constant(X),
        frame=frames,
        float64=X.astype("float64"),
        none=None,
        empty=X[:0],
        lists=X.tolist(),
        scalar=X[0, 0],
        narrow=X[:, :2],
        dataset=dataset(X, Y),
        weighted_dataset=dataset(X, Y, WEIGHTS),
        dataset_without_y=dataset(X),
        py_dataset=Batches,
        generator=generator,
    ),
    y=dict(ints=Y, floats=Y.astype("float32"), none=None, short=Y[:-1], list=[Y]),
    batch_size=dict(small=8, none=None, large=64, zero=0, negative=-1, text="8", float=8.0),
    epochs=dict(two=2, one=1, zero=0, negative=-1, none=None),
    validation_split=dict(zero=0.0, quarter=0.25, tiny=0.999, one=1.0, much=1.5, negative=-0.5),
    validation_data=dict(
        none=None,
        pair=(X, Y),
        list=[X, Y],
        triple=(X, Y, WEIGHTS),
        dataset=dataset(X, Y),
        py_dataset=Batches,
        short=(X, Y[:-1]),
        x=X,
        four=(X, Y, WEIGHTS, Y),
    ),
    shuffle=dict(yes=True, no=False, batch="batch", none=None, other="other"),
    class_weight=dict(none=None, all={0: 0.5, 1: 2.0, 2: 1.0}, some={0: 0.5, 2: 3.0}, empty={}, list=[1.0, 2.0, 3.0]),
    sample_weight=dict(
        none=None,
        vector=WEIGHTS,
        column=WEIGHTS[:, None],
        tensor=tf.constant(WEIGHTS),
        short=WEIGHTS[:-1],
        list=[WEIGHTS],
        number=2.0,
    ),
    initial_epoch=dict(zero=0, one=1, five=5, negative=-1),
    steps_per_epoch=dict(none=None, three=3, one=1, seven=7, zero=0, negative=-1),
    validation_steps=dict(none=None, two=2, nine=9, zero=0),
    validation_batch_size=dict(none=None, some=16, zero=0),
    validation_freq=dict(one=1, two=2, list=[1], later=[2], zero=0, text="1"),
    callbacks=dict(one="one", list="list", CallbackList="CallbackList"),
)


def choice(values):
    usual, *others = values
    return st.one_of(st.just(usual), st.just(usual), st.sampled_from(others))


CASES = st.fixed_dictionaries({argument: choice(values) for argument, values in OPTIONS.items()})
STREAMS = "dataset", "weighted_dataset", "dataset_without_y", "py_dataset", "generator"


@hypothesis.settings(
    max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(hypothesis.HealthCheck)
)
@hypothesis.given(case=CASES)
def test_keras_and_the_trainer_agree_on_every_argument(subjects, case):
    if case["x"] in STREAMS and case["y"] == "ints":
        case = dict(case, y="none")  # or most of them would be refused
    arguments = {argument: OPTIONS[argument][name] for argument, name in case.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, closed, opened = (subject.run(arguments) for subject in subjects)
    if isinstance(plain, type):
        assert isinstance(closed, type) and isinstance(opened, type), (plain, closed, opened)
        return
    assert not isinstance(closed, type) and not isinstance(opened, type), (closed, opened)
    history, batches, weights = plain
    assert closed[1] == opened[1] == batches
    np.testing.assert_equal({key: closed[0][key] for key in history}, history)
    for before, after in zip(weights, closed[2], strict=True):
        np.testing.assert_array_equal(before, after)
    assert all(np.isfinite(after).all() for after in opened[2])
