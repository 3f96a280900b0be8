"""`compare`: the runs, the judge, the table, the plot and the files, and errors before training."""

import csv
import types

import keras
import numpy as np
import pytest
from toys import stream

import importance_sampling
from importance_sampling import ImportanceTraining, compare
from importance_sampling.comparison import Comparison, user_task
from importance_sampling.comparison.user_task import Evaluation

RNG = np.random.default_rng(0)
X = RNG.normal(size=(160, 6)).astype("float32")
Y = X[:, :3].argmax(1)


def build():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def always_on(model):
    return ImportanceTraining(model, tau_th=0)


WAYS = {"uniform": lambda model: model, "importance": always_on}


@pytest.fixture(scope="module")
def comparison():
    """Return a comparison of two ways with two seeds, 10 uniform steps or 5 importance steps each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(user_task, "MEASUREMENTS", 2)
        return compare(build, X, Y, ways=WAYS, cost=30, seeds=2, batch_size=16, validation_split=0.2)


def made(losses, importance_steps=4, loss_name="validation loss"):
    """Return a comparison of given losses, a list per way and seed, measured at 0, 2, 4 seconds."""
    result = Comparison(4.0, "seconds", loss_name, ("uniform", "importance"))
    for way, runs in losses.items():
        for seed, values in enumerate(runs):
            points = [dict(seconds=2.0 * i, cost=6.0 * i, steps=2 * i, loss=loss) for i, loss in enumerate(values)]
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


def test_the_table_has_medians_and_a_row_per_way(comparison):
    rows = comparison.rows
    assert [row["way"] for row in rows] == ["uniform", "importance"]
    assert [row["importance steps"] for row in rows] == [0.0, 1.0] and rows[0]["times sooner"] == 1.0
    finals = [run["points"][-1]["accuracy"] for run in comparison.runs_of("uniform")]
    assert rows[0]["final accuracy"] == pytest.approx(np.mean(finals))
    assert "final validation loss" in rows[0]


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
    assert won.verdict.endswith("2.0 times sooner (2 seeds, 2.0 to 2.0). Use it.")
    assert made({"uniform": slow, "importance": slow}).verdict.endswith("Keep uniform training.")
    closed = made({"uniform": slow, "importance": fast}, importance_steps=0, loss_name="training loss")
    assert closed.verdict.endswith("took no importance steps. The reason.")


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


def test_the_plot_marks_the_speed_up_and_none_if_losses_are_nan():
    pytest.importorskip("matplotlib")
    won = made({"uniform": [[1.0, 0.6, 0.4]] * 2, "importance": [[1.0, 0.4, 0.3]] * 2}).plot()
    assert [text.get_text() for text in won.axes[0].texts if text.get_text()] == ["2.0 times sooner"]
    lost = made({"uniform": [[1.0, 0.6, 0.4]] * 2, "importance": [[1.0, np.nan, np.nan]] * 2}).plot()
    assert not [text for text in lost.axes[0].texts if text.get_text()]


def test_without_matplotlib_the_verdict_and_the_table_are_still_written(comparison, monkeypatch, tmp_path):
    def missing(*args):
        raise ImportError("no matplotlib")

    monkeypatch.setattr("importance_sampling.comparison.result.draw", missing)
    assert [path.suffix for path in comparison.save(tmp_path)] == [".txt", ".csv"]
    assert "install matplotlib" in comparison._repr_html_() and "<table>" in comparison._repr_html_()


def test_a_notebook_shows_the_plot(comparison):
    pytest.importorskip("matplotlib")
    assert "data:image/png;base64," in comparison._repr_html_()


def test_the_validation_data_are_those_of_the_split_and_the_judge_evaluates_them():
    split = user_task.with_split(dict(x=X, y=Y, validation_split=0.2))
    assert len(split["x"]) == 128 and [len(part) for part in split["validation_data"]] == [32, 32]
    model, judge = build(), Evaluation(split)
    assert judge(model) == model.evaluate(X[128:], Y[128:], verbose=0, return_dict=True)
    assert judge.loss_name == "validation loss"
    nested = user_task.with_split(dict(x={"a": X}, y=Y, sample_weight=X[:, 0], validation_split=0.5))
    assert len(nested["validation_data"]) == 3 and len(nested["validation_data"][0]["a"]) == 80


def test_without_validation_data_the_judge_is_the_training_loss(monkeypatch):
    monkeypatch.setattr(user_task, "MAX_ROWS", 64)
    model, judge = build(), Evaluation(dict(x=X, y=Y))
    assert judge.loss_name == "training loss"
    assert judge(model) == model.evaluate(X[:64], Y[:64], verbose=0, return_dict=True)
    assert Evaluation(dict(x=stream(X, Y, 32), steps_per_epoch=2))(model) == judge(model)


def test_the_judge_leaves_the_metrics_of_a_running_fit_unchanged():
    seen = []

    def metrics(evaluates):
        model = build()
        judge = Evaluation(dict(x=X, y=Y))
        hook = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: judge(model) if evaluates else None
        )
        model.set_weights([np.ones((6, 3)), np.zeros(3)])
        seen.append(model.fit(X, Y, batch_size=16, shuffle=False, verbose=0, callbacks=[hook]).history)

    metrics(False)
    metrics(True)
    assert seen[0] == seen[1]


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
        (dict(seconds=0), ValueError, r"`seconds` must be a number above 0.* Received: seconds=0"),
        (dict(cost=float("inf")), ValueError, "`cost` must be a number above 0"),
        (dict(epochs=1.5), ValueError, "`epochs` must be an int above 0"),
        (dict(epochs=2, seconds=3), ValueError, "Set only one of `seconds`, `cost`, `epochs`"),
        (dict(seeds=0), ValueError, "`seeds` must be an int of at least 1"),
        (dict(ways={"uniform": lambda model: model}), ValueError, "`ways` must be a dict of at least two functions"),
        (dict(ways={"a": lambda model: model, "b": lambda model: 3}), ValueError, "objects with `fit`.* 3 of 'b'"),
        (dict(batchsize=3), TypeError, "no argument `batchsize`. Did you mean `batch_size`"),
        (dict(zzz=3), TypeError, "no argument `zzz`. Its arguments: batch_size"),
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
    progress = user_task.Progress(["uniform", "importance"], 2, 10.0, True)
    progress.update("uniform", 1, types.SimpleNamespace(spent=5.0, points=[{"loss": 0.5}]))
    progress.update("importance", 2, types.SimpleNamespace(spent=12.0, points=[{"loss": 0.25}]))
    assert updates == [(12, [("uniform", 0.5)]), (62, [("importance", 0.25)])]
