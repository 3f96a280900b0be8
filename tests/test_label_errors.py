"""The example `label_errors`: wrong labels, rankings, precision and output."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture
def example(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    import label_errors

    return label_errors


def test_the_function_with_errors_changes_two_per_cent_of_the_labels(example):
    labels = np.arange(500) % 10
    changed = example.with_errors(labels, seed=3)
    assert np.count_nonzero(changed != labels) == 10
    assert changed.min() >= 0 and changed.max() <= 9
    np.testing.assert_array_equal(changed, example.with_errors(labels, seed=3))


def test_precision_is_the_fraction_of_wrong_labels_among_the_first_k(example):
    precision = example.precision(np.array([True, False, False, True]), np.array([3, 1, 0, 2]))
    assert precision.tolist() == [1, 1 / 2, 2 / 3, 2 / 4]


def test_the_ranking_is_by_draws_and_then_by_last_score(example):
    recorder = SimpleNamespace(draws=np.array([2, 5, 2, 2]), last_score=np.array([0.1, 0.0, np.nan, 0.7]))
    assert example.most_drawn(recorder).tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize("uniform", [[], ["--uniform"]], ids=["importance", "uniform"])
@pytest.mark.slow
def test_the_script_prints_a_table_and_writes_a_plot(uniform, example, monkeypatch, tmp_path, capsys):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 300)
    images = (np.eye(16)[labels].reshape(300, 4, 4) * 200 + rng.integers(0, 20, (300, 4, 4))).astype("uint8")
    np.savez(tmp_path / "digits.npz", x_train=images, y_train=labels, x_test=images[:9], y_test=labels[:9])
    arguments = ["--data", str(tmp_path / "digits.npz"), "--epochs", "1", "--quick", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["label_errors.py", *arguments, *uniform])
    example.main()
    printed = capsys.readouterr().out
    assert ("times drawn" not in printed) if uniform else ("times drawn | last score" in printed)
    assert " 6 |" in printed and "Random ranking: 2.0 %." in printed  # 2 % of 300
    assert (tmp_path / "label_errors.png").stat().st_size > 10000
