"""The benchmark of wrong labels: which labels it changes, what its ways cost, and its tables."""

import keras
import noisy_labels
import numpy as np
import pytest
from keras import layers
from noisy_labels import CleanedTraining, nearest_classes, shares_of_wrong, with_wrong_labels
from tasks import Task

from importance_sampling.comparison import Data
from importance_sampling.labels import OutOfSample

MEANS = np.array([0.0, 10.0, 1.0, 8.0])  # the nearest classes of 0, 1, 2, 3 are 2, 3, 0, 1


def data(rows=400):
    labels = np.arange(rows) % 4
    x = np.random.default_rng(0).normal(size=(rows, 2)).astype("float32") * 0.1 + MEANS[labels, None]
    y = np.eye(4, dtype="float32")[labels]
    return Data(x, y, x[:80], y[:80])


def build():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(4, "softmax")])
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


def test_a_fraction_of_the_labels_is_changed_to_another_class_at_random():
    clean = data(4000)
    noisy, wrong = with_wrong_labels(clean, "uniform 20%", seed=1)
    before, after = clean.y_train.argmax(1), noisy.y_train.argmax(1)
    np.testing.assert_array_equal(before != after, wrong)
    assert abs(wrong.mean() - 0.2) < 5 * np.sqrt(0.16 / 4000)
    counts = np.bincount((after - before)[wrong] % 4, minlength=4)
    assert counts[0] == 0 and counts[1:].min() > wrong.sum() / 3 - 5 * np.sqrt(wrong.sum() * 2 / 9)
    np.testing.assert_array_equal(noisy.y_test, clean.y_test)


def test_confusable_labels_become_the_class_with_the_nearest_mean():
    clean = data()
    assert nearest_classes(clean.x_train, clean.y_train.argmax(1), 4).tolist() == [2, 3, 0, 1]
    noisy, wrong = with_wrong_labels(clean, "confusable 40%", seed=1)
    np.testing.assert_array_equal(
        noisy.y_train.argmax(1)[wrong], np.array([2, 3, 0, 1])[clean.y_train.argmax(1)[wrong]]
    )


def test_a_class_without_samples_is_no_neighbour():
    labels = np.array([0, 0, 2])
    assert nearest_classes(np.array([[0.0], [0.0], [1.0]]), labels, 3)[[0, 2]].tolist() == [2, 0]


def test_cleaned_training_removes_what_the_copies_contradict_and_counts_their_cost(monkeypatch):
    clean = data(80)
    probabilities = np.eye(4)[np.where(np.arange(80) < 16, (np.arange(80) + 1) % 4, np.arange(80) % 4)]
    predicted = OutOfSample(np.zeros(80), probabilities, (1, 1), 320.0)
    monkeypatch.setattr(noisy_labels, "out_of_sample", lambda *arguments, **options: predicted)
    trainer = CleanedTraining(build(), 8, seed=1)
    assert trainer.forward_equivalents == 0
    trainer.fit(clean.x_train, clean.y_train, batch_size=8, verbose=0)
    assert trainer.forward_equivalents == 3 * 8 + 320 / 8


def test_the_share_of_wrong_labels_is_that_of_the_first_hundredth():
    clean = data()
    wrong = np.arange(400) < 40
    p = np.where(wrong[:, None], np.roll(clean.y_train, 1, axis=1), clean.y_train)
    losses = np.where(np.arange(400) < 42, 5.0, 0.0) + np.arange(400) * 1e-3
    shares = shares_of_wrong(OutOfSample(losses, p, (1, 1), 0.0), clean, wrong)
    assert shares["label_suspicion"] == 1.0 and shares["loss"] == 0.5


@pytest.mark.slow
def test_the_benchmark_writes_tables_of_all_ways_and_does_not_repeat_them(monkeypatch, tmp_path, capsys):
    task = Task(lambda path: data(), build, 0.1, 0.1, batch_size=16)
    monkeypatch.setattr(noisy_labels.tasks, "get", lambda name: task)
    monkeypatch.setattr(noisy_labels, "COPY_EPOCHS", 1)
    monkeypatch.setattr(noisy_labels, "WAYS", {way: noisy_labels.WAYS[way] for way in ("uniform", "reducible")})
    monkeypatch.setattr(noisy_labels, "QUICK_EPOCHS", 1)
    monkeypatch.setattr("sys.argv", ["x", "--quick", "--out", str(tmp_path)])
    noisy_labels.main()
    table = (tmp_path / "table.md").read_text()
    assert all(f"`satellite`, uniform 20%, {way} " in table for way in noisy_labels.WAYS)
    assert "`satellite`, uniform 20%" in (tmp_path / "suspects.md").read_text()
    assert capsys.readouterr().out.count("seed 1, ") == len(noisy_labels.WAYS)
    noisy_labels.main()
    assert "seed 1, " not in capsys.readouterr().out
