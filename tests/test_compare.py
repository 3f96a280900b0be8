"""`compare`: the runs, the judge, the table, the plot and the files, and errors before training."""

import csv
import inspect
import logging
import math
import types

import keras
import numpy as np
import pytest
from small_classifier import X, Y, build
from toys import stream

import importance_sampling
from importance_sampling import ImportanceTraining, compare
from importance_sampling.comparison import Comparison, user_task
from importance_sampling.comparison.evaluation import Evaluation
from importance_sampling.comparison.figure import Figure
from importance_sampling.comparison.progress import Progress
from importance_sampling.comparison.result import REASONS
from importance_sampling.fit import messages


def always_on(model):
    return ImportanceTraining(model, tau_th=0)


WAYS = {"uniform": lambda model: model, "importance": always_on}


@pytest.fixture(scope="module")
def comparison():
    """Return a comparison of two ways with two seeds, 10 uniform steps or 5 importance steps each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(user_task, "MEASUREMENTS", 2)
        return compare(build, X, Y, ways=WAYS, cost=30, seeds=2, batch_size=16, validation_split=0.2)


def made(losses, importance_steps=4, loss_name="validation loss", figure=None):
    """Return a comparison of given losses, a list per way and seed, every 2 seconds; `auc` is minus the loss."""
    result = Comparison(4.0, "seconds", loss_name, ("uniform", "importance"), figure)
    for way, runs in losses.items():
        for seed, values in enumerate(runs):
            points = [
                dict(seconds=2.0 * i, cost=6.0 * i, steps=2 * i, loss=loss, auc=-loss) for i, loss in enumerate(values)
            ]
            steps = importance_steps if way == "importance" else 0
            record = dict(steps=4, seconds=4.0, cost=12.0, importance_steps=steps, points=points)
            trainer = types.SimpleNamespace(summary=lambda: "The reason.\nMore.")
            result.add(way, seed, record, trainer if way == "importance" else build())
    return result


def test_compare_is_imported_from_the_root_when_it_is_used():
    assert importance_sampling.compare is compare and "compare" in dir(importance_sampling)


def test_all_ways_start_from_the_same_weights_and_have_the_same_budget(comparison):
    assert [(run["way"], run["seed"]) for run in comparison.runs_of("uniform")] == [("uniform", 1), ("uniform", 2)]
    assert {run["cost"] for run in comparison.runs} == {30.0}
    assert [run["steps"] for run in comparison.runs_of("importance")] == [5, 5]
    for uniform, importance in zip(comparison.runs_of("uniform"), comparison.runs_of("importance"), strict=True):
        assert uniform["points"][0] == importance["points"][0]
        assert uniform["points"][-1]["loss"] != importance["points"][-1]["loss"]
    first, second = comparison.runs_of("uniform")
    assert first["points"][0] != second["points"][0]


def test_the_table_has_means_and_a_row_per_way(comparison):
    rows = comparison.rows
    assert [row["way"] for row in rows] == ["uniform", "importance"]
    assert [row["importance steps"] for row in rows] == [0.0, 1.0] and rows[0]["times sooner"] == 1.0
    finals = [run["points"][-1]["accuracy"] for run in comparison.runs_of("uniform")]
    assert rows[0]["final val_accuracy"] == pytest.approx(np.mean(finals))
    assert "final validation loss" in rows[0] and "stopped early" not in rows[0]
    on_training_samples = made({"uniform": [[1.0, 0.5]], "importance": [[1.0, 0.5]]}, loss_name="training loss")
    assert on_training_samples.rows[0]["final auc"] == -0.5


def test_the_table_is_a_data_frame_if_pandas_is_installed(comparison, monkeypatch):
    pytest.importorskip("pandas")
    assert list(comparison.table.index) == ["uniform", "importance"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert comparison.table == comparison.rows


def test_the_texts_contain_the_verdict(comparison):
    for text in (str(comparison), repr(comparison)):
        assert comparison.verdict in text
    assert str(comparison).splitlines()[1].startswith("uniform ")


def test_the_verdict_is_on_the_second_way_with_its_reason():
    slow, fast = [[1.0, 0.6, 0.4]] * 2, [[1.0, 0.4, 0.3]] * 2
    won = made({"uniform": slow, "importance": fast})
    assert won.verdict.endswith("2.0 times sooner (2 seeds, 2.0 to 2.0), and ended 25 % better. Use it.")
    assert made({"uniform": slow, "importance": slow}).verdict.endswith("Keep uniform training.")
    closed = made({"uniform": slow, "importance": fast}, importance_steps=0, loss_name="training loss")
    assert closed.verdict.endswith("took no importance steps. The reason.")
    assert math.isnan(closed.rows[1]["times sooner"]) and " - " in str(closed).splitlines()[2]


def test_the_final_losses_of_the_table_and_the_sentence_show_the_same_difference():
    # The medians differ by 20 %, and the median of the paired ratios is 18 % below 1.
    uniform, importance = [[1.0, 0.4], [1.0, 0.5], [1.0, 0.8]], [[1.0, 0.33], [1.0, 0.4], [1.0, 0.72]]
    clear = made({"uniform": uniform, "importance": importance})
    first, second = (row["final validation loss"] for row in clear.rows)
    assert f"ended {100 * (first - second) / first:.0f} % better" in clear.verdict


def test_the_first_line_of_each_summary_is_below_the_table_with_the_first_seed():
    compared = made({"uniform": [SLOW] * 2, "importance": [FAST] * 2})
    lines = str(compared).splitlines()
    assert lines[3:6] == ["", "importance, seed 0: The reason.", ""] and lines[6:] == [compared.verdict]
    assert "<p>importance, seed 0: The reason.</p>" in compared._repr_html_()


def test_a_small_share_of_importance_steps_is_explained_by_the_summary_of_the_run_with_the_fewest():
    compared = made({"uniform": [[1.0, 0.5]] * 2, "importance": [[1.0, 0.5]] * 2}, importance_steps=1)
    for run, steps in zip(compared.runs_of("importance"), (2, 1), strict=True):
        run.update(steps=20, importance_steps=steps)
        last = f"Importance steps ended with step {steps}: a reason."
        run["summary"] = f"Importance sampling ran for 5% of the 20 steps.\n{last}"
    assert compared.verdict.endswith(
        "Importance sampling took only 7.5 % of the steps. Importance steps ended with step 1: a reason. Keep uniform "
        "training."
    )


def test_the_reasons_in_a_verdict_are_found_in_the_summaries_of_a_trainer():
    source = inspect.getsource(messages)
    assert all(f'f"{beginning}' in source for beginning in REASONS)


def test_the_plot_and_the_files_are_written(tmp_path, comparison):
    pytest.importorskip("matplotlib")
    paths = comparison.save(tmp_path / "new", "toy")
    assert [path.name for path in paths] == ["toy.txt", "toy.csv", "toy.png"]
    assert paths[0].read_text() == f"{comparison}\n"
    with paths[1].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(run["points"]) for run in comparison.runs)
    assert {"way", "seed", "seconds", "cost", "steps", "loss", "accuracy"} == set(rows[0])
    assert paths[2].stat().st_size > 10000


def labels(comparison):
    """Return the texts in the plot of a comparison, and the ends of its arrow."""
    axes = comparison.plot().axes[0]
    arrows = [(text.xyann, text.xy) for text in axes.texts if not text.get_text()]
    return [text.get_text() for text in axes.texts if text.get_text()], arrows


SLOW, FAST = [1.0, 0.6, 0.4], [1.0, 0.4, 0.3]


def test_the_arrow_of_the_plot_spans_what_the_verdict_says_and_has_no_number():
    pytest.importorskip("matplotlib")
    won = made({"uniform": [SLOW] * 2, "importance": [FAST] * 2})
    assert labels(won) == (["sooner"], [((4.0, 0.4), (2.0, 0.4))]) and won.is_faster
    higher = made({"uniform": [SLOW] * 2, "importance": [FAST] * 2}, figure=Figure("auc", "val_auc", "val_auc", True))
    assert labels(higher) == (["sooner"], [((4.0, -0.4), (2.0, -0.4))])
    assert higher.plot().axes[0].get_ylabel() == "val_auc" and "highest val_auc" in higher.rows[0]


@pytest.mark.parametrize(
    ("runs", "importance_steps"),
    [
        ([[1.0, np.nan, np.nan]] * 2, 4),
        ([FAST, SLOW], 4),  # no clear difference: 2 times and 1 time
        ([FAST] * 2, 0),
    ],
)
def test_the_plot_has_no_arrow_if_the_verdict_does_not_say_sooner(runs, importance_steps):
    pytest.importorskip("matplotlib")
    compared = made({"uniform": [SLOW] * 2, "importance": runs}, importance_steps)
    assert labels(compared) == ([], []) and not compared.is_faster and not compared.verdict.endswith("Use it.")


@pytest.mark.parametrize("fast", [[1.0, 0.41, 0.3], [1.0, 0.1, 0.1]])  # with and without room beside the arrow
def test_the_label_of_the_arrow_is_inside_the_axes(fast):
    pytest.importorskip("matplotlib")
    figure = made({"uniform": [[1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]] * 2, "importance": [fast] * 2}).plot()
    figure.draw_without_rendering()
    axes = figure.axes[0]
    [label] = [text for text in axes.texts if text.get_text()]
    inside, outside = label.get_window_extent(), axes.get_window_extent()
    assert outside.x0 <= inside.x0 and inside.x1 <= outside.x1 and outside.y0 <= inside.y0 and inside.y1 <= outside.y1


def test_without_matplotlib_the_verdict_and_the_table_are_still_written(comparison, monkeypatch, tmp_path):
    def missing(*args):
        raise ImportError("no matplotlib")

    monkeypatch.setattr("importance_sampling.comparison.result.draw", missing)
    assert [path.suffix for path in comparison.save(tmp_path)] == [".txt", ".csv"]
    assert "pip install matplotlib" in comparison._repr_html_() and "<table>" in comparison._repr_html_()


def test_a_notebook_shows_the_plot(comparison):
    pytest.importorskip("matplotlib")
    assert "data:image/png;base64," in comparison._repr_html_()


def test_a_model_that_is_not_built_yet_starts_from_equal_weights():
    def unbuilt():
        model = keras.Sequential([keras.layers.Dense(3, "softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    models = user_task.models_of(unbuilt, 2, 1, Evaluation(dict(x=X, y=Y)))
    np.testing.assert_array_equal(models[0].get_weights()[0], models[1].get_weights()[0])


def uncompiled():
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (dict(build_model=uncompiled), ValueError, "`build_model` must return a compiled `keras.Model`"),
        (dict(build_model="model"), ValueError, "`build_model` must be a function"),
        (dict(build_model=build()), ValueError, "must be the function that builds the model.* without calling it"),
        (dict(seconds=0), ValueError, r"`seconds` must be a number above 0.* Received: seconds=0"),
        (dict(cost=float("inf")), ValueError, "`cost` must be a number above 0"),
        (dict(epochs=1.5), ValueError, "`epochs` must be an int above 0"),
        (dict(epochs=2, seconds=3), ValueError, "Set only one of `seconds`, `cost`, `epochs`"),
        (dict(seeds=0), ValueError, "`seeds` must be an int of at least 1"),
        (dict(ways={"uniform": lambda model: model}), ValueError, "`ways` must be a dict of at least two functions"),
        (dict(ways={"a": lambda model: model, "b": lambda model: 3}), ValueError, "objects with `fit`.* 3 of 'b'"),
        (dict(batchsize=3), TypeError, "no argument `batchsize`. Did you mean `batch_size`"),
        (dict(zzz=3), TypeError, "no argument `zzz`. Its own arguments: ways, seconds, .* `model.fit`: batch_size"),
        (dict(metric="val_auc"), TypeError, "Did you mean `monitor`.* Received: metric='val_auc'"),
        (dict(seed=3), TypeError, "Did you mean `seeds`"),
        (dict(x=(X, Y), y=(X[:9], Y[:9])), ValueError, "pass the validation data as `validation_data=`"),
        (dict(x=(X, Y), y=(X, Y)), ValueError, "pass the validation data as `validation_data=`"),
        (dict(x=stream(X, Y, 32), y=stream(X, Y, 32)), ValueError, "pass the validation data as `validation_data=`"),
        (dict(monitor="auc"), ValueError, "one of loss, accuracy. Received: monitor='auc'"),
        (dict(monitor="accuracy", validation_split=0.2), ValueError, "one of val_loss, val_accuracy. Received"),
        (dict(monitor="val_accuracy"), ValueError, "no validation data: one of loss, accuracy"),
        (dict(mode="highest"), ValueError, "`mode` must be .auto.* Received: mode='highest'"),
        (dict(mode="max"), ValueError, "needs a `monitor`"),
        (dict(x=iter([1])), ValueError, "`x` must be data that can be read several times"),
        (dict(validation_data=iter([1])), ValueError, "`validation_data` must be data that can be read several"),
        (dict(validation_split=1.5), ValueError, "`validation_split` must be a number in .0, 1."),
        (dict(x=stream(X, Y, 32), y=None, validation_split=0.5), ValueError, "and the data arrays"),
        (dict(callbacks=[(i for i in ())]), ValueError, "that `copy.deepcopy` can copy"),
    ],
)
def test_compare_refuses_wrong_arguments_before_training(changes, error, message, monkeypatch):
    monkeypatch.setattr(user_task, "train", lambda *args, **kwargs: pytest.fail("trained"))
    with pytest.raises(error, match=message):
        compare(**dict(build_model=build, x=X, y=Y) | changes)


def test_the_progress_bar_shows_the_percentage_of_all_runs(monkeypatch):
    updates = []
    bar = types.SimpleNamespace(update=lambda *args: updates.append(args))
    monkeypatch.setattr(keras.utils, "Progbar", lambda *args, **kwargs: bar)
    progress = Progress(["uniform", "importance"], 2, 10.0, True)
    progress.update("uniform", 1, types.SimpleNamespace(spent=5.0, points=[{"loss": 0.5}]))
    progress.update("importance", 2, types.SimpleNamespace(spent=12.0, points=[{"loss": 0.25}]))
    assert updates == [(12, [("uniform", 0.5)]), (62, [("importance", 0.25)])]


def test_the_log_has_a_line_at_the_beginning_and_one_per_run(comparison, caplog):
    caplog.set_level(logging.INFO, "importance_sampling")
    progress = Progress(["uniform", "importance"], 3, 60.0, False)
    run = types.SimpleNamespace(points=[{"loss": 0.5}], steps=20, seconds=61.0, stopped_early=True)
    progress.finish("importance", 2, run)
    assert caplog.messages == [
        "Comparing uniform, importance: 6 runs with 3 seeds of 60 seconds each. Evaluation takes additional time.",
        "Run 1 of 6 has finished: importance with seed 2, validation loss 0.5 after 20 steps in 61 seconds, stopped "
        "early.",
    ]


class StopsEarly(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


@pytest.mark.slow
def test_a_metric_can_be_the_judge_and_runs_that_stopped_early_are_counted(monkeypatch, caplog):
    monkeypatch.setattr(user_task, "MEASUREMENTS", 2)
    caplog.set_level(logging.INFO, "importance_sampling")
    judged = compare(
        build,
        X,
        Y,
        ways=WAYS,
        cost=30,
        seeds=1,
        validation_split=0.2,
        monitor="val_accuracy",
        callbacks=[StopsEarly()],
    )
    assert judged.figure == Figure("accuracy", "val_accuracy", "val_accuracy", maximised=True)
    [run] = judged.runs_of("uniform")
    assert list(judged.curves("uniform")[0][1]) == [point["accuracy"] for point in run["points"]]
    assert "val_accuracy" in judged.verdict
    assert str(judged).splitlines()[0].endswith("stopped early") and "1 of 1 runs" in str(judged)
    assert [message.split(":")[0] for message in caplog.messages if message.startswith("Run")] == [
        "Run 1 of 2 has finished",
        "Run 2 of 2 has finished",
    ]


def test_the_values_that_keras_takes_for_verbose_show_a_progress_bar_or_none(capsys):
    values = (0, False), (1, True), (2, True), (np.bool_(False), False), ("auto", False)  # no terminal
    for verbose, shows in values:
        compare(build, X, Y, epochs=1, seeds=1, batch_size=16, verbose=verbose)
        assert bool(capsys.readouterr().out) == shows
