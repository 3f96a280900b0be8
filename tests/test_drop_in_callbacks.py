"""The swap with Keras's callbacks on the user's own model: each does what it promises, whatever the gate does."""

import copy
import csv
import importlib.util
import json
import pickle
import re
from collections import Counter
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from drop_in_cases import FIGURES, WAYS, Hooks, assert_equal, begin_anew, data, each_way
from drop_in_models import dense
from frameworks import HAS_TENSORFLOW, host, needs
from keras import callbacks, layers

from importance_sampling.backend import keras_internals

X, Y = data()


class MadeUp(callbacks.Callback):
    """A figure to watch that is best in the second epoch."""

    def on_epoch_end(self, epoch, logs=None):
        logs["made_up"] = [1.0, 0.5, 0.7, 0.8, 0.9][epoch]


class Run:
    """A `fit` with all of Keras's callbacks at once."""

    def __init__(self, way, folder, requests):
        begin_anew()
        self.folder, self.posted, requests.posted = folder, [], []
        self.model = dense(optimizer=keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5))
        watched = dict(monitor="made_up", mode="min")
        self.stopping = callbacks.EarlyStopping(patience=2, restore_best_weights=True, **watched)
        self.ended, self.hooks = [], Hooks()
        found = [
            MadeUp(),
            callbacks.SwapEMAWeights(swap_on_epoch=True),  # what is saved below is averaged
            callbacks.LearningRateScheduler(lambda epoch, rate: 0.01 / (1 + epoch) if epoch < 2 else rate),
            callbacks.ReduceLROnPlateau(patience=1, factor=0.5, **watched),
            callbacks.ModelCheckpoint(
                folder / "best.weights.h5", save_best_only=True, save_weights_only=True, **watched
            ),
            callbacks.ModelCheckpoint(folder / "{epoch}.keras", save_freq="epoch"),
            callbacks.CSVLogger(folder / "log.csv"),
            callbacks.TerminateOnNaN(),
            callbacks.RemoteMonitor("http://as.form"),
            callbacks.RemoteMonitor("http://as.json", send_as_json=True),
            callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: self.ended.append(epoch)),
            self.hooks,
            self.stopping,
        ]
        if importlib.util.find_spec("tensorboard") and HAS_TENSORFLOW:  # Keras writes its files with TensorFlow
            found.append(callbacks.TensorBoard(folder / "board", write_graph=False, histogram_freq=1, update_freq=1))
        self.trainer = WAYS[way](self.model)
        self.history = self.trainer.fit(
            X, Y, batch_size=32, epochs=5, verbose=0, callbacks=found, validation_data=(X[:40], Y[:40])
        ).history
        self.posted = requests.posted
        with open(folder / "log.csv") as file:
            self.rows = list(csv.DictReader(file))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run each way; what is sent away is written down as it would go over the wire."""
    requests = pytest.importorskip("requests")
    wire = SimpleNamespace()

    def post(url, data=None, json=None, **_):
        wire.posted.append(data["data"] if json is None else strict(json))

    def strict(value):
        return json.dumps(value, allow_nan=False)  # as `requests` does

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests, "post", post)
        return {way: Run(way, tmp_path_factory.mktemp(way), wire) for way in WAYS}


def test_with_a_closed_gate_every_callback_sees_and_does_what_it_does_in_model_fit(runs):
    plain, closed = runs["plain"], runs["closed"]
    assert_equal(plain.model, closed.model)
    assert {key: closed.history[key] for key in plain.history} == plain.history
    assert closed.hooks.called == plain.hooks.called and closed.ended == plain.ended
    assert (closed.stopping.stopped_epoch, closed.stopping.best_epoch) == (3, 1)
    assert closed.rows == plain.rows and closed.posted == plain.posted
    names = [
        sorted(path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*.[hk]*"))
        for run in (plain, closed)
    ]
    assert names[0] == [name for name in names[1] if not name.endswith(".npz")] and len(names[0]) == 5


@pytest.fixture(params=["closed", "open"])
def run(request, runs):
    return runs[request.param]


def test_callbacks_are_called_in_every_epoch_whether_the_gate_is_open_or_closed(run, runs):
    assert run.history["importance"] == [float(run is runs["open"])] * 4 and run.ended == [0, 1, 2, 3]
    assert set(run.history) == set(runs["plain"].history) | FIGURES
    assert run.hooks.called == runs["plain"].hooks.called


def test_callbacks_lower_the_learning_rate_by_a_schedule_and_then_on_a_plateau(run):
    assert run.history["learning_rate"] == pytest.approx([0.01, 0.005, 0.005, 0.0025])


def test_early_stopping_restores_the_weights_that_the_checkpoint_of_the_best_epoch_has(run):
    assert (run.stopping.stopped_epoch, run.stopping.best_epoch) == (3, 1)
    second = keras.models.load_model(run.folder / "2.keras")
    assert type(second) is type(run.model) and int(second.optimizer.iterations) == 14
    for file in ("2.keras", "best.weights.h5"):
        second.load_weights(run.folder / file)
        for mine, saved in zip(run.model.trainable_weights, second.trainable_weights, strict=True):
            np.testing.assert_array_equal(host(mine), host(saved))


def test_callbacks_that_write_or_send_logs_receive_the_metrics_of_the_model_alone(run, runs):
    plain = runs["plain"]
    assert [row.keys() for row in run.rows] == [row.keys() for row in plain.rows]
    assert len(run.posted) == 8
    for posted in run.posted[-2:]:
        told = json.loads(posted, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))  # such as NaN
        assert told == {"epoch": 3, **{key: run.history[key][-1] for key in plain.history}}
    if importlib.util.find_spec("tensorboard") and HAS_TENSORFLOW:  # Keras writes its files with TensorFlow
        board = b"".join(path.read_bytes() for path in (run.folder / "board").rglob("events*"))
        assert all(name in board for name in (b"batch_loss", b"epoch_loss", b"epoch_accuracy", b"kernel"))
        assert not any(name.encode() in board for name in FIGURES)


@pytest.mark.parametrize("way", ["closed", "open"])
def test_a_model_that_is_compiled_again_between_two_fits_continues_to_train(runs, way):
    model, trainer = runs[way].model, runs[way].trainer
    steps = trainer.importance_steps
    metric = keras.metrics.SparseTopKCategoricalAccuracy(k=2)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=[metric])
    history = trainer.fit(X, Y, batch_size=32, verbose=0).history
    assert set(history) == {"loss", "sparse_top_k_categorical_accuracy"} | FIGURES
    assert int(model.optimizer.iterations) == 7
    assert trainer.importance_steps - steps == (7 if way == "open" else 0)


STEPS = 6  # an epoch
FEW = dict(x=X[: 16 * STEPS], y=Y[: 16 * STEPS], batch_size=16, verbose=0)


def calling(hook, function, **options):
    """A model, what trains it, and it trained for two epochs with a callback that calls a function in one hook."""

    def train(way):
        begin_anew()
        model = dense(**options)
        trainer = WAYS[way](model)
        callback = callbacks.LambdaCallback(**{hook: lambda *_, **__: function(model)})
        trainer.fit(**FEW, epochs=2, callbacks=[callback])
        return model, trainer

    return train


def test_a_callback_can_train_the_model_on_other_data_between_two_epochs():
    x, y = data(1, 40)
    met = []

    def train(model):
        model.evaluate(x, y, verbose=0)
        model.predict(x, verbose=0)
        model.train_on_batch(x[:16], y[:16])
        model.fit(x, y, batch_size=16, verbose=0, callbacks=[Hooks()])
        met.append(int(model.optimizer.iterations))

    _, _, trainer = each_way(calling("on_epoch_end", train, run_eagerly=True))
    # Of its own steps it counts its own alone: 4 of the callback's lie between two epochs.
    assert met == [STEPS + 4, 2 * STEPS + 8] * 3
    assert trainer.importance_steps == 2 * STEPS


@needs("training inside a fit")
@pytest.mark.parametrize("memory_mapped", [False, True])
def test_a_callback_can_train_the_model_on_other_data_within_an_epoch(tmp_path, memory_mapped, monkeypatch):
    if memory_mapped:  # the rows come by number, the callback's come as they are
        mapped = np.memmap(tmp_path / "x", X.dtype, "w+", shape=FEW["x"].shape)
        mapped[:] = FEW["x"]
        monkeypatch.setitem(FEW, "x", mapped)

    def train(model):
        if int(model.optimizer.iterations) in (2, 3, 8):
            model.fit(X[:20], Y[:20], batch_size=16, verbose=0)

    _, _, trainer = each_way(calling("on_train_batch_begin", train, run_eagerly=memory_mapped))
    assert trainer.importance_steps == 2 * STEPS


def test_a_callback_can_stop_the_training_within_an_epoch():
    taken = Counter()

    def stop(model):
        taken[id(model)] += 1
        model.stop_training = taken[id(model)] == STEPS + 2

    plain, _, _ = each_way(calling("on_train_batch_end", stop, run_eagerly=True))
    assert int(plain.optimizer.iterations) == STEPS + 2


def test_a_learning_rate_that_a_callback_sets_is_used_from_the_next_step_on():
    seen = []

    def freeze(model):
        model.optimizer.learning_rate = 0.0
        seen.append(model.get_weights())

    _, opened, _ = each_way(calling("on_epoch_end", freeze, run_eagerly=True, optimizer="sgd"))
    for first, last in zip(seen[-2], opened.get_weights(), strict=True):
        np.testing.assert_array_equal(first, last)


@pytest.mark.parametrize("way", ["closed", "open"])
def test_a_model_can_be_copied_saved_and_pickled_during_fit_and_after_it(tmp_path, way):
    during = []

    def copies(model):
        model.save(tmp_path / "model.keras")
        clone = keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        saved = keras.models.load_model(tmp_path / "model.keras")
        during.append((model.get_weights(), [pickle.loads(pickle.dumps(model)), saved, copy.deepcopy(model), clone]))

    model, _ = calling("on_epoch_end", copies, run_eagerly=True)(way)
    copies(model)
    assert len(during) == 3
    for expected, found in during:
        for one in found:
            assert one.train_function is None
            for value, same in zip(expected, one.get_weights(), strict=True):
                np.testing.assert_array_equal(value, same)
    first = during[0][1][0]
    first.fit(**FEW)
    assert int(first.optimizer.iterations) == 2 * STEPS


@pytest.mark.parametrize("way", ["plain", "open"])
def test_terminate_on_nan_ends_the_fit_when_the_loss_is_nan(way):
    begin_anew()
    model = dense(run_eagerly=True)
    x = np.where(np.arange(len(X))[:, None] % 20 == 0, np.nan, X)
    history = WAYS[way](model).fit(x, Y, batch_size=32, epochs=3, verbose=0, callbacks=callbacks.TerminateOnNaN())
    assert len(history.history["loss"]) == 1 and model.stop_training


@pytest.mark.parametrize("verbose", [1, 2, "auto"])
def test_the_progress_bar_is_as_verbose_as_that_of_model_fit(capsys, verbose):
    said = []
    for way in ("plain", "closed"):
        begin_anew()
        WAYS[way](dense(run_eagerly=True)).fit(X, Y, batch_size=64, epochs=2, verbose=verbose)
        printed = re.sub(
            r"\d+m?s(/step)?|\x1b\[[0-9;]*m| - (score|tau|importance): \S+|[\b\r ]+", " ", capsys.readouterr().out
        )
        epochs = [re.findall(r"\d/\d|(?:loss|accuracy): [\d.]+", part) for part in printed.split("Epoch")[1:]]
        said.append([(first, sorted(rest[-3:])) for first, *rest in epochs])  # a bar moves as often as time allows
    assert said[0] == said[1] and [first for first, _ in said[0]] == ["1/2", "2/2"]


class Stumbling(keras.losses.Loss):
    """Raises when it is called for the third time."""

    calls = 0
    error: BaseException

    def call(self, y_true, y_pred):
        self.calls += 1
        if self.calls == 3:
            raise self.error
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)


@pytest.mark.parametrize("way", ["closed", "open"])
@pytest.mark.parametrize("error", [RuntimeError("bad loss"), KeyboardInterrupt()])
def test_an_error_in_the_loss_leaves_the_model_and_its_layers_unchanged(way, error):
    begin_anew()
    loss = Stumbling()
    loss.error = error
    model = keras.Sequential([keras.Input((8,)), layers.Dense(3, "softmax")])
    model.compile("adam", loss, run_eagerly=True)
    model.build((None, 8))
    trainer = WAYS[way](model)
    inner = [dict(vars(layer)) for layer in model.layers]
    with pytest.raises(type(error)):
        trainer.fit(X, Y, batch_size=16, verbose=0)
    assert loss.calls >= 3 and model.train_function is None and "call" not in vars(loss)
    assert keras_internals.output_losses(model) == [loss]
    assert [vars(layer).keys() for layer in model.layers] == [before.keys() for before in inner]
    assert np.isfinite(model.evaluate(X, Y, verbose=0))
    trainer.fit(X, Y, batch_size=16, verbose=0)
