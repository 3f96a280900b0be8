"""The benchmarks of scores: relative variance, rank correlation, squared errors, stages, and output."""

import correlation
import keras
import numpy as np
import pytest
import stages
import variance_reduction
from correlation import rank_correlation, ranks, squared_error
from stages import Stages
from tasks import Task
from toys import CLASSES, SIZE, Toy
from variance_reduction import relative_variance

from importance_sampling.comparison import Data


def test_relative_variance_equals_its_definition():
    gradients = np.array([[3.0, 1.0], [0.0, -1.0], [0.5, 0.0], [0.0, 0.0]])
    norms, mean = np.linalg.norm(gradients, axis=1), gradients.mean(axis=0)

    def variance(p):  # E|g_i / (n p_i) - mean|^2, over the draw of one sample
        estimates = gradients / (4 * p[:, None])
        return (p * np.square(estimates - mean).sum(axis=1)).sum()

    uniform, p = np.full(4, 0.25), np.array([0.4, 0.3, 0.2, 0.1])
    assert relative_variance(norms, mean @ mean, p) == pytest.approx(variance(p) / variance(uniform))
    assert relative_variance(norms, mean @ mean, uniform) == pytest.approx(1.0)


def test_probabilities_by_exact_norms_have_the_lowest_variance():
    # (mean of norms)^2 = 4, mean of squares 26 / 3: (4 - 1) / (26 / 3 - 1).
    norms = np.array([5.0, 1.0, 0.0])
    best = relative_variance(norms, 1.0, norms / 6)
    assert best == pytest.approx(3 / (23 / 3))
    assert best < min(relative_variance(norms, 1.0, np.array(p)) for p in ([0.9, 0.1, 0], [0.7, 0.2, 0.1]))


def test_rank_correlation_uses_mean_ranks_for_equal_values():
    np.testing.assert_array_equal(ranks(np.array([3.0, 1.0, 3.0, 7.0])), [1.5, 0.0, 1.5, 3.0])
    # Without ties 1 - 6 sum(d^2) / (n (n^2 - 1)): differences 1, 1, 0, 0.
    assert rank_correlation(np.array([1.0, 2, 3, 4]), np.array([20.0, 10, 30, 90])) == pytest.approx(1 - 12 / 60)
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([9.0, 4, 1])) == pytest.approx(-1)
    assert rank_correlation(np.array([1.0, 2, 3]), np.ones(3)) == 0


def test_squared_error_is_relative_to_uniform_probabilities():
    # The optimal probabilities are (0, 1/2, 1/2), those of the score (1/4, 1/4, 1/2).
    assert squared_error(np.array([5.0, 5.0, 10.0]), np.array([0.0, 3.0, 3.0])) == pytest.approx((2 / 16) / (1 / 6))
    assert squared_error(np.array([0.0, 2.0, 2.0]), np.array([0.0, 3.0, 3.0])) == 0
    assert squared_error(np.ones(3), np.array([0.0, 3.0, 3.0])) == pytest.approx(1)


def build_model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def test_stages_calls_the_function_at_the_given_steps_and_stops_training():
    steps = []
    x, y = np.zeros((40, 2), "float32"), np.zeros(40)
    model = build_model()
    callback = Stages((0, 3, 11), steps.append)
    model.fit(x, y, batch_size=10, epochs=100, verbose=0, callbacks=[callback])
    assert steps == [0, 3, 11] and int(model.optimizer.iterations.value) == 11


def test_the_last_score_sampler_returns_scores_by_sample():
    sampler = correlation.LastScoreSampler(Toy(), seed=1)
    sampler.update(np.array([4, 7]), np.array([2.0, 6.0]))
    np.testing.assert_array_equal(sampler.last_scores(np.array([7, 4, 0])), [6.0, 2.0, 4.0])


@pytest.mark.parametrize("script", [correlation, variance_reduction], ids=["correlation", "variance_reduction"])
def test_a_script_writes_its_table_and_plot(script, monkeypatch, tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(SIZE, 2)).astype("float32")
    task = Task(lambda file: Data(x, CLASSES, x, CLASSES), build_model, rate=0.5, tuned=0.5, batch_size=10)
    monkeypatch.setattr(stages.tasks, "get", lambda name: task)
    monkeypatch.setattr(stages, "QUICK", [0, 12])
    monkeypatch.setattr(variance_reduction, "POOL", 20)
    monkeypatch.setattr("sys.argv", ["x", "--quick", "--rows", "48", "--out", str(tmp_path)])
    script.main()
    table = capsys.readouterr().out
    assert "mnist_mlp, 12" in table and (tmp_path / f"{script.__name__}.png").stat().st_size > 10000
    assert (tmp_path / "table.md").read_text().strip() in table
