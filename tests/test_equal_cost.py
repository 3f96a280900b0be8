"""The benchmarks of trainers at equal cost, and of estimates from old scores: figures, costs and tables."""

import equal_cost
import keras
import numpy as np
import old_scores
import pytest
import stages
from analysis import own_spread
from budget_runs import sampled, settings, train_runs
from equal_cost import ClassWeights
from evaluation import balanced_error
from keras import layers
from results import Results
from tasks import Task

from importance_sampling.comparison import Data
from importance_sampling.training import SelectiveBackprop

ROWS = 96


def data():
    labels = (np.arange(ROWS) % 8 == 0).astype("int64")
    x = np.random.default_rng(0).normal(size=(ROWS, 2)).astype("float32") + labels[:, None]
    y = np.eye(2, dtype="float32")[labels]
    return Data(x, y, x[:48], y[:48])


def build():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2, "softmax")])
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture
def task(monkeypatch):
    task = Task(lambda path: data(), build, 0.01, 0.01, batch_size=16, has_rare_classes=True)
    monkeypatch.setattr(equal_cost.tasks, "get", lambda name: task)
    return task


def test_the_balanced_error_is_the_mean_of_the_errors_of_the_classes():
    # Class 0: one of three is wrong; class 1: one of one.
    targets, p = np.array([0, 0, 0, 1]), np.array([0.1, 0.2, 0.9, 0.3])
    assert balanced_error(targets[:, None], p[:, None]) == pytest.approx(200 / 3)
    assert balanced_error(np.eye(3)[targets], np.stack([1 - p, p, 0 * p], 1)) == pytest.approx(200 / 3)


def test_the_baseline_has_its_own_spread():
    rows = [{"way": "uniform", "test_loss": dict(median=2.0, quartiles=[1.0, 5.0], n=3)}, {"way": "default"}]
    spread = own_spread(rows, "uniform")
    assert spread[0]["test_loss over uniform"] == dict(median=1.0, quartiles=[0.5, 2.5], n=3)
    assert spread[1] == rows[1] and "test_loss over uniform" not in rows[0]


def test_training_samples_are_drawn_at_random_the_same_for_every_call():
    some = sampled(data(), 20)
    assert len(some.x_train) == len(some.y_train) == 20 and len(some.x_test) == 48
    np.testing.assert_array_equal(some.x_train, sampled(data(), 20).x_train)
    assert (some.x_train != data().x_train[:20]).any()


def test_class_weights_let_all_classes_count_equally(monkeypatch):
    received = {}
    model = build()
    monkeypatch.setattr(model, "fit", lambda x, y, **arguments: received.update(arguments))
    ClassWeights(model).fit(data().x_train, data().y_train, epochs=3)
    assert received == dict(epochs=3, class_weight={0: ROWS / (2 * 84), 1: ROWS / (2 * 12)})


def test_a_schedule_by_epochs_is_that_of_the_budget(task, tmp_path):
    results = Results(tmp_path / "results.jsonl")
    # Of 6 epochs half select, at a cost of 1/3 + 1/2: 6 * (1/2 + 5/12) = 5.5 epochs of model.fit.
    trainer = SelectiveBackprop(build(), start=0.0, end=0.5, interrupt=0, seed=1)
    train_runs([settings("satellite", "selective", 1, 5.5)], [trainer], data(), results, epochs=6)
    (run,) = results.all()
    assert (run["steps"], run["importance_steps"], run["cost"]) == (36, 18, 99)
    assert float(trainer.model.optimizer.learning_rate) == pytest.approx(0.0, abs=1e-9)


def test_the_benchmark_at_equal_cost_writes_its_tables_and_does_not_repeat_runs(task, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(equal_cost, "QUICK_EPOCHS", 1)
    arguments = ["x", "--quick", "--out", str(tmp_path), "--ways", "uniform", "class weights"]
    monkeypatch.setattr("sys.argv", arguments)
    equal_cost.main()
    assert "`satellite`, uniform" in (tmp_path / "table.md").read_text()
    rare = (tmp_path / "rare_classes.md").read_text()
    assert all(f"`satellite`, {way} " in rare for way in arguments[-2:]) and "balanced error, %" in rare
    assert capsys.readouterr().out.count("seed 1, ") == 2
    runs = Results(tmp_path / "results.jsonl").all()
    assert [run["cost"] for run in runs] == [18, 18]
    equal_cost.main()
    assert "seed 1, " not in capsys.readouterr().out


def test_the_benchmark_of_old_scores_writes_its_table(task, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(stages, "QUICK", [7, 13])
    monkeypatch.setattr("sys.argv", ["x", "--quick", "--seeds", "1", "--out", str(tmp_path)])
    old_scores.main()
    table = (tmp_path / "table.md").read_text().splitlines()
    assert len(table) == 4 and "`mnist_mlp`, 13" in table[3]
    assert all(f"variance: {name} " in table[0] for name in old_scores.ESTIMATES)


def test_the_variance_and_the_error_of_estimates_are_those_of_their_probabilities():
    exact = np.array([1.0, 2.0, 5.0])
    figures = old_scores.compare({"exact": exact, "equal": np.ones(3)}, exact)
    p = 0.9 * exact / 8 + 0.1 / 3
    assert figures["variance exact"] == pytest.approx((exact**2 / p).sum() / (exact**2 * 3).sum())
    assert figures["variance equal"] == pytest.approx(1) and figures["error equal"] == pytest.approx(1)
    assert figures["error exact"] == pytest.approx(0.01)
