"""Plots show the given numbers with units, and errors name missing data."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from importance_sampling.callbacks import SamplingRecorder
from importance_sampling.plotting import as_image, plot_histories, plot_most_drawn, plot_scores, plot_weights

pytest.importorskip("matplotlib")


def lines(axes):
    return {line.get_label(): [list(map(float, xy)) for xy in line.get_data()] for line in axes.get_lines()}


@pytest.fixture
def recorder():
    recorder = SamplingRecorder()
    recorder.connect(6, dict)
    rng = np.random.default_rng(1)
    for epoch in range(3):
        recorder.on_epoch_begin(epoch)
        for indices in ([0, 4, 4, 2], [4, 2, 5, 1]):
            scores = np.full(4, np.nan) if epoch == 0 else rng.exponential(size=4)
            recorder.on_sample(None, np.array(indices), rng.exponential(size=4).astype("float32"), scores)
        recorder.on_epoch_end(epoch)
    return recorder


def test_one_run_is_a_line_and_several_runs_are_a_median_with_a_band():
    uniform = SimpleNamespace(history={"loss": [4.0, 3.0, 2.0], "val_loss": [5.0, 4.0, 3.0]})
    importance = [{"loss": [3.0 * k, 1.0 * k, 0.5 * k], "val_loss": [2.0, 2.0, 2.0]} for k in (1, 2, 5)]
    figure = plot_histories(
        {"uniform": uniform, "importance": importance},
        {"loss": "loss (nats)", "val_loss": "validation loss"},
        log=["loss"],
    )
    left, right = figure.axes
    assert lines(left) == {"uniform": [[1, 2, 3], [4, 3, 2]], "importance": [[1, 2, 3], [6, 2, 1]]}
    # Quartiles of 1, 2 and 5 times the run are 1.5 and 3.5 times.
    assert left.collections[0].get_paths()[0].get_extents().bounds == pytest.approx((1, 0.75, 2, 9.75))
    assert (left.get_xlabel(), left.get_ylabel()) == ("epochs", "loss (nats)")
    assert (left.get_yscale(), right.get_yscale()) == ("log", "linear")
    styles = {(line.get_linestyle(), line.get_marker()) for line in left.get_lines()}
    assert len(styles) == 2, "lines must be distinguishable without colour"


def test_plots_over_seconds_need_histories_with_seconds():
    history = {"loss": [4.0, 3.0], "seconds": [1.5, 4.0]}
    (axes,) = plot_histories({"a": history}, over="seconds").axes
    assert lines(axes) == {"a": [[1.5, 4.0], [4.0, 3.0]]} and axes.get_xlabel() == "training time (seconds)"
    with pytest.raises(
        ValueError, match=r"with 'seconds'. Add a `TrainingSeconds\(\)` .* Received: 'b', with \['loss'"
    ):
        plot_histories({"b": {"loss": [1.0]}}, over="seconds")
    with pytest.raises(ValueError, match=r"`over` must be .* Received: over='steps'"):
        plot_histories({"b": history}, over="steps")


@pytest.mark.parametrize(
    "runs",
    [
        SimpleNamespace(history={"loss": [4.0, 3.0]}),
        {"loss": [4.0, 3.0], "val_loss": [np.nan, 2.0]},
        [{"loss": [3.0, 2.0]}, {"loss": [5.0, 4.0]}],
    ],
)
def test_histories_without_a_label_are_plotted(runs):
    (axes,) = plot_histories(runs).axes
    assert lines(axes) == {"training": [[1, 2], [4, 3]]}


@pytest.mark.parametrize("runs", [None, {}, [], 3.0, "loss"])
def test_what_is_no_history_raises_value_error(runs):
    with pytest.raises(ValueError, match=r"`runs` must be a dict of histories.* or one history. Received: runs="):
        plot_histories(runs)
    with pytest.raises(ValueError, match=r"`runs` must be histories: what `fit` returns.* Received: 'a': "):
        plot_histories({"a": 3.0})


def test_one_metric_can_be_given_as_a_string():
    (axes,) = plot_histories({"a": {"val_loss": [4.0, 3.0]}}, "val_loss", log="val_loss").axes
    assert lines(axes) == {"a": [[1, 2], [4, 3]]} and axes.get_yscale() == "log"


def test_score_quantiles_are_plotted_from_the_first_importance_step(recorder):
    (axes,) = plot_scores(recorder).axes
    epochs, medians = lines(axes)["median"]
    assert epochs == [1, 2, 3] and np.isnan(medians[0])
    np.testing.assert_array_equal(medians[1:], recorder.score_quantiles[1:, 2])
    assert "score" in axes.get_ylabel() and axes.get_yscale() == "log"


def test_weights_are_plotted_as_quantiles_and_draws_as_a_histogram(recorder):
    left, right = plot_weights(recorder).axes
    np.testing.assert_array_equal(lines(left)["median"][1][1:], recorder.weight_quantiles[1:, 2])
    # Draws of the six rows: 3, 3, 6, 0, 9, 3.
    assert [int(bar.get_height()) for bar in right.patches] == [1, 0, 0, 3, 0, 0, 1, 0, 0, 1]


def test_a_recorder_without_importance_steps_raises_value_error():
    recorder = SamplingRecorder()
    recorder.on_epoch_end(0)
    with pytest.raises(ValueError, match=r"must have recorded importance steps: .* of 1 epochs"):
        plot_scores(recorder)


def test_samples_are_ordered_by_draws_with_label_and_prediction(recorder):
    x = np.arange(24.0).reshape(6, 4)
    y = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    model = SimpleNamespace(predict=lambda x, verbose: np.eye(3)[[1, 0, 0]])
    figure = plot_most_drawn(recorder, x, y, model, count=3, names=["cat", "dog", "emu"])
    captions = [axes.get_xlabel() for axes in figure.axes]
    assert captions == [
        "label dog\nprediction dog\n9 draws",
        "label emu\nprediction cat\n6 draws",
        "label cat\nprediction cat\n3 draws",
    ]
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), x[4].reshape(2, 2))
    assert [axes.xaxis.label.get_weight() for axes in figure.axes] == ["normal", "bold", "normal"]
    with pytest.raises(ValueError, match="Received: x with 5 rows, a recorder of 6 rows"):
        plot_most_drawn(recorder, x[:5], y, model)


def test_as_image_reshapes_and_rescales_a_sample():
    assert as_image(np.zeros((2, 3, 1))).shape == (2, 3) and as_image(np.zeros(12), (2, 2, 3)).shape == (2, 2, 3)
    assert as_image(np.array([[[-1.0, 1.0, 3.0]]])).ravel().tolist() == [0.0, 0.5, 1.0]
    with pytest.raises(ValueError, match=r"`shape` must be .* Received: shape=\(2, 2\), rows of shape \(5,\)"):
        as_image(np.zeros(5))


def test_without_matplotlib_the_error_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="Plots need matplotlib: pip install matplotlib"):
        plot_histories({"a": {"loss": [1.0]}})
