"""What callbacks may do while a trainer's `fit` runs, and find: closed as under `model.fit`, open as promised."""

import copy
import json
import pickle
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import keras
import numpy as np
import pytest
from drop_in_cases import Hooks, assert_equal, begin_anew, data

from importance_sampling import ImportanceTraining

CLOSED, OPEN = 1e9, 0
GATES = pytest.mark.parametrize("tau_th", [CLOSED, OPEN], ids=["closed", "open"])
X, Y = data(rows=96)
STEPS = 6  # an epoch


class Calling(keras.callbacks.Callback):
    """Calls a function with the model in one of its hooks: in every step's, at the end of every epoch, ..."""

    def __init__(self, hook, function):
        super().__init__()
        setattr(self, hook, lambda *_, **__: function(self.model))


def build(optimizer="adam", **options):
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3, activation="softmax")]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **options)
    return model


def run(callbacks=(), tau_th=None, make=build, epochs=2, **more):
    """A `fit`, plain without a threshold; returns the model, what was returned and who ran it."""
    begin_anew()
    model = make()
    trainer = model if tau_th is None else ImportanceTraining(model, tau_th=tau_th, seed=1)
    history = trainer.fit(X, Y, batch_size=16, epochs=epochs, verbose=0, callbacks=list(callbacks), **more)
    return model, history, trainer


def each_gate_beside_plain(callbacks, **more):
    """The plain model, and the trained one for closed and open gates; closed equals plain bit for bit."""
    plain, _, _ = run(callbacks(), **more)
    closed, _, _ = run(callbacks(), CLOSED, **more)
    assert_equal(plain, closed)
    opened, _, open_trainer = run(callbacks(), OPEN, **more)
    assert (int(closed.optimizer.iterations), int(opened.optimizer.iterations)) == (
        int(plain.optimizer.iterations),
    ) * 2
    assert all(np.isfinite(np.asarray(v)).all() for v in opened.weights)
    return plain, opened, open_trainer


def test_a_callback_trains_the_model_by_itself_on_its_own_data():
    x, y = data(1, 40)
    met = []

    def train(model):
        model.evaluate(x, y, verbose=0)
        model.predict(x, verbose=0)
        model.train_on_batch(x[:16], y[:16])
        model.fit(x, y, batch_size=16, verbose=0, callbacks=[Hooks()])
        met.append(int(model.optimizer.iterations))

    _, _, trainer = each_gate_beside_plain(lambda: [Calling("on_epoch_end", train)])
    # Of its own steps it counts its own alone: 4 of the callback's lie between two epochs.
    assert met[-2:] == [STEPS + 4, 2 * STEPS + 8]
    assert trainer.open_steps == 2 * STEPS


def test_a_callback_trains_the_model_in_the_midst_of_an_epoch():
    def train(model):
        if int(model.optimizer.iterations) in (2, 3, 8):
            model.fit(X[:20], Y[:20], batch_size=16, verbose=0)

    _, _, trainer = each_gate_beside_plain(lambda: [Calling("on_train_batch_begin", train)])
    assert trainer.open_steps == 2 * STEPS


def test_a_memory_map_is_no_obstacle_to_a_callback_that_trains_on_arrays(tmp_path):
    mapped = np.memmap(tmp_path / "x", X.dtype, "w+", shape=X.shape)
    mapped[:] = X

    def trained(wrap):
        begin_anew()
        model = build()
        hook = Calling("on_train_batch_end", lambda model: model.fit(X[:16], Y[:16], verbose=0))
        wrap(model).fit(mapped, Y, batch_size=16, verbose=0, callbacks=[hook])
        return model

    plain = trained(lambda model: model)
    assert_equal(plain, trained(lambda model: ImportanceTraining(model, tau_th=CLOSED)))
    opened = trained(lambda model: ImportanceTraining(model, tau_th=OPEN))
    assert int(opened.optimizer.iterations) == int(plain.optimizer.iterations) == 2 * STEPS


def test_a_callback_stops_the_training_in_the_midst_of_an_epoch():
    def stop(model):
        model.stop_training = int(model.optimizer.iterations) == STEPS + 2

    plain, _, _ = each_gate_beside_plain(lambda: [Calling("on_train_batch_end", stop)])
    assert int(plain.optimizer.iterations) == STEPS + 2


def test_a_learning_rate_that_a_callback_sets_holds_from_the_next_step():
    seen = []

    def freeze(model):
        model.optimizer.learning_rate = 0.0
        seen.append([np.array(v) for v in model.get_weights()])

    _, opened, _ = each_gate_beside_plain(lambda: [Calling("on_epoch_end", freeze)], make=lambda: build("sgd"))
    for first, last in zip(seen[-2], opened.get_weights(), strict=True):
        np.testing.assert_array_equal(first, last)


def test_the_average_of_the_weights_is_swapped_in():
    def make():
        return build(keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.9))

    def callbacks():
        return [keras.callbacks.SwapEMAWeights(swap_on_epoch=True), Calling("on_train_end", lambda _: None)]

    _, opened, _ = each_gate_beside_plain(callbacks, make=make, validation_data=(X, Y))
    assert opened.evaluate(X, Y, verbose=0)[0] < 1.1


@GATES
def test_hooks_find_the_keys_that_they_find_under_fit(tau_th):
    plain, trained = Hooks(), Hooks()
    run([plain], validation_data=(X, Y))
    run([trained], tau_th, validation_data=(X, Y))
    assert trained.called == plain.called

    def keys(into):
        def note(_, logs=None):
            into.append(sorted(logs or {}))

        hooks = ("on_train_batch_begin", "on_train_batch_end", "on_epoch_begin", "on_epoch_end", "on_test_batch_end")
        return keras.callbacks.LambdaCallback(**dict.fromkeys(hooks, note))

    before, after = [], []
    run([keys(before)], validation_data=(X, Y))
    _, history, _ = run([keys(after)], tau_th, validation_data=(X, Y))
    assert after == before
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy", "score", "tau", "importance"}


@GATES
@pytest.mark.parametrize("as_json", [True, False], ids=["json", "form"])
def test_a_monitor_far_away_gets_strict_json(tau_th, as_json):
    pytest.importorskip("requests", reason="requests isn't installed")
    received = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        monitor = keras.callbacks.RemoteMonitor(
            f"http://127.0.0.1:{server.server_port}", path="/", send_as_json=as_json
        )
        _, history, _ = run([monitor], tau_th)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert len(received) == 2
    if as_json:
        told = json.loads(received[-1], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert told == {"epoch": 1, "loss": history.history["loss"][-1], "accuracy": history.history["accuracy"][-1]}


@GATES
def test_a_csv_holds_the_metrics_of_the_model(tmp_path, tau_th):
    run([keras.callbacks.CSVLogger(tmp_path / "log.csv")], tau_th)
    assert (tmp_path / "log.csv").read_text().splitlines()[0] == "epoch,accuracy,loss"


@GATES
def test_compiled_anew_between_two_fits_it_goes_on(tau_th):
    model, _, trainer = run((), tau_th)
    steps = trainer.open_steps
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", ["sparse_top_k_categorical_accuracy"])
    history = trainer.fit(X, Y, batch_size=16, verbose=0).history
    assert set(history) == {"loss", "sparse_top_k_categorical_accuracy", "score", "tau", "importance"}
    assert int(model.optimizer.iterations) == STEPS
    assert trainer.open_steps - steps == (STEPS if tau_th == OPEN else 0)


@GATES
def test_the_model_is_copied_saved_and_pickled_during_and_after(tmp_path, tau_th):
    def copies(model):
        model.save(tmp_path / "model.keras")
        clone = keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        return [
            keras.models.load_model(tmp_path / "model.keras"),
            pickle.loads(pickle.dumps(model)),
            copy.deepcopy(model),
            clone,
        ]

    during = []
    model, _, _ = run(
        [Calling("on_epoch_end", lambda model: during.append((model.get_weights(), copies(model))))], tau_th
    )
    for expected, found in [*during, (model.get_weights(), copies(model))]:
        for one in found:
            assert one.train_function is None
            for value, same in zip(expected, one.get_weights(), strict=True):
                np.testing.assert_array_equal(value, same)
    plain = during[0][1][1]
    plain.fit(X, Y, batch_size=16, verbose=0)
    assert int(plain.optimizer.iterations) == 2 * STEPS
