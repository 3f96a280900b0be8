"""The command line: specifications of tasks and ways, output files, and errors before training."""

import csv
import subprocess
import sys

import keras
import numpy as np
import pytest

import importance_sampling
from importance_sampling import cli
from importance_sampling.comparison import command, registry, specs, user_task
from importance_sampling.models import lr
from importance_sampling.training import ImportanceTraining, ReshuffleTraining


@pytest.fixture(scope="module")
def model():
    return lr((2,), 2)


def test_a_specification_is_parsed_into_names_and_options():
    assert specs.parse("a,b=1,c=None+d,e=(100, 1),f=x/y.npz,g=inf,h=1e+3") == [
        ("a", {"b": 1, "c": None}),
        ("d", {"e": (100, 1), "f": "x/y.npz", "g": float("inf"), "h": 1000.0}),
    ]


@pytest.mark.parametrize("text", ["a,b", "a,=1"])
def test_an_option_without_a_value_raises_value_error(text):
    with pytest.raises(ValueError, match="Write options as option=value"):
        specs.parse(text)


def test_options_include_the_keyword_only_parameters_of_base_classes():
    assert list(specs.options_of(registry.SAMPLERS["cache-sampler"], 2)) == [
        "alpha",
        "resampling",
        "seed",
        "staleness",
        "cache_prob",
        "smooth",
    ]


def test_a_trainer_is_created_with_the_options_of_its_specification(model):
    assert registry.way("uniform")(model, 1) is model
    trainer = registry.way("importance,presample=5,score=loss")(model, 7)
    assert isinstance(trainer, ImportanceTraining)
    assert (trainer.presample, trainer.score) == (5.0, "loss") and "seed=7" in repr(trainer)
    assert isinstance(registry.way("reshuffle")(model, 1), ReshuffleTraining)


@pytest.mark.parametrize("name", registry.TRAINERS)
def test_every_registered_trainer_can_be_created(name, model):
    assert registry.way(name)(model, 1).model is model


@pytest.mark.parametrize("name", registry.SAMPLERS)
@pytest.mark.parametrize("decorators", ["", "+power,power=0.5", "+additive,c=1.0+warmup,warmup=3"])
def test_every_registered_sampler_can_be_created_and_decorated(name, decorators, model):
    trainer = registry.way(f"{name},k=0.5,score=loss{decorators}")(model, 1)
    assert trainer.score == "loss"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("fastest", "The way to train must be one of uniform, importance, .* Received: 'fastest'"),
        ("importance,presampel=5", "has no option `presampel`. Its options: presample, .* Received: presampel=5"),
        ("importance,seed=5", "importance has no option `seed`"),
        ("importance,presample=0", "`presample` must be .* Received: presample=0"),
        ("uniform,alpha=1", "uniform has no option `alpha`. Its options: none"),
        ("cache-sampler,staleness=0", "`staleness` must be"),
        ("cache-sampler,k=2", "`k` must be a number of at most 1"),
        ("cache-sampler+powr", "The decorator of a sampler must be one of additive, .* Received: 'powr'"),
        ("cache-sampler+power,power=-1", "`power` must be"),
        ("importance+power", "Only samplers can be decorated"),
    ],
)
def test_an_invalid_way_raises_value_error_with_the_valid_names(text, error, model):
    with pytest.raises(ValueError, match=error):
        registry.way(text)(model, 1)


def test_a_dataset_is_created_with_its_options_and_views():
    rows = registry.dataset("canevet,N=8,test_split=0.25+whitened", "nowhere")
    assert len(rows.train_data) == 48 and abs(float(rows.train_data[:][0].mean())) < 1e-5


@pytest.fixture
def digits(tmp_path):
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (80, 6, 6), "uint8"), np.arange(80) % 3
    np.savez(tmp_path / "digits.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    return tmp_path / "digits.npz"


@pytest.fixture
def few_measurements(monkeypatch):
    monkeypatch.setattr(user_task, "MEASUREMENTS", 2)


@pytest.mark.slow
def test_a_comparison_writes_the_verdict_a_plot_and_all_measurements(digits, tmp_path, capsys, few_measurements):
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    ways = ["uniform", "importance,tau_th=0,score=loss", "history-sampler+power"]
    arguments = ["compare", "mnist+augmented,N=90,horizontal_flip=True:lr", "--ways", *ways, "--epochs", "1"]
    arguments += ["--batch-size", "16", "--data", str(digits), "--out", str(out), "--seeds", "1"]
    arguments += ["--monitor", "val_accuracy"]
    assert cli.main(arguments) == 0
    output, progress = capsys.readouterr()
    assert "highest val_accuracy" in output
    assert "Comparing uniform, " in progress and "Run 3 of 3 has finished: " in progress
    name = "mnist+augmented-N=90-horizontal_flip=True-lr"
    assert "importance,tau_th=0,score=loss" in output and str(out / f"{name}.png") in output
    assert (out / f"{name}.txt").read_text() in output
    assert (out / f"{name}.png").stat().st_size > 10000
    with (out / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["way"] for row in rows if row["steps"] == "6"] == ways
    first = [row for row in rows if row["steps"] == "0"]
    assert len({row["loss"] for row in first}) == 1


USER_MODULE = """
import keras
import numpy as np

def build():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model

def load():
    x = np.random.default_rng(0).normal(size=(48, 4))
    return (x[:32], x[:32, :1]), (x[32:], x[32:, :1])
"""


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    (tmp_path / "my_training.py").write_text(USER_MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("my_training", None)


@pytest.mark.parametrize("data", ["my_training:load", "arrays.npz"])
@pytest.mark.slow
def test_the_users_own_model_and_data_are_compared(data, user_module, capsys, few_measurements):
    x = np.random.default_rng(0).normal(size=(48, 4))
    np.savez("arrays.npz", x_train=x[:32], y_train=x[:32, :1], x_test=x[32:], y_test=x[32:, :1])
    arguments = ["compare", "my_training:build", "--data", data, "--cost", "12", "--seeds", "1", "--batch-size", "8"]
    assert cli.main(arguments) == 0
    assert "final validation loss" in capsys.readouterr().out
    assert (user_module / "comparison" / "my_training-build.txt").exists()


DICT_MODULE = """
import keras
import numpy as np

def build():
    inputs = {name: keras.Input((2,), name=name) for name in ("a", "b")}
    outputs = keras.layers.Dense(1)(keras.layers.Concatenate()(list(inputs.values())))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    return model

def load(rows=16):
    x = np.random.default_rng(0).normal(size=(32 + rows, 2))
    parts = slice(0, 32), slice(32, None)
    return [({"a": x[part], "b": x[part]}, x[part, :1]) for part in parts]

def load_without_validation_rows():
    return load(0)
"""


def test_a_model_whose_inputs_are_a_dict_is_checked_like_others(user_module, capsys):
    (user_module / "my_training.py").write_text(DICT_MODULE)
    options = cli.parse(["compare", "my_training:build", "--data", "my_training:load"])[1]
    [task], _ = command.prepare(options)
    assert sorted(task.data.x_test) == ["a", "b"] and len(task.data.y_test) == 16
    with pytest.raises(SystemExit):
        cli.main(["compare", "my_training:build", "--data", "my_training:load_without_validation_rows"])
    assert "with 0 test samples" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_model_whose_inputs_are_a_dict_is_compared(user_module, capsys, few_measurements):
    (user_module / "my_training.py").write_text(DICT_MODULE)
    arguments = ["compare", "my_training:build", "--data", "my_training:load", "--cost", "12", "--seeds", "1"]
    assert cli.main([*arguments, "--batch-size", "8"]) == 0
    assert "final validation loss" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["my_training:build"], "Your own model needs --data: MODULE:FUNCTION, or an npz file"),
        (["my_training:built", "--data", "my_training:load"], "MODULE:FUNCTION must name a function"),
        (["my_trainings:build", "--data", "my_training:load"], "Received: 'my_trainings:build'"),
        (["my_training:build", "--data", "my_training:loaded"], "a function that returns (x, y), (x_validation"),
        (
            ["my_training:build", "--data", "wrong.npz"],
            "The file must have the arrays x_train, y_train, ",
        ),
    ],
)
def test_a_wrong_name_of_the_users_own_model_or_data_exits_with_status_2(arguments, error, user_module, capsys):
    np.savez("wrong.npz", x_train=np.zeros(2))
    with pytest.raises(SystemExit) as exit_status:
        cli.main(["compare", *arguments])
    assert exit_status.value.code == 2
    assert error in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["mnist"], "A task must be MODULE:FUNCTION, or DATASET:MODEL such as mnist:small_nn. Received: 'mnist'"),
        (["minst:lr"], "MODULE:FUNCTION must name a function, or a dataset of mnist, "),
        (["mnist:deep"], "`name` must be one of small_nn, "),
        (["mnist:lr", "--data", "nowhere.npz"], "`path` must be an npz file"),
        (["canevet,N=8,test_split=0:lr"], "A comparison needs a test set"),
        (["canevet,N=8:small_cnn"], "`input_shape` must be a tuple"),
        (["canevet,N=8:lr", "--ways", "fastest"], "The way to train must be one of"),
        (["canevet,N=8:lr", "--ways", "importance,alpha=2"], "`alpha` must be a number in"),
        (["canevet,N=8:lr", "--seconds", "0"], "argument --seconds: must be above 0. Received: 0"),
        (["canevet,N=8:lr", "--epochs", "1", "--seconds", "1"], "not allowed with argument"),
        (["canevet,N=8:lr", "--monitor", "auc"], "one of val_loss, val_accuracy. Received: monitor='auc'"),
        (["canevet,N=8:lr", "--mode", "max"], '"max" needs a `monitor`'),
        (["canevet,N=8:lr", "--mode", "best"], "argument --mode: invalid choice: 'best'"),
    ],
)
def test_invalid_arguments_exit_with_status_2_before_training(arguments, error, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "compare", lambda *args: pytest.fail("trained"))
    with pytest.raises(SystemExit) as exit_status:
        cli.main(["compare", *arguments, "--out", str(tmp_path)])
    assert exit_status.value.code == 2
    assert error in " ".join(capsys.readouterr().err.split())


def test_a_failed_download_suggests_the_data_option(monkeypatch, capsys):
    def load_data():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", load_data)
    with pytest.raises(SystemExit):
        cli.main(["compare", "mnist:lr"])
    assert "URL fetch failure\nRead the dataset from a local file with --data." in capsys.readouterr().err


def test_an_error_while_training_is_reported_with_status_1(digits, tmp_path, capsys, monkeypatch):
    def make(model, seed):
        result = ImportanceTraining(model)
        result.fit = lambda *args, **kwargs: 1 / 0
        return result

    monkeypatch.setattr(registry, "way", lambda text: make)
    arguments = ["compare", "mnist:lr", "--ways", "a", "b", "--epochs", "1", "--data", str(digits)]
    assert cli.main([*arguments, "--out", str(tmp_path)]) == 1
    assert "mnist:lr: ZeroDivisionError: division by zero" in capsys.readouterr().err


def test_the_command_names_lists_all_registered_names(capsys):
    assert cli.main(["names"]) == 0
    output = capsys.readouterr().out
    for name in (*registry.DATASETS, *registry.TRAINERS, *registry.SAMPLERS, "wide_resnet_28_2", "presample=3.0"):
        assert name in output
    assert max(map(len, output.splitlines())) <= 120


@pytest.mark.parametrize("arguments", [["--help"], ["compare", "--help"], ["--version"]])
def test_help_and_version_are_printed_without_importing_keras(arguments):
    code = "import sys; sys.modules['keras'] = None; from importance_sampling.cli import main; main(sys.argv[1:])"
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    expected = f"keras-importance-sampling {importance_sampling.__version__}\n"
    assert result.stdout == expected if arguments == ["--version"] else "compare" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--epoch", "1"], "unknown option --epoch. Did you mean --epochs?"),
        (["--second=1"], "unknown option --second=1. Did you mean --seconds?"),
        (["--colour", "5"], "unrecognized arguments: --colour 5"),
    ],
)
def test_an_unknown_option_is_refused_with_the_closest_one(arguments, error, capsys):
    with pytest.raises(SystemExit) as exit_status:
        cli.main(["compare", "mnist:lr", *arguments])
    assert exit_status.value.code == 2 and error in capsys.readouterr().err
