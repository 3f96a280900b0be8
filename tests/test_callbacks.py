"""The files of `SamplingTensorBoard`, read by TensorBoard, and the seconds of training in History."""

import keras
import numpy as np
import pytest
import toys
from frameworks import needs, tf

from importance_sampling import ImportanceTraining
from importance_sampling.callbacks import SamplingCallback, SamplingTensorBoard, TrainingSeconds, seconds

SCALARS = {"tau", "importance share", "mean score", "effective sample size"}


@pytest.fixture(scope="module")
def stream():
    x = np.random.default_rng(5).normal(size=(48, 4)).astype("float32")
    return toys.stream(x, x[:, :3].argmax(1), 8)


def build():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def read(folder):
    """`{tag: {step: value}}`."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulators.EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return {
        tag.removeprefix("importance/"): {e.step: tf.make_ndarray(e.tensor_proto) for e in events.Tensors(tag)}
        for tag in events.Tags()["tensors"]
    }


@needs("TensorFlow")
def test_tensorboard_files_contain_the_values_of_history_and_of_the_draws(stream, tmp_path):
    pytest.importorskip("tensorboard")
    callback, received, figures = SamplingTensorBoard(tmp_path), [], []
    trainer = ImportanceTraining(build(), tau_th=0, seed=1)
    for epochs in (2, 1):
        history = trainer.fit(
            stream,
            shuffle=False,
            epochs=epochs,
            verbose=0,
            callbacks=[callback],
            on_sample=lambda *args: received.append(args[2:]),
        ).history
        figures += list(zip(history["tau"], history["importance"], history["score"], strict=True))
    written = read(tmp_path)
    assert set(written) == {*SCALARS, "scores", "weights"}
    assert all(list(values) == [0, 1, 2] for values in written.values())
    for step, values in enumerate(figures):
        assert [written[name][step] for name in ("tau", "importance share", "mean score")] == pytest.approx(values)
    for step in range(3):
        weights = np.stack([w for w, _ in received[6 * step : 6 * step + 6]])
        effective = np.mean(weights.sum(1) ** 2 / (weights**2).sum(1))
        assert written["effective sample size"][step] == pytest.approx(effective, rel=1e-5)
        # A row of a histogram: lower limit, upper limit, count.
        assert written["weights"][step][:, 2].sum() == weights.size
        assert written["weights"][step][0, 0] == pytest.approx(weights.min())


@needs("TensorFlow")
def test_quantities_that_were_not_measured_are_not_written(stream, tmp_path):
    pytest.importorskip("tensorboard")
    trainer = ImportanceTraining(build(), tau_th=float("inf"))
    trainer.fit(stream, shuffle=False, verbose=0, callbacks=[SamplingTensorBoard(tmp_path)])
    assert {name: values[0].item() for name, values in read(tmp_path).items()} == {"importance share": 0.0}


@needs("TensorFlow")
def test_the_error_without_tensorboard_names_the_package_to_install(stream, monkeypatch, tmp_path):
    monkeypatch.delattr(tf.summary, "histogram")
    with pytest.raises(ImportError, match="Writing for TensorBoard needs TensorBoard: pip install tensorboard"):
        ImportanceTraining(build()).fit(stream, shuffle=False, verbose=0, callbacks=[SamplingTensorBoard(tmp_path)])


def test_seconds_of_training_exclude_validation_and_the_time_between_fits(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(seconds.time, "perf_counter", lambda: now[0])
    callback, logged = TrainingSeconds(), []

    def epoch(training, validation):
        now[0] += training
        callback.on_test_begin()
        now[0] += validation
        callback.on_test_end()
        logs = {}
        callback.on_epoch_end(0, logs)
        logged.append(logs["seconds"])

    callback.on_train_begin()
    epoch(2.0, 50.0)
    epoch(3.0, 70.0)
    now[0] += 1000.0  # between two fits
    callback.on_train_begin()
    epoch(1.5, 0.0)
    assert logged == [2.0, 5.0, 6.5]


def test_history_contains_the_seconds_of_training(stream):
    history = build().fit(stream, shuffle=False, epochs=2, verbose=0, callbacks=[TrainingSeconds()]).history
    assert 0 < history["seconds"][0] < history["seconds"][1]


def test_seconds_of_training_exclude_evaluations_outside_fit(monkeypatch):
    now = [100.0]

    def tick():
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr(seconds.time, "perf_counter", tick)
    x, y = np.zeros((4, 4), "float32"), np.zeros(4, "int32")

    def history(evaluates):
        model, callback, logged = build(), TrainingSeconds(), []
        for _ in range(3):
            if evaluates:
                now[0] += 50.0
                model.evaluate(x, y, verbose=0, callbacks=[callback])
                now[0] += 50.0
            logged += model.fit(x, y, verbose=0, callbacks=[callback]).history["seconds"]
        return logged

    assert history(True) == history(False)


def test_keras_waits_for_the_batch_hooks_of_a_subclass_of_the_sampling_callback():
    class WithHook(SamplingCallback):
        def on_train_batch_end(self, batch, logs=None):
            pass

    class Inherited(WithHook):
        pass

    class Mixin:
        def on_train_batch_end(self, batch, logs=None):
            pass

    class Mixed(Mixin, SamplingCallback):
        pass

    assert not Mixed.async_safe

    class Asynchronous(SamplingCallback):
        async_safe = True

        def on_train_batch_end(self, batch, logs=None):
            pass

    assert [kind.async_safe for kind in (SamplingCallback, WithHook, Inherited, Asynchronous)] == [
        True,
        False,
        False,
        True,
    ]
