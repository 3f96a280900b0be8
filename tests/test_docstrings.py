"""The examples in the docstrings run and give the outputs that they show."""

import ast
import doctest
import importlib
import importlib.util
import pkgutil
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from frameworks import run_eagerly

import importance_sampling
from importance_sampling import ImportanceTraining
from importance_sampling.callbacks import SamplingRecorder
from importance_sampling.comparison import user_task
from importance_sampling.datasets import InMemoryDataset

PACKAGE = Path(importance_sampling.__file__).parent
# Modules whose public names the examples use without importing them.
PUBLIC = ("callbacks", "conditions", "datasets", "labels", "model_wrappers", "reweighting", "samplers", "training")
# The examples run in tests/test_datasets_named.py, on small replacements of the data that they download or read.
DOWNLOADS = {
    *(f"named.{name}" for name in ("MNIST", "CIFAR10", "CIFAR100", "CIFARSanityCheck", "PixelByPixelMNIST")),
    "penn_treebank.PennTreeBank",
}
# Packages without which an example can't run, by a word of it.
PACKAGES = {"cleanlab": "cleanlab", "plot": "matplotlib", "TensorBoard": "tensorflow"}
# What an expression may return without showing it: an object whose representation is an address.
ADDRESS = re.compile(r"<[\w.]+ object at 0x[0-9a-f]+>\n")


def modules():
    """Import all modules of the package, but for those of the backends, of which only one can be imported."""
    for module in pkgutil.walk_packages([str(PACKAGE)], "importance_sampling."):
        if not re.match(r"importance_sampling\.(__main__$|backend\.)", module.name):
            yield importlib.import_module(module.name)


def examples():
    """Return the docstrings with examples of all modules, by the module and the name."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {test.name: test for module in modules() for test in finder.find(module) if test.examples}
    return {name.removeprefix("importance_sampling."): test for name, test in sorted(found.items())}


EXAMPLES = examples()


class Checker(doctest.OutputChecker):
    """Compares outputs as doctest does, except that objects without a readable representation needn't be shown."""

    def check_output(self, want, got, flags):
        return super().check_output(want, got, flags) or (want == "" and ADDRESS.fullmatch(got) is not None)


def run(test, names):
    """Run the examples of a docstring; return what differs. What `print` writes needn't be shown: it is a text."""
    for example in test.examples:
        if example.source.startswith("print(") and example.want == "":
            example.want, example.options[doctest.ELLIPSIS] = "...\n", True
    test.globs = names | test.globs
    report = []
    doctest.DocTestRunner(Checker(), verbose=False).run(test, out=report.append)
    return "".join(report)


def build_model(loss="sparse_categorical_crossentropy"):
    """A small compiled model for three classes."""
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(3, activation="softmax")])
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def shared_names(source):
    """What the examples take for granted: small data, and models that nobody has trained."""
    random = np.random.default_rng(0)
    x = random.normal(size=(512, 16)).astype("float32")
    y = x[:, :3].argmax(1)
    names = dict(dset=InMemoryDataset(x, y, x[:32], y[:32]))
    x, y = x[:320], y[:320]  # what a model trains on
    names |= dict(keras=keras, np=np, importance_sampling=importance_sampling)
    for module in PUBLIC:
        public = importlib.import_module(f"importance_sampling.{module}")
        names |= {name: getattr(public, name) for name in public.__all__}
    names |= dict(x=x, y=y, x_train=x[:256], y_train=y[:256], x_val=x[256:], y_val=y[256:], x_test=x[256:])
    names |= dict(y_test=y[256:], labels=y[:256], noisy_labels=np.roll(y[:256], 1))
    names |= dict(scores=random.random(128), losses=random.random(128), build_model=build_model)
    loss = "categorical_crossentropy" if "dset" in source else "sparse_categorical_crossentropy"
    names |= dict(model=build_model(loss), other=build_model(), compare=importance_sampling.compare)
    names["trainer"] = ImportanceTraining(names["model"])
    if "recorder)" in source or "recorder," in source:
        names["recorder"] = SamplingRecorder()
        trainer = ImportanceTraining(build_model(), tau_th=0)
        trainer.fit(x[:256], y[:256], epochs=2, verbose=0, callbacks=[names["recorder"]])
    return names


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Nothing is compiled or printed while a model trains, comparisons end after a few steps, and files are dropped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setattr(user_task, "budget_of", lambda amounts: ("cost", 6.0))
    monkeypatch.setattr(user_task, "MEASUREMENTS", 2)
    printed = keras.utils.is_interactive_logging_enabled()
    keras.utils.disable_interactive_logging()
    try:
        with run_eagerly():
            yield
    finally:
        if printed:
            keras.utils.enable_interactive_logging()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly`:UserWarning")
@pytest.mark.parametrize("name", [name for name in EXAMPLES if name.removeprefix("datasets.") not in DOWNLOADS])
def test_an_example_in_a_docstring_gives_the_outputs_that_it_shows(name, quick):
    test = EXAMPLES[name]
    source = "".join(example.source for example in test.examples)
    for word, package in PACKAGES.items():
        if word in source:
            pytest.importorskip(package, reason=f"{package} isn't installed")
    report = run(test, shared_names(source))
    if report:
        pytest.fail(report, pytrace=False)


def test_all_docstrings_with_examples_are_found():
    written = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ">>>" in (
                ast.get_docstring(node) or ""
            ):
                written.add((path.relative_to(PACKAGE).with_suffix("").as_posix(), getattr(node, "name", "")))
    found = set()
    for test in EXAMPLES.values():
        module = Path(test.filename).relative_to(PACKAGE).with_suffix("").as_posix()
        found.add((module, test.name.rsplit(".", 1)[1]))
    assert found == written and len(found) > 140
    assert {f"datasets.{name}" for name in DOWNLOADS} < set(EXAMPLES)


def test_outputs_that_differ_and_values_that_are_not_shown_are_found():
    parser = doctest.DocTestParser()
    for text, is_right in (
        (">>> 1 + 1\n2\n", True),
        (">>> 1 + 1\n3\n", False),
        (">>> 1 + 1\n", False),
        (">>> object()\n", True),
        (">>> print(1 + 1)\n", True),
        (">>> absent\n", False),
    ):
        assert (run(parser.get_doctest(text, {}, "text", None, 0), {}) == "") == is_right, text
