"""Tests use public names, so that they state what users can rely on, and code can be changed inside."""

import ast
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
BY_PURPOSE = {"test_keras_internals.py", Path(__file__).name}  # the first says what private names of Keras provide
# Names with an underscore that are public: of named tuples, and of what notebooks show.
PUBLIC = {"_asdict", "_fields", "_make", "_replace", "_repr_html_"}
BY_NAME = {"getattr", "setattr", "delattr", "hasattr"}
# Private names that a test can't do without, and why.
EXCEPTIONS = {
    ("test_interrupted.py", "_save_model"): "users replace this method of a callback of Keras, and `fit` does, too",
    ("test_rows.py", "_record_training_state_sharding_spec"): "`fit` of an older Keras calls it ahead of a step on JAX",
    ("test_uniform_steps.py", "_make_function"): "Keras makes a function of any step by it alone",
    ("ways.py", "_user_metrics"): "the metrics as the user passed them, which Keras wraps",
}


def is_private(name):
    return name.startswith("_") and not name.endswith("__") and name not in PUBLIC


def private_names(tree):
    """Return the private attributes that a module uses, those of `self` excepted, and private names that it imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")) and is_private(node.attr):
                yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in BY_NAME:
            texts = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            yield from (last for last in (text.rpartition(".")[2] for text in texts) if is_private(last))


def found():
    paths = [path for path in sorted(FOLDER.glob("*.py")) if path.name not in BY_PURPOSE]
    return {(path.name, name) for path in paths for name in private_names(ast.parse(path.read_text(encoding="utf-8")))}


def test_tests_use_no_private_names_but_those_listed_with_a_reason():
    assert found() - EXCEPTIONS.keys() == set()


def test_every_listed_exception_is_still_needed():
    assert EXCEPTIONS.keys() - found() == set()


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("trainer._state.counters", ["_state"]),
        ("trainers[0].fit()._a", ["_a"]),
        ("self._own, cls._own, model.__dict__, drawn._replace(scores=1), shown._repr_html_()", []),
        ("from importance_sampling.samplers import _base, base", ["_base"]),
        ("monkeypatch.setattr(module, '_iterate', f); getattr(x, 'y', '_z')", ["_iterate", "_z"]),
        ("monkeypatch.delattr('importance_sampling.samplers.base._squeeze')", ["_squeeze"]),
    ],
)
def test_private_names_are_found_as_attributes_in_imports_and_as_texts(code, names):
    assert list(private_names(ast.parse(code))) == names
