"""The example scripts: data, models, trainers and options."""

import argparse
import sys
from importlib import import_module
from pathlib import Path

import keras
import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "examples"
NAMES = ("mnist_mlp", "mnist_cnn", "mnist_lstm", "mnist_svrg", "mnist_svrg_cnn", "imbalanced")


@pytest.fixture
def example(monkeypatch):
    """Return a function that imports a script by name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return import_module


@pytest.fixture
def digits(tmp_path):
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (1300, 6, 6), "uint8"), np.arange(1300) % 10
    np.savez(tmp_path / "digits.npz", x_train=x, y_train=y, x_test=x[:50], y_test=y[:50])
    return tmp_path / "digits.npz"


def options(**changes):
    return argparse.Namespace(**dict(uniform=False, seed=1, data=None, permuted=False, quick=False) | changes)


@pytest.mark.parametrize("name", NAMES)
def test_every_example_builds_a_model_for_its_data_and_a_trainer(name, example, digits):
    script = example(name).EXAMPLE
    data = script.data(options(data=digits))
    model = script.build(data)
    assert model.output_shape == (None, 10) and model.input_shape[1:] == data.shape
    assert script.trainer(model, options(uniform=True)) is model
    assert script.trainer(model, options()).model is model
    assert script.name == name and script.text == example(name).__doc__


def test_the_permuted_task_permutes_all_pixels(example, digits):
    script = example("mnist_lstm").EXAMPLE
    rows, pixels = (script.data(options(data=digits, permuted=permuted)) for permuted in (False, True))
    assert rows.shape == (6, 6) and pixels.shape == (36, 1)
    read = rows.x_train.reshape(-1, 36)
    assert not (pixels.x_train[..., 0] == read).all()
    np.testing.assert_array_equal(np.sort(pixels.x_train[..., 0]), np.sort(read))


def test_the_rare_class_has_one_per_cent_of_its_training_samples(example, digits):
    data = example("imbalanced").EXAMPLE.data(options(data=digits))
    assert data.y_train.sum(axis=0).tolist() == [130] * 8 + [1] + [130]
    assert data.y_test.sum(axis=0).tolist() == [5] * 10
    assert example("imbalanced").missed({"recall": 0.75}) == 25.0


def test_without_a_network_tiles_of_two_photographs_replace_cifar10(example, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: 1 / 0)
    dataset = example("loading").photographs(options())
    assert dataset.shape == (32, 32, 3) and dataset.output_size == 2
    assert (len(dataset.train_data), len(dataset.test_data)) == (416, 104)
    assert "CIFAR10 could not be downloaded" in capsys.readouterr().err


def test_a_missing_data_file_exits_with_an_error(example, tmp_path):
    with pytest.raises(SystemExit, match="--data: `path` must be an npz file"):
        example("loading").digits(options(data=tmp_path / "absent.npz"))


@pytest.mark.parametrize("budget", [["--epochs", "2"], ["--seconds", "0.02"]])
def test_a_script_trains_for_the_given_epochs_or_seconds(budget, example, digits, monkeypatch, capsys):
    script = example("mnist_svrg").EXAMPLE
    monkeypatch.setattr(sys, "argv", ["x", "--data", str(digits), "--quick", "--seed", "3", *budget])
    script.main()
    output = capsys.readouterr().out
    assert "Epoch 2/2" in output if budget[0] == "--epochs" else "of 0.02 seconds, training loss" in output
    assert "steps" in output.splitlines()[-1]  # the trainer's summary


def test_the_learning_rate_decays_over_the_budget(example, digits, monkeypatch):
    scripts = example("common")
    built = []

    def build(data):
        built.append(example("mnist_svrg").build(data))
        return built[0]

    def decay(spent):
        return 1.0 if spent < 0.5 else 0.25

    script = scripts.Example(
        "x", "x", lambda options: example("loading").digits(options), build, lambda model, options: model, decay=decay
    )
    monkeypatch.setattr(sys, "argv", ["x", "--uniform", "--data", str(digits), "--quick", "--epochs", "2"])
    script.main()
    assert float(built[0].optimizer.learning_rate) == pytest.approx(0.1 * 0.25)


def test_compare_writes_the_results_of_both_ways(example, digits, monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    arguments = ["x", "mnist_svrg", "--data", str(digits), "--quick", "--epochs", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    example("compare").main()
    output = capsys.readouterr().out
    assert "mnist_svrg: 4 gradient steps for each way" in output
    assert "| uniform |" in output and "| SVRG    |" in output
    assert (tmp_path / "mnist_svrg.png").exists() and (tmp_path / "mnist_svrg.csv").exists()
