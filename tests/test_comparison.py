"""Comparisons with equal budgets: round-robin threads, the clock, the cost of training, and data."""

import threading
import types

import keras
import numpy as np
import pytest
from frameworks import tf

from importance_sampling import ImportanceTraining, backend, comparison
from importance_sampling.backend import tensorflow_pipelines
from importance_sampling.comparison import (
    Budget,
    Clock,
    Data,
    Evaluation,
    Panel,
    Point,
    Task,
    check,
    clock,
    compare,
    draw,
    fit_of,
    identical_models,
    train,
)
from importance_sampling.comparison import (
    data as data_module,
)
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


def test_threads_run_in_turn_and_finished_threads_are_skipped():
    scheduler, order = RoundRobin(3), []

    def work(index, times):
        for _ in range(times):
            order.append(index)
            scheduler.switch(index)

    run_round_robin(scheduler, [lambda: work(0, 2), lambda: work(1, 1), lambda: work(2, 4)], lambda: None)
    assert order == [0, 1, 2, 0, 2, 2, 2]


def test_a_failing_thread_does_not_block_the_others():
    scheduler, ended = RoundRobin(2), threading.Event()

    def fail():
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        run_round_robin(scheduler, [fail, ended.set], lambda: None)
    assert ended.is_set()


def test_the_seconds_of_steps_with_compilation_are_estimated_from_their_cost(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
    model = types.SimpleNamespace(call=lambda: None, optimizer=types.SimpleNamespace(learning_rate=0.2))
    evaluations = iter(range(100))
    ticking = Clock(model, lambda model: (float(next(evaluations)), 0.0, 0.0), budget=20.0, measurements=2)
    ticking.set_model(model)
    ticking.on_train_begin()

    def step(duration, traced=False):
        if traced:
            model.call()
        now[0] += duration
        ticking.on_train_batch_end(0)

    for _ in range(3):
        step(9.0)
    assert ticking.seconds == 0.0
    step(2.0)
    step(2.0)
    # Two timed steps took 4 seconds for 6 forward passes; 5 steps cost 15.
    assert (ticking.cost, ticking.seconds) == (15.0, 10.0)
    step(9.0, traced=True)
    assert (ticking.cost, ticking.seconds) == (18.0, 12.0)
    assert [(point.seconds, point.train_loss) for point in ticking.points] == [(0.0, 0.0), (10.0, 1.0)]


def test_training_stops_at_a_budget_of_cost_and_restores_the_model():
    both, measured = identical_models(build, 2, seed=1), data()
    np.testing.assert_array_equal(*(model.layers[0].kernel.value.numpy() for model in both))
    rates = [float(model.optimizer.learning_rate) for model in both]
    trainers = [both[0], ImportanceTraining(both[1], tau_th=0, seed=1)]
    finished = []
    clocks = train(
        trainers,
        measured.as_tensors(),
        Evaluation(measured, rows=64),
        budget=60.0,
        by="cost",
        batch_size=16,
        done=lambda index, clock: finished.append(index),
        measurements=4,
        decay=lambda fraction: 1.0 - fraction,
    )
    # A uniform step costs 3 forward passes, an importance step with a pool of 3 batches costs 6.
    assert [clock.steps for clock in clocks] == [20, 10] and [clock.importance_steps for clock in clocks] == [0, 10]
    assert [point.cost for point in clocks[0].points] == [0.0, 15.0, 30.0, 45.0, 60.0]
    assert sorted(finished) == [0, 1]
    first, last = clocks[0].points[0], clocks[0].points[-1]
    assert last.train_loss < first.train_loss and 0 <= last.test_error <= 100
    assert rates[0] > 0 and all(float(model.optimizer.learning_rate) == 0.0 for model in both)
    assert all("call" not in vars(model) for model in both)


def test_a_measurement_is_an_epoch_for_the_callback_of_measurements():
    model = build()
    model.optimizer.learning_rate = 0.5
    test_losses, rates = iter([4.0, 3.0, 3.5, 3.2, 3.1, 2.0]), []
    train(
        [model],
        data().as_tensors(),
        lambda model: (1.0, next(test_losses), 0.0),
        budget=5,
        by="steps",
        batch_size=16,
        measurements=5,
        measured=lambda clock: rates.append(float(model.optimizer.learning_rate)),
        measurement_callback=lambda: keras.callbacks.ReduceLROnPlateau(patience=2, factor=0.5, min_delta=0),
    )
    # The second measurement in a row without a lower test loss than 3 is that of 3.2.
    assert rates == [0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_a_failing_run_restores_the_model():
    model = build()

    def fail(clock):
        if clock.steps:
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        train(
            [model], data().as_tensors(), lambda model: (0.0,) * 3, budget=4, by="steps", batch_size=16, measured=fail
        )
    assert "call" not in vars(model)


def test_training_disables_the_autotuning_of_input_pipelines(monkeypatch):
    monkeypatch.setattr(tf.data.Dataset, "__iter__", tensorflow_pipelines._iterate)  # as it is outside of tests
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
    train(ways, data(), lambda model: (0.0, 0.0, 0.0), budget=1.0)
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
    with pytest.raises(ValueError, match=r"`by` must be one of seconds, cost, steps\. Received: by='hours'"):
        Clock(None, None, 1.0, by="hours")


def test_runs_of_unequal_length_are_plotted(tmp_path):
    pytest.importorskip("matplotlib")
    runs = [[Point(s, 3.0 * s, s, 1 / (1 + s), 1.0, 50.0 - s) for s in range(n)] for n in (5, 6)]
    path = tmp_path / "plot.png"
    panels = [Panel("train_loss", "training loss", log=True), Panel("test_error", "test error (%)")]
    draw({"uniform": runs, "importance": runs[:1]}, panels, path, over="cost")
    assert path.stat().st_size > 10000


def test_all_ways_start_with_equal_weights_and_a_failing_way_does_not_affect_the_others():
    runs, measurements = [], []

    class Failing:
        def __init__(self, model):
            self.model = model

        def fit(self, *args, **kwargs):
            raise RuntimeError("on purpose")

    ways = {
        "uniform": lambda model, seed: model,
        "failing": lambda model, seed: Failing(model),
        "importance": lambda model, seed: ImportanceTraining(model, tau_th=0, seed=seed),
    }
    task = Task("toy", data(), build, ways, batch_size=16)
    check(task)
    with pytest.raises(RuntimeError, match="on purpose"):
        compare(
            task,
            Budget(4, "steps"),
            [3],
            lambda run, trainer: runs.append(run),
            lambda way, seed, clock: measurements.append((way, seed, clock.steps)),
            measurements=2,
        )
    assert sorted(run["way"] for run in runs) == ["importance", "uniform"]
    assert all((run["steps"], run["seed"], run["protocol"]) == (4, 3, "anytime") for run in runs)
    assert [steps for way, _, steps in measurements if way == "uniform"] == [0, 2, 4]
    first, second = (run["points"][0] for run in runs)
    assert first == second and first["steps"] == 0
    assert {run["way"]: run["importance_steps"] for run in runs} == {"uniform": 0, "importance": 4}


def test_check_finds_a_model_that_does_not_match_the_data():
    wrong = data()._replace(y_test=np.zeros((32, 4), "float32"))
    with pytest.raises(ValueError, match="shape"):
        check(Task("toy", wrong, build, {}))


def test_a_large_dataset_is_read_lazily_during_training(monkeypatch):
    grid = CanevetICML2016(N=16)
    in_memory = Data.of(grid)
    monkeypatch.setattr(data_module, "MAX_BYTES", 100)
    lazy = Data.of(grid)
    assert in_memory.in_memory and not lazy.in_memory
    assert lazy.shape == (2,) and lazy.output_size == 2
    np.testing.assert_array_equal(lazy.as_tensors().x_train[np.array([3, 1])], in_memory.x_train[[3, 1]])
    model = lr(lazy.shape, lazy.output_size)
    assert fit_of(model, in_memory) == model.fit
    fit_of(model, lazy)(lazy.x_train, lazy.y_train, batch_size=64, verbose=0)
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
