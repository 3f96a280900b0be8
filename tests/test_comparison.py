"""Equal budgets: turns in order, clocks that count training alone, trainers that tell what they cost."""

import threading
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from importance_sampling import ImportanceTraining, backend
from importance_sampling.backend import tensorflow_pipelines
from importance_sampling.comparison import (
    Budget,
    Clock,
    Data,
    Evaluation,
    Panel,
    Point,
    Task,
    alike,
    check,
    clock,
    compare,
    draw,
    fit_of,
    train,
)
from importance_sampling.comparison import (
    data as data_module,
)
from importance_sampling.comparison.turns import Turns, by_turns
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


def test_turns_go_round_and_pass_over_whoever_has_left():
    turns, order = Turns(3), []

    def work(number, times):
        for _ in range(times):
            order.append(number)
            turns.hand_over(number)

    by_turns(turns, [lambda: work(0, 2), lambda: work(1, 1), lambda: work(2, 4)], lambda: None)
    assert order == [0, 1, 2, 0, 2, 2, 2]


def test_one_that_fails_does_not_hold_up_the_others():
    turns, ended = Turns(2), threading.Event()

    def fail():
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        by_turns(turns, [fail, ended.set], lambda: None)
    assert ended.is_set()


def test_steps_that_compile_are_charged_by_their_cost(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
    model = types.SimpleNamespace(call=lambda: None, optimizer=types.SimpleNamespace(learning_rate=0.2))
    evaluations = iter(range(100))
    ticking = Clock(model, lambda model: (float(next(evaluations)), 0.0, 0.0), budget=20.0, measurements=2)
    ticking.set_model(model)
    ticking.on_train_begin()

    def step(lap, traced=False):
        if traced:
            model.call()
        now[0] += lap
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


def test_a_budget_of_cost_ends_each_way_when_it_is_spent_and_leaves_the_model_as_it_was():
    both, measured = alike(build, 2, seed=1), data()
    np.testing.assert_array_equal(*(model.layers[0].kernel.value.numpy() for model in both))
    rates = [float(model.optimizer.learning_rate) for model in both]
    trainers = [both[0], ImportanceTraining(both[1], tau_th=0, seed=1)]
    finished = []
    clocks = train(
        trainers,
        measured.resident(),
        Evaluation(measured, rows=64),
        budget=60.0,
        by="cost",
        batch_size=16,
        done=lambda number, clock: finished.append(number),
        measurements=4,
        decay=lambda share: 1.0 - share,
    )
    # A plain step costs 3, an open one with its pool of 3 batches 6.
    assert [clock.steps for clock in clocks] == [20, 10] and [clock.open_steps for clock in clocks] == [0, 10]
    assert [point.cost for point in clocks[0].points] == [0.0, 15.0, 30.0, 45.0, 60.0]
    assert sorted(finished) == [0, 1]
    first, last = clocks[0].points[0], clocks[0].points[-1]
    assert last.train_loss < first.train_loss and 0 <= last.test_error <= 100
    assert rates[0] > 0 and all(float(model.optimizer.learning_rate) == 0.0 for model in both)
    assert all("call" not in vars(model) for model in both)


def test_a_run_that_fails_leaves_the_model_as_it_was():
    model = build()

    def fail(clock):
        if clock.steps:
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        train([model], data().resident(), lambda model: (0.0,) * 3, budget=4, by="steps", batch_size=16, measured=fail)
    assert "call" not in vars(model)


def test_nobody_waits_for_a_thread_that_tunes_what_feeds_a_model(monkeypatch):
    monkeypatch.setattr(tf.data.Dataset, "__iter__", tensorflow_pipelines._iterate)  # as it is outside of tests
    given, with_options = [], tf.data.Dataset.with_options

    def spy(dataset, options):
        given.append(options.autotune.enabled)
        return with_options(dataset, options)

    def tuned(dataset=None):
        """Whether an iterator's pipeline is; None: as TensorFlow likes."""
        dataset = dataset or tf.data.Dataset.range(3)
        given[:] = [dataset.options().autotune.enabled]
        assert [int(row) for row in dataset] == [0, 1, 2]
        return given[-1]

    class Untrained:
        def fit(self, *data, **options):
            self.tuned = tuned()

    monkeypatch.setattr(tf.data.Dataset, "with_options", spy)
    ways = [Untrained(), Untrained()]
    train(ways, data(), lambda model: (0.0, 0.0, 0.0), budget=1.0)
    assert all(way.tuned is False for way in ways) and tuned() is None
    with pytest.raises(RuntimeError, match="on purpose"), backend.untuned():
        with backend.untuned():
            pass
        wanted = tf.data.Options()
        wanted.autotune.enabled = True
        assert tuned() is False and tuned(tf.data.Dataset.range(3).with_options(wanted)) is True
        raise RuntimeError("on purpose")
    assert tuned() is None


def test_a_trainer_tells_its_cost_steps_pools_and_looks():
    x, y, _, _ = data()
    scored = []
    trainer = ImportanceTraining(build(), tau_th=1e9, seed=1)
    assert trainer.forward_equivalents == 0.0
    trainer.fit(x, y, batch_size=16, epochs=5, verbose=0, on_scores=lambda sampler, scores: scored.append(len(scores)))
    assert scored == [16, 16]  # after 1 step and 17 more; the next look would be the 52nd step's
    assert trainer.forward_equivalents == 3 * 40 + 2


def test_the_unit_of_a_budget_must_be_known():
    with pytest.raises(ValueError, match=r"`by` must be one of seconds, cost, steps\. Received: by='hours'"):
        Clock(None, None, 1.0, by="hours")


def test_a_picture_is_drawn_of_runs_of_unequal_length(tmp_path):
    pytest.importorskip("matplotlib")
    runs = [[Point(s, 3.0 * s, s, 1 / (1 + s), 1.0, 50.0 - s) for s in range(n)] for n in (5, 6)]
    path = tmp_path / "picture.png"
    panels = [Panel("train_loss", "training loss", log=True), Panel("test_error", "test error (%)")]
    draw({"plain": runs, "ours": runs[:1]}, panels, path, over="cost")
    assert path.stat().st_size > 10000


def test_a_task_is_trained_in_all_its_ways_from_the_same_weights_and_what_finished_is_kept():
    runs, looks = [], []

    class Failing:
        def __init__(self, model):
            self.model = model

        def fit(self, *args, **kwargs):
            raise RuntimeError("on purpose")

    ways = {
        "plain": lambda model, seed: model,
        "failing": lambda model, seed: Failing(model),
        "ours": lambda model, seed: ImportanceTraining(model, tau_th=0, seed=seed),
    }
    task = Task("toy", data(), build, ways, batch_size=16)
    check(task)
    with pytest.raises(RuntimeError, match="on purpose"):
        compare(
            task,
            Budget(4, "steps"),
            [3],
            lambda run, trainer: runs.append(run),
            lambda way, seed, clock: looks.append((way, seed, clock.steps)),
            measurements=2,
        )
    assert sorted(run["way"] for run in runs) == ["ours", "plain"]
    assert all((run["steps"], run["seed"], run["protocol"]) == (4, 3, "anytime") for run in runs)
    assert [steps for way, _, steps in looks if way == "plain"] == [0, 2, 4]
    first, second = (run["points"][0] for run in runs)
    assert first == second and first["steps"] == 0
    assert {run["way"]: run["open_steps"] for run in runs} == {"plain": 0, "ours": 4}


def test_what_does_not_fit_together_is_found_ahead_of_training():
    wrong = data()._replace(y_test=np.zeros((32, 4), "float32"))
    with pytest.raises(ValueError, match="shape"):
        check(Task("toy", wrong, build, {}))


def test_rows_of_a_large_data_set_are_read_as_asked_for_and_can_be_trained_on(monkeypatch):
    grid = CanevetICML2016(N=16)
    whole = Data.of(grid)
    monkeypatch.setattr(data_module, "MOST", 100)
    asked = Data.of(grid)
    assert whole.in_memory and not asked.in_memory
    assert asked.shape == (2,) and asked.output_size == 2
    np.testing.assert_array_equal(asked.resident().x_train[np.array([3, 1])], whole.x_train[[3, 1]])
    model = lr(asked.shape, asked.output_size)
    assert fit_of(model, whole) == model.fit
    fit_of(model, asked)(asked.x_train, asked.y_train, batch_size=64, verbose=0)
    assert int(model.optimizer.iterations.value) == 3


def test_classes_are_made_rare_by_their_first_rows():
    labels = np.array([0, 1, 1, 2, 1, 0])
    both = Data(np.arange(6.0), np.eye(3)[labels], np.arange(6.0), np.eye(3)[labels])
    rare = both.thinned({1: 2, 0: 1})
    np.testing.assert_array_equal(rare.x_train, [0, 1, 2, 3])
    assert len(rare.y_train) == 4 and len(rare.x_test) == 6
    assert [len(part) for part in both.first(2)] == [2, 2, 2, 2]
