"""Which figures History, the progress bar and other callbacks receive, whatever the gate."""

import csv
import math
import warnings

import keras
import numpy as np
import pytest
from ways import WAYS

from importance_sampling import ImportanceTraining

X = np.random.default_rng(0).normal(size=(96, 8)).astype("float32")
Y = X[:, :3].argmax(1)
FIGURES = ["score", "tau", "importance"]
DATA = dict(x=X, y=Y, batch_size=16, epochs=2, validation_data=(X[:16], Y[:16]))


def build(is_supported=True):
    keras.utils.set_random_seed(3)
    regularizer = None if is_supported else "l2"
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, "softmax", activity_regularizer=regularizer)])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def unmeasured(**arguments):
    """A `fit` in which nothing is ever scored: the model's samples can't be weighted."""
    trainer = ImportanceTraining(build(is_supported=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return trainer.fit(**DATA, **arguments)


def test_history_has_the_keys_of_keras_when_switched_off():
    plain = build().fit(**DATA, verbose=0).history
    off = ImportanceTraining(build(), tau_th=float("inf")).fit(**DATA, verbose=0).history
    assert list(off) == list(plain)
    assert off == plain


def test_callbacks_behind_history_receive_the_logs_of_keras_when_switched_off():
    def keys(trainer):
        seen = []
        behind = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: seen.append(list(logs)),
            on_train_batch_end=lambda batch, logs: seen.append(list(logs)),
        )
        trainer.fit(**DATA, verbose=0, callbacks=[keras.callbacks.History(), behind])
        return seen

    assert keys(ImportanceTraining(build(), tau_th=float("inf"))) == keys(build())


@pytest.mark.parametrize("way", ["default", "pools", "rows"])
def test_history_has_three_more_keys_unless_switched_off(way):
    plain = build().fit(**DATA, verbose=0).history
    history = ImportanceTraining(build(), **WAYS[way]).fit(**DATA, verbose=0).history
    assert list(history) == list(plain) + FIGURES
    assert {len(values) for values in history.values()} == {2}


@pytest.mark.fast
def test_figures_that_were_not_measured_are_nan_in_history():
    history = unmeasured(verbose=0).history
    assert [math.isnan(value) for value in history["score"] + history["tau"]] == [True] * 4
    assert history["importance"] == [0.0, 0.0]


BARS = {
    "added by Keras": lambda verbose: dict(verbose=verbose),
    "of the user": lambda verbose: dict(verbose=verbose, callbacks=[keras.callbacks.ProgbarLogger()]),
    "ahead of another callback": lambda verbose: dict(
        verbose=verbose, callbacks=[keras.callbacks.ProgbarLogger(), keras.callbacks.History()]
    ),
    "behind History": lambda verbose: dict(verbose=verbose, callbacks=[keras.callbacks.History()]),
}


@pytest.mark.parametrize("verbose", [1, 2, "auto"])
@pytest.mark.parametrize("bar", BARS)
def test_the_progress_bar_leaves_out_figures_that_were_not_measured(capsys, bar, verbose):
    history = unmeasured(**BARS[bar](verbose)).history
    printed = capsys.readouterr().out
    assert "nan" not in printed
    assert printed.count("Epoch 2/2") == 1
    assert "importance: 0.0" in printed
    assert set(FIGURES) <= set(history)


def test_the_progress_bar_of_a_callback_list_leaves_out_figures_that_were_not_measured(capsys):
    model = build(is_supported=False)
    callbacks = keras.callbacks.CallbackList(
        None, add_history=True, add_progbar=True, model=model, verbose=2, epochs=2, steps=6
    )
    with pytest.warns(UserWarning, match="stays off"):
        ImportanceTraining(model).fit(**DATA, callbacks=callbacks)
    printed = capsys.readouterr().out
    assert "nan" not in printed
    assert "importance: 0.0" in printed


@pytest.mark.parametrize("verbose", [1, 2])
def test_the_progress_bar_shows_figures_that_were_measured(capsys, verbose):
    ImportanceTraining(build(), tau_th=0, seed=1).fit(**DATA, verbose=verbose)
    last = capsys.readouterr().out.splitlines()[-1]
    assert all(f"{name}: " in last for name in FIGURES)


def test_the_progress_bar_of_a_trainer_that_is_switched_off_has_the_entries_of_keras(capsys):
    ImportanceTraining(build(), tau_th=float("inf")).fit(**DATA, verbose=2)
    printed = capsys.readouterr().out
    assert "val_accuracy" in printed
    assert not any(name in printed for name in FIGURES)


def test_nothing_is_printed_without_verbosity(capsys):
    unmeasured(verbose=0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("ahead", [keras.callbacks.History, keras.callbacks.ProgbarLogger])
def test_a_csv_file_behind_history_or_the_bar_has_a_column_for_every_figure(tmp_path, ahead):
    unmeasured(verbose=2, callbacks=[ahead(), keras.callbacks.CSVLogger(tmp_path / "log.csv")])
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [[row["score"], row["tau"], row["importance"]] for row in rows] == [["nan", "nan", "0.0"]] * 2


def test_a_csv_file_ahead_of_history_has_the_columns_of_keras(tmp_path):
    build().fit(**DATA, verbose=0, callbacks=[keras.callbacks.CSVLogger(tmp_path / "plain.csv")])
    unmeasured(verbose=2, callbacks=[keras.callbacks.CSVLogger(tmp_path / "ours.csv")])
    columns = [(tmp_path / name).read_text().splitlines()[0] for name in ("plain.csv", "ours.csv")]
    assert columns[0] == columns[1]


class Silent(keras.Model):
    """A `fit` that prints nothing."""

    def fit(self, *args, verbose="auto", **arguments):
        return super().fit(*args, verbose=0, **arguments)


@pytest.mark.fast
def test_a_fit_of_the_models_own_that_prints_nothing_prints_nothing(capsys):
    inputs = keras.Input((8,))
    model = Silent(inputs, keras.layers.Dense(3, "softmax")(inputs))
    model.compile("sgd", "sparse_categorical_crossentropy")
    history = ImportanceTraining(model, tau_th=1e9).fit(X, Y, epochs=2, verbose=1).history
    assert capsys.readouterr().out == ""
    assert set(FIGURES) <= set(history)
