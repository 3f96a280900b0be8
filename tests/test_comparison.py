"""Comparisons with equal budgets: round-robin threads, the clock, the cost of training, and data."""

import threading
import types

import keras
import numpy as np
import pytest
from frameworks import host, needs, tf

from importance_sampling import ImportanceTraining, backend, comparison
from importance_sampling.comparison import Clock, Data, clock, fit_of, identical_models, train
from importance_sampling.comparison import data as data_module
from importance_sampling.comparison.round_robin import RoundRobin, run_round_robin
from importance_sampling.datasets import CanevetICML2016
from importance_sampling.models import lr


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(160, 6)).astype("float32")
    y = keras.utils.to_categorical(x[:, :3].argmax(1), 3).astype("float32")
    return Data(x[:128], y[:128], x[128:], y[128:])


def build():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax")])
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


def arguments(**changes):
    x, y, _, _ = data()
    return dict(x=x, y=y, batch_size=16) | changes


def constant(model):
    return {"loss": 0.0}


def test_threads_run_in_turn_and_finished_threads_are_skipped():
    scheduler, order = RoundRobin(3), []

    def work(index, times):
        for _ in range(times):
            order.append(index)
            scheduler.switch(index)

    run_round_robin(scheduler, [lambda: work(0, 2), lambda: work(1, 1), lambda: work(2, 4)], lambda: None)
    assert order == [0, 1, 2, 0, 2, 2, 2]


def test_a_failing_thread_interrupts_the_others_and_does_not_block_them():
    scheduler, ended, interrupted = RoundRobin(2), threading.Event(), threading.Event()

    def fail():
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        run_round_robin(scheduler, [fail, ended.set], interrupted.set)
    assert ended.is_set() and interrupted.is_set()


class Ticking:
    """A clock with a simulated time."""

    def __init__(self, monkeypatch, **changes):
        self.now = 0.0
        monkeypatch.setattr(clock.time, "perf_counter", lambda: self.now)
        evaluations = iter(range(100))
        self.clock = Clock(object(), lambda model: {"loss": float(next(evaluations))}, **changes)
        self.clock.set_model(types.SimpleNamespace(optimizer=types.SimpleNamespace(learning_rate=0.2)))
        self.clock.set_params({"steps": None})
        self.clock.on_train_begin()

    def steps(self, *durations, batch=1):
        for duration in durations:
            self.now += duration
            self.clock.on_train_batch_end(batch)


def test_the_seconds_of_steps_with_compilation_are_estimated_from_their_cost(monkeypatch):
    ticking = Ticking(monkeypatch, budget=22.0, measurements=2)
    ticking.steps(9.0, 9.0, 9.0, 2.0, 2.0, 2.0, 2.0, 2.0)
    assert ticking.clock.seconds == 0.0
    ticking.steps(1.0, 1.0)
    # Two timed steps took 2 seconds for 6 forward passes; 10 steps cost 30.
    assert (ticking.clock.cost, ticking.clock.seconds) == (30.0, 10.0)
    ticking.steps(99.0)
    assert (ticking.clock.cost, ticking.clock.seconds) == (33.0, 11.0)
    assert [(point["seconds"], point["loss"]) for point in ticking.clock.points] == [(0.0, 0.0), (11.0, 1.0)]


def test_a_long_step_that_recurs_at_its_place_in_the_epoch_is_timed(monkeypatch):
    ticking = Ticking(monkeypatch, budget=1e6)
    ticking.steps(*[1.0] * 10)
    ticking.steps(20.0, batch=0)  # compilation, or the start of the first epoch
    assert ticking.clock.seconds == 11.0
    ticking.steps(20.0, batch=0)
    # Three timed steps took 22 seconds for a cost of 9; 12 steps cost 36.
    assert ticking.clock.seconds == pytest.approx(22 / 9 * 36)


def test_validation_within_fit_is_not_timed(monkeypatch):
    ticking = Ticking(monkeypatch, budget=1e6)
    ticking.steps(*[1.0] * 9)
    ticking.clock.on_test_begin()
    ticking.now += 5.0
    ticking.clock.on_test_end()
    ticking.steps(1.0)
    assert ticking.clock.seconds == 10.0


@pytest.mark.slow
def test_training_stops_at_a_budget_of_cost_and_leaves_the_model_as_it_is():
    both = identical_models(build, 2, seed=1)
    np.testing.assert_array_equal(*(host(model.layers[0].kernel) for model in both))
    attributes = [set(vars(model)) for model in both]
    trainers = [both[0], ImportanceTraining(both[1], tau_th=0, seed=1)]
    _, _, x_test, y_test = data()
    finished = []
    clocks = train(
        trainers,
        arguments(),
        lambda model: {"test_loss": model.evaluate(x_test, y_test, verbose=0)[0]},
        budget=60.0,
        by="cost",
        done=lambda index, clock: finished.append(index),
        measurements=4,
        decay=lambda fraction: 1.0 - fraction,
    )
    # A uniform step costs 3 forward passes, an importance step with a pool of 3 batches costs 6.
    assert [clock.steps for clock in clocks] == [20, 10] and [clock.importance_steps for clock in clocks] == [0, 10]
    assert [point["cost"] for point in clocks[0].points] == [0.0, 15.0, 30.0, 45.0, 60.0]
    assert sorted(finished) == [0, 1]
    assert clocks[0].points[-1]["test_loss"] < clocks[0].points[0]["test_loss"]
    assert all(float(model.optimizer.learning_rate) == 0.0 for model in both)
    assert all("call" not in vars(model) for model in both) and attributes[0] <= set(vars(both[0]))


def test_a_clock_of_its_own_ends_a_fit_after_its_budget_of_epochs():
    model = build()
    alone = Clock(model, constant, budget=2, by="epochs", measurements=2)
    model.fit(**arguments(), epochs=9, verbose=0, callbacks=[alone])
    assert (alone.epochs, alone.steps, alone.stopped_early) == (2.0, 16, False)


def test_a_budget_of_epochs_is_measured_at_fractions_of_epochs_and_ends_after_them():
    [clock] = train([build()], arguments(), constant, budget=2, by="epochs", measurements=4)
    assert clock.epochs == 2.0 and clock.steps == 16
    assert [point["steps"] for point in clock.points] == [0, 4, 8, 12, 16]


class Stopping(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


def test_training_that_a_callback_ends_early_is_measured_at_its_end():
    [clock] = train([build()], arguments(callbacks=[Stopping()]), constant, budget=50.0, by="cost", measurements=1)
    assert [point["steps"] for point in clock.points] == [0, 8] and clock.record()["stopped_early"]
    [clock] = train([build()], arguments(), constant, budget=1, by="epochs", measurements=1)
    assert not clock.record()["stopped_early"]


def test_weights_that_a_callback_restores_at_the_end_are_measured():
    class Restoring(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            self.model.set_weights([np.zeros((6, 3)), np.zeros(3)])

    def size(model):
        return {"loss": float(np.abs(host(model.layers[0].kernel)).sum())}

    [clock] = train([build()], arguments(callbacks=[Restoring()]), size, budget=1, by="epochs", measurements=1)
    assert [point["steps"] for point in clock.points] == [0, 8, 8]
    assert clock.points[1]["loss"] > 0.0 == clock.points[2]["loss"]


def test_an_error_of_a_way_is_raised_and_ends_the_others():
    class Failing:
        def fit(self, **arguments):
            raise RuntimeError("on purpose")

    finished = []
    with pytest.raises(RuntimeError, match="on purpose"):
        train([Failing(), build()], arguments(), constant, 1e9, "cost", lambda index, clock: finished.append(index))
    assert finished == []


def test_every_run_has_its_own_copies_of_the_callbacks():
    counting = keras.callbacks.History()
    train([build(), build()], arguments(callbacks=[counting]), constant, budget=1, by="epochs")
    assert counting.model is None


@needs("tf.data")
def test_training_disables_the_autotuning_of_input_pipelines(monkeypatch):
    from importance_sampling.backend import tensorflow_pipelines

    monkeypatch.setattr(tf.data.Dataset, "__iter__", tensorflow_pipelines.ITERATE)  # as it is outside of tests
    enabled, with_options = [], tf.data.Dataset.with_options

    def spy(dataset, options):
        enabled.append(options.autotune.enabled)
        return with_options(dataset, options)

    def is_tuned(dataset=None):
        """Return the autotuning option of an iterated pipeline; None means TensorFlow's default."""
        dataset = dataset or tf.data.Dataset.range(3)
        enabled[:] = [dataset.options().autotune.enabled]
        assert [int(row) for row in dataset] == [0, 1, 2]
        return enabled[-1]

    class Untrained:
        def fit(self, *data, **options):
            self.tuned = is_tuned()

    monkeypatch.setattr(tf.data.Dataset, "with_options", spy)
    ways = [Untrained(), Untrained()]
    train(ways, arguments(), constant, budget=1.0)
    assert all(way.tuned is False for way in ways) and is_tuned() is None
    with pytest.raises(RuntimeError, match="on purpose"), backend.without_autotune():
        with backend.without_autotune():
            pass
        enabling = tf.data.Options()
        enabling.autotune.enabled = True
        assert is_tuned() is False and is_tuned(tf.data.Dataset.range(3).with_options(enabling)) is True
        raise RuntimeError("on purpose")
    assert is_tuned() is None


def test_the_cost_of_a_trainer_includes_steps_and_probes():
    x, y, _, _ = data()
    scored = []
    trainer = ImportanceTraining(build(), tau_th=1e9, seed=1)
    assert trainer.forward_equivalents == 0.0
    trainer.fit(x, y, batch_size=16, epochs=5, verbose=0, on_scores=lambda sampler, scores: scored.append(len(scores)))
    assert scored == [16, 16]  # probes after 1 step and after 17 more; the next one would be at step 52
    assert trainer.forward_equivalents == 3 * 40 + 2


def test_an_unknown_unit_of_the_budget_raises_value_error():
    with pytest.raises(ValueError, match=r"`by` must be one of seconds, cost, epochs\. Received: by='hours'"):
        Clock(None, None, 1.0, by="hours")


def test_a_large_dataset_is_read_lazily_during_training(monkeypatch):
    grid = CanevetICML2016(N=16)
    in_memory = Data.of(grid)
    monkeypatch.setattr(data_module, "MAX_BYTES", 100)
    lazy = Data.of(grid)
    assert in_memory.in_memory and not lazy.in_memory
    assert lazy.shape == (2,) and lazy.output_size == 2
    np.testing.assert_array_equal(lazy.as_tensors().x_train[np.array([3, 1])], in_memory.x_train[[3, 1]])
    model = lr(lazy.shape, lazy.output_size)
    assert fit_of(model, dict(x=in_memory.x_train, y=in_memory.y_train)) == model.fit
    fit_of(model, dict(x=lazy.x_train, y=lazy.y_train))(lazy.x_train, lazy.y_train, batch_size=64, verbose=0)
    assert int(model.optimizer.iterations.value) == 3


def test_thinned_keeps_the_first_samples_of_a_class():
    labels = np.array([0, 1, 1, 2, 1, 0])
    both = Data(np.arange(6.0), np.eye(3)[labels], np.arange(6.0), np.eye(3)[labels])
    rare = both.thinned({1: 2, 0: 1})
    np.testing.assert_array_equal(rare.x_train, [0, 1, 2, 3])
    assert len(rare.y_train) == 4 and len(rare.x_test) == 6
    assert [len(part) for part in both.first(2)] == [2, 2, 2, 2]


def test_deprecated_names_warn_and_still_work():
    x = np.zeros((2, 1), "float32")
    with pytest.warns(DeprecationWarning, match="use `comparison.identical_models`"):
        assert comparison.alike is identical_models
    with pytest.warns(DeprecationWarning, match="use `Data.as_tensors`"):
        assert len(Data(x, x, x, x).resident().x_train) == 2
    with pytest.warns(DeprecationWarning, match="use `importance_steps`"):
        assert Clock(None, None, 1.0).open_steps == 0
