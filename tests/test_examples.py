"""The example scripts: data, models, trainers and options."""

import argparse
import subprocess
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
    return argparse.Namespace(**dict(data=None, permuted=False, quick=False) | changes)


@pytest.mark.parametrize("name", NAMES)
def test_every_example_builds_a_model_for_its_data_and_a_trainer(name, example, digits):
    script = example(name).EXAMPLE
    data = script.data(options(data=digits))
    model = script.build(data)
    assert model.output_shape == (None, 10) and model.input_shape[1:] == data.shape
    assert script.trainer(model).model is model
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


def test_without_a_network_tiles_of_two_photographs_replace_cifar10(example, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: 1 / 0)
    dataset = example("loading").photographs(options())
    assert dataset.shape == (32, 32, 3) and dataset.output_size == 2
    assert (len(dataset.train_data), len(dataset.test_data)) == (416, 104)
    assert "CIFAR10 could not be downloaded" in capsys.readouterr().err


def test_without_a_network_the_first_example_trains_on_a_photograph(example, monkeypatch, capsys, tmp_path):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: 1 / 0)
    monkeypatch.setattr("importance_sampling.comparison.user_task.MEASUREMENTS", 2)
    arguments = ["x", "--quick", "--epochs", "1", "--seeds", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    example("mnist_mlp").EXAMPLE.main()
    output = capsys.readouterr().out
    assert "MNIST could not be downloaded" in output and "examples/photograph.py" in output
    assert (tmp_path / "photograph.csv").exists()


def test_the_photograph_has_a_colour_for_every_place(example):
    pytest.importorskip("sklearn")
    data = example("photograph").load(None)
    assert data.shape == (128,) and data.output_size == 3 and len(data.x_train) == 9 * len(data.x_test)
    assert 0 <= data.y_train.min() < data.y_train.max() <= 1


def test_a_missing_data_file_exits_with_an_error(example, tmp_path):
    with pytest.raises(SystemExit, match="--data: `path` must be an npz file"):
        example("loading").digits(options(data=tmp_path / "absent.npz"))


@pytest.mark.parametrize("budget", [["--epochs", "1"], ["--seconds", "0.02"]])
def test_a_script_ends_with_the_verdict_and_the_plot(budget, example, digits, monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    script = example("mnist_svrg").EXAMPLE
    arguments = ["x", "--data", str(digits), "--quick", "--seeds", "1", "--out", str(tmp_path), *budget]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr("importance_sampling.comparison.user_task.MEASUREMENTS", 2)
    script.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].startswith(("`SVRG`", "No ")) and lines[-1].endswith(str(tmp_path / "mnist_svrg.png"))
    assert (tmp_path / "mnist_svrg.png").exists() and (tmp_path / "mnist_svrg.csv").exists()


QUIET = "from quiet import keras; print(keras.__version__)"


def test_the_examples_import_keras_without_the_messages_of_tensorflow():
    run = subprocess.run([sys.executable, "-c", QUIET], cwd=FOLDER, capture_output=True, text=True, timeout=300)
    assert (run.stdout.strip(), run.stderr) == (keras.__version__, "")
