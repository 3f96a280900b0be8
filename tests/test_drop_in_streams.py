"""The swap with data that come batch by batch: read as `fit` reads them while closed, joined to pools while open."""

import itertools
import random
import re
from contextlib import nullcontext

import keras
import numpy as np
import pytest
from drop_in_cases import ROWS, Hooks, assert_equal, begin_anew, data, state_of_the_world
from drop_in_models import dense
from frameworks import TAKES_NONE, build_ahead, lacks, needs, several, tf

from importance_sampling import ImportanceTraining
from importance_sampling.data.py_dataset import ShuffledBatches

pytestmark = [
    pytest.mark.filterwarnings("ignore:Your input ran out of data"),
    pytest.mark.filterwarnings("ignore:`shuffle=True` was passed, but will be ignored:UserWarning"),
]

X, Y = data()
BATCHES = 13  # of 16 rows, the last of 11
NO_WEIGHTS = (None,) if TAKES_NONE else ()
reads: list = []
SPECS = tf.TensorSpec((None, 8), "float32"), tf.TensorSpec((None,), "int64")


def batch(index, *more):
    reads.append(index)
    rows = slice(index * 16, index * 16 + 16)
    return X[rows], Y[rows], *more


def dataset(size=None):
    """A data set that tells how often it is read, of a size that is told or not."""
    found = tf.data.Dataset.from_generator(lambda: map(batch, range(BATCHES)), output_signature=SPECS)
    return found if size is None else found.apply(tf.data.experimental.assert_cardinality(size))


def endless():
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(ROWS).batch(16).repeat()


class Batches(keras.utils.PyDataset):
    ended = 0

    def __len__(self):
        return BATCHES

    def __getitem__(self, index):
        return batch(index)

    def on_epoch_end(self):
        self.ended += 1


class Endless(Batches):
    num_batches = None

    def __getitem__(self, index):
        return batch(index % BATCHES)


def randomly():
    """A generator that draws its rows with Python's `random`, as many do; Keras reads ahead, so it has an end."""
    for _ in range(2 * BATCHES):
        reads.append(None)
        rows = random.sample(range(ROWS), 16)
        yield X[rows], Y[rows], *NO_WEIGHTS


def loader():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    rows = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    return torch.utils.data.DataLoader(rows, batch_size=16, shuffle=True)


def grains():
    grain = pytest.importorskip("grain")
    return grain.MapDataset.source(list(zip(X, Y, strict=True))).shuffle(seed=1).batch(16)


SGD = dict(optimizer="sgd")  # traced sooner than Adam
EAGER = dict(SGD, run_eagerly=True)
CASES = {
    "dataset": (lambda: dataset(BATCHES), {}, {}),
    "dataset of unknown size": (dataset, {}, dict(steps_per_execution=several(3))),
    "dataset, fewer steps": (lambda: dataset(BATCHES), dict(steps_per_epoch=5, epochs=3), SGD),
    # Eagerly: in a compiled step that finds no batch left, SGD counts an iteration all the same.
    "dataset of unknown size, more steps": (dataset, dict(steps_per_epoch=20), EAGER),
    "dataset, class weights": (lambda: dataset(BATCHES), dict(class_weight={0: 0.3, 1: 2.0, 2: 1.0}), SGD),
    "endless dataset": (endless, dict(steps_per_epoch=8, epochs=4), SGD),
    "PyDataset": (Batches, {}, EAGER),
    "PyDataset, several steps": (Batches, dict(class_weight={0: 0.3, 2: 2.0}), dict(steps_per_execution=several(4))),
    "PyDataset with workers": (lambda: Batches(workers=2, max_queue_size=2), {}, SGD),
    "endless PyDataset": (Endless, dict(steps_per_epoch=8), SGD),
    "loader": (loader, {}, SGD),
    "grain": (grains, {}, SGD),
}
IN_THE_FIRST_STEP = {"dataset", "dataset of unknown size"}  # is built what others have ahead of `fit`
# Whatever reads ahead, reads as far ahead as the machine lets it.
NOT_COUNTED = {"dataset, fewer steps", "dataset of unknown size, more steps", "endless PyDataset"}
# Without an end they aren't read a second time.
READ_ONCE = ("endless dataset", "endless PyDataset")
SAMPLED = [pytest.param(name, marks=needs("batches drawn in a step")) if name in READ_ONCE else name for name in CASES]


class Run:
    """A `fit` and what there is to know about it."""

    def __init__(self, name, wrap=lambda model: model, **more):
        make, arguments, options = CASES.get(name, (randomly, {}, SGD))
        begin_anew()
        self.model, hooks, self.source = dense(**options), Hooks(), make()
        if name not in IN_THE_FIRST_STEP:
            build_ahead(self.model, X, Y)
        reads.clear()
        self.trainer = wrap(self.model)
        arguments = {"epochs": 2, "verbose": 0, **arguments, **more}
        self.history = self.trainer.fit(self.source, callbacks=[hooks], **arguments).history
        self.reads, self.called, self.world = len(reads), hooks.called, state_of_the_world()
        self.ended = getattr(self.source, "ended", None)
        self.steps = int(self.model.optimizer.iterations)


@pytest.fixture(scope="module", params=CASES)
def plain(request):
    run = Run(request.param)
    run.name = request.param
    return run


def is_read_by_keras_alone(name):
    """Return True for data of which Keras draws each batch, and which can't be read a second time for pools."""
    return lacks("batches drawn in a step") and name in (*READ_ONCE, "generator")


def warns_if(condition):
    """Return a context that requires the warning that importance sampling stays off, if the condition holds."""
    return pytest.warns(UserWarning, match="Keras draws one batch for each step") if condition else nullcontext()


@pytest.mark.filterwarnings("ignore:Your `PyDataset` class should call:UserWarning")
@pytest.mark.parametrize("tau_th", [float("inf"), 1e9])
def test_with_a_closed_gate_a_stream_is_read_and_trained_on_as_by_model_fit(plain, tau_th):
    stays_off = is_read_by_keras_alone(plain.name) and tau_th != float("inf")
    with warns_if(stays_off):
        run = Run(plain.name, lambda model: ImportanceTraining(model, tau_th=tau_th))
    assert_equal(plain.model, run.model)
    assert {key: run.history[key] for key in plain.history} == plain.history
    assert (run.called, run.world, run.ended) == (plain.called, plain.world, plain.ended)
    if plain.name not in NOT_COUNTED:
        assert run.reads == plain.reads
    assert f"throughout ({run.steps} steps)" in run.trainer.summary()
    assert tau_th == float("inf") or stays_off or np.isfinite(run.history["tau"]).all()


@pytest.mark.parametrize("plain", SAMPLED, indirect=True, scope="module")
def test_with_an_open_gate_a_stream_gives_as_many_steps_as_with_model_fit_and_the_loss_falls(plain):
    told = []
    run = Run(
        plain.name,
        lambda model: ImportanceTraining(model, tau_th=0, seed=1),
        on_sample=lambda sampler, indices, weights, scores: told.append((indices, weights, scores)),
    )
    assert (run.steps, run.called, run.ended) == (plain.steps, plain.called, plain.ended)
    assert run.history["importance"] == [1.0] * len(plain.history["loss"])
    assert f"100% of the {run.steps} steps" in run.trainer.summary()
    assert np.isfinite(run.history["loss"]).all() and run.history["loss"][-1] < plain.history["loss"][0]
    assert len(told) == run.steps
    for indices, weights, scores in told:
        assert indices.tolist() == [-1] * 16 and weights.max() <= 10.001 and (scores > 0).all()
    if plain.name not in NOT_COUNTED:
        # Three times the data, beside what Keras looks at first and what is read ahead.
        assert run.reads == 0 or 3 * plain.steps - 2 <= run.reads <= 3 * plain.reads + 16


def test_with_a_closed_gate_a_generator_is_read_and_trained_on_as_by_model_fit():
    plain = Run("generator", steps_per_epoch=BATCHES)
    told = []
    for more in ({}, dict(on_sample=lambda sampler, indices, weights, scores: told.append((indices, weights)))):
        with warns_if(is_read_by_keras_alone("generator")):
            run = Run("generator", lambda model: ImportanceTraining(model), steps_per_epoch=BATCHES, **more)
        assert_equal(plain.model, run.model)
        assert {key: run.history[key] for key in plain.history} == plain.history
        assert (run.called, run.world, run.reads) == (plain.called, plain.world, plain.reads)
    assert len(told) == 2 * BATCHES
    assert all(indices.tolist() == [-1] * 16 and weights.tolist() == [1] * 16 for indices, weights in told)


@needs("batches drawn in a step")
@pytest.mark.parametrize("presample", [3.0, 2.5])
def test_with_an_open_gate_a_generator_is_read_once_and_to_its_end(presample):
    run = Run("generator", lambda model: ImportanceTraining(model, presample=presample, tau_th=0), epochs=1)
    assert run.reads == 26
    # 8 pools of 3 batches and the last two plainly; 10 of 2.5 batches and the last one.
    steps, share = {3.0: (10, 0.8), 2.5: (11, 10 / 11)}[presample]
    assert [hook[:2] for hook in run.called if hook[0] in ("begin", "end")][-2:] == [
        ("end", steps - 1),
        ("begin", steps),
    ]
    assert run.history["importance"] == [pytest.approx(share)] and f"of the {steps} steps" in run.trainer.summary()


@needs("batches drawn in a step")
def test_an_endless_generator_is_never_read_further_ahead_than_a_pool_and_what_keras_prefetches():
    def forever():
        for index in itertools.cycle(range(12)):
            yield batch(index)

    begin_anew()
    model, seen = dense(**SGD), []
    reads.clear()
    callback = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(len(reads)))
    ImportanceTraining(model, tau_th=0).fit(forever(), steps_per_epoch=10, verbose=0, callbacks=[callback])
    assert len(seen) == 10
    for step, count in enumerate(seen, 1):
        assert 3 * step <= count <= 3 * step + 16


@needs("batches drawn in a step")
def test_rows_of_a_generator_become_the_candidates_of_pools_in_their_order():
    seen = []

    def noted(model, x, y):
        seen.append(np.asarray(y).tolist())
        return keras.ops.ones((keras.ops.shape(x)[0],))

    def numbered():
        for first, size in ((0, 4), (4, 2), (6, 4), (10, 4), (14, 2)):
            yield np.zeros((size, 8), "float32"), np.arange(first, first + size) % 3

    begin_anew()
    trainer = ImportanceTraining(dense(**EAGER), presample=2, tau_th=0, score=noted)
    trainer.fit(numbered(), verbose=0)
    assert seen[-2:] == [[i % 3 for i in range(8)], [i % 3 for i in range(8, 16)]]


def test_every_pass_of_the_candidates_over_a_py_dataset_is_another_permutation_of_its_batches():
    class Numbers(keras.utils.PyDataset):
        num_batches = 5

        def __getitem__(self, index):
            return index

    def first(seed):
        again = ShuffledBatches(Numbers(), seed, None)
        return [[again[5 * number + place] for place in range(5)] for number in range(3)]

    before = random.getstate()
    passes = first(1)
    assert all(sorted(one) == list(range(5)) for one in passes)
    assert passes[0] != passes[1] and first(1) == passes and first(2) != passes
    assert random.getstate() == before


def test_a_py_dataset_without_workers_is_read_by_one_thread_at_a_time():
    import threading
    import time

    reading = threading.Lock()

    class Touchy(Batches):
        def __getitem__(self, index):
            assert reading.acquire(blocking=False), "two at a time"
            time.sleep(0.002)
            reading.release()
            return batch(index)

    begin_anew()
    ImportanceTraining(dense(**SGD), tau_th=0).fit(Touchy(), verbose=0)


@needs("datasets read once")
def test_a_dataset_that_cannot_be_read_a_second_time_trains_uniformly_with_a_warning():
    used = []

    def once():
        if used:
            raise RuntimeError("gone")
        used.append(1)
        return map(batch, range(BATCHES))

    def source():
        used.clear()
        return tf.data.Dataset.from_generator(once, output_signature=SPECS)

    begin_anew()
    plain = dense(**SGD)
    plain.fit(source(), verbose=0)
    begin_anew()
    model = dense(**SGD)
    trainer = ImportanceTraining(model, tau_th=0)
    with pytest.warns(UserWarning, match="couldn't be read a second time"):
        trainer.fit(source(), verbose=0)
    assert_equal(plain, model)
    assert re.search(r"throughout \(13 steps\): .*second time", trainer.summary())


@needs("batches drawn in a step")
def test_batches_that_cannot_be_joined_to_a_pool_train_uniformly_with_a_warning():
    def varying():
        for index in range(6):
            yield np.ones((4, 2 + index % 2, 8), "float32"), np.zeros(4)

    def run(wrap):
        begin_anew()
        model = keras.Sequential([keras.layers.GlobalMaxPooling1D(), keras.layers.Dense(2, "softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
        wrap(model).fit(varying(), verbose=0)
        return model

    plain = run(lambda model: model)
    with pytest.warns(UserWarning, match="can't be joined to a pool. Pad them"):
        trained = run(lambda model: ImportanceTraining(model, tau_th=0))
    assert_equal(plain, trained)


def test_an_error_in_the_data_ends_the_fit_and_leaves_the_model_as_model_fit_leaves_it():
    class Failing(Batches):
        def __getitem__(self, index):
            if index == 7:
                raise OSError("no such batch")
            return batch(index)

    left = []
    for wrap in (lambda model: model, *(lambda model, t=t: ImportanceTraining(model, tau_th=t) for t in (0, 1e9))):
        begin_anew()
        model = dense(**SGD)
        with pytest.raises(Exception, match="no such batch"):
            wrap(model).fit(Failing(), verbose=0, shuffle=False)
        left.append((type(model), sorted(vars(model))))
    assert model.train_function is None and left[0] == left[1] == left[2]
