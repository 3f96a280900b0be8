"""The swap with Keras's callbacks on the user's own model: each does what it promises, whatever the gate does."""

import csv
import importlib.util
import json
import re

import keras
import numpy as np
import pytest
from drop_in_cases import FIGURES, Hooks, assert_equal, begin_anew, data
from drop_in_models import dense
from keras import callbacks, layers

from importance_sampling import ImportanceTraining

X, Y = data()
WAYS = {
    "plain": lambda model: model,
    "closed": lambda model: ImportanceTraining(model, tau_th=1e9),
    "open": lambda model: ImportanceTraining(model, tau_th=0, seed=1),
}


class MadeUp(callbacks.Callback):
    """A figure to watch that is best in the second epoch."""

    def on_epoch_end(self, epoch, logs=None):
        logs["made_up"] = [1.0, 0.5, 0.7, 0.8, 0.9][epoch]


class Run:
    """A `fit` with all of Keras's callbacks at once."""

    def __init__(self, way, folder, posted):
        begin_anew()
        posted.clear()
        self.folder = folder
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
            callbacks.RemoteMonitor(root="http://127.0.0.1:9"),
            callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: self.ended.append(epoch)),
            self.hooks,
            self.stopping,
        ]
        if importlib.util.find_spec("tensorboard"):
            found.append(callbacks.TensorBoard(folder / "board", write_graph=False, histogram_freq=1))
        fit = WAYS[way](self.model).fit
        self.history = fit(
            X, Y, batch_size=32, epochs=5, verbose=0, callbacks=found, validation_data=(X[:40], Y[:40])
        ).history
        self.posted = list(posted)
        with open(folder / "log.csv") as file:
            self.rows = list(csv.DictReader(file))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    requests = pytest.importorskip("requests")
    posted = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests, "post", lambda url, data=None, **_: posted.append(json.loads(data["data"])))
        return {way: Run(way, tmp_path_factory.mktemp(way), posted) for way in WAYS}


def test_closed_every_callback_sees_and_does_what_it_does_in_fit(runs):
    plain, closed = runs["plain"], runs["closed"]
    assert_equal(plain.model, closed.model)
    assert {key: closed.history[key] for key in plain.history} == plain.history
    assert closed.hooks.called == plain.hooks.called and closed.ended == plain.ended
    assert (closed.stopping.stopped_epoch, closed.stopping.best_epoch) == (3, 1)
    assert [{key: row[key] for key in plain.rows[0]} for row in closed.rows] == plain.rows
    assert [{key: row[key] for key in plain.posted[0]} for row in closed.posted] == plain.posted
    names = [
        sorted(path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*.[hk]*"))
        for run in (plain, closed)
    ]
    assert names[0] == [name for name in names[1] if not name.endswith(".npz")] and len(names[0]) == 5


@pytest.mark.parametrize("way", ["closed", "open"])
def test_callbacks_keep_their_promises_on_the_users_own_model(runs, way):
    run = runs[way]
    assert run.history["importance"] == [float(way == "open")] * 4 and run.ended == [0, 1, 2, 3]
    assert run.hooks.called == runs["plain"].hooks.called
    # The rate falls by the schedule, then on the plateau.
    assert run.history["learning_rate"] == pytest.approx([0.01, 0.005, 0.005, 0.0025])
    # The best weights are back, and are those in the checkpoint of the best epoch.
    assert (run.stopping.stopped_epoch, run.stopping.best_epoch) == (3, 1)
    second = keras.models.load_model(run.folder / "2.keras")
    assert type(second) is type(run.model) and int(second.optimizer.iterations) == 14
    for file in ("2.keras", "best.weights.h5"):
        second.load_weights(run.folder / file)
        for mine, saved in zip(run.model.trainable_weights, second.trainable_weights, strict=True):
            np.testing.assert_array_equal(np.asarray(mine.value), np.asarray(saved.value))
    # Logs of every kind have the figures beside Keras's.
    assert set(run.rows[0]) > FIGURES and len(run.rows) == 4 and set(run.posted[0]) > FIGURES
    if importlib.util.find_spec("tensorboard"):
        board = b"".join(path.read_bytes() for path in (run.folder / "board").rglob("events*"))
        assert all(name in board for name in (b"epoch_loss", b"epoch_tau", b"epoch_importance", b"dense"))


@pytest.mark.parametrize("way", ["plain", "open"])
def test_a_run_that_turns_nan_is_ended(way):
    begin_anew()
    model = dense(run_eagerly=True)
    x = np.where(np.arange(len(X))[:, None] % 20 == 0, np.nan, X)
    history = WAYS[way](model).fit(x, Y, batch_size=32, epochs=3, verbose=0, callbacks=callbacks.TerminateOnNaN())
    assert len(history.history["loss"]) == 1 and model.stop_training


@pytest.mark.parametrize("verbose", [1, 2, "auto"])
def test_the_progress_bar_is_as_verbose_as_in_fit(capsys, verbose):
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
def test_an_error_in_the_loss_leaves_the_model_as_it_was(way, error):
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
    assert model._compile_loss._flat_losses[0].loss is loss
    assert [vars(layer).keys() for layer in model.layers] == [before.keys() for before in inner]
    assert np.isfinite(model.evaluate(X, Y, verbose=0))
    trainer.fit(X, Y, batch_size=16, verbose=0)
