"""The fast tests: the modules that are listed as slow exist, and every part of the library has a fast test."""

import ast
from pathlib import Path

import pytest
from conftest import SLOW

FOLDER = Path(__file__).parent
PARTS = {
    "fit and its arguments": "test_training",
    "trainers": "test_trainers",
    "samplers": "test_samplers",
    "contract of samplers, policies and scores": "test_contract",
    "scores": "test_scores",
    "exact gradient norms": "test_exact_norms",
    "steps on pools": "test_pool",
    "steps on rows by index": "test_rows",
    "steps of variance reduction": "test_variance_reduced",
    "conditions": "test_conditions",
    "probes": "test_controller",
    "reweighting": "test_reweighting",
    "backends": "test_backends",
    "private names of Keras": "test_keras_internals",
    "state file": "test_state",
    "checkpoints": "test_faults",
    "history": "test_history_keys",
    "summary": "test_summary",
    "data sources": "test_sources",
    "recorder": "test_recorder",
    "labels": "test_labels",
    "comparison": "test_compare",
    "command line": "test_cli",
    "layers": "test_layers_losses",
    "documentation": "test_docs",
}


def marks(name, kind):
    """Return how many tests of a module have a mark of their own, and how many tests there are."""
    tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    tests = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    marked = [test for test in tests if f"pytest.mark.{kind}" in map(ast.unparse, test.decorator_list)]
    return len(marked), len(tests)


def test_every_module_that_is_listed_as_slow_exists():
    assert {path.stem for path in FOLDER.glob("test_*.py")} >= SLOW


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_the_library_has_a_fast_test(part):
    name = PARTS[part]
    slow, tests = marks(name, "slow")
    assert marks(name, "fast")[0] if name in SLOW else slow < tests


def test_only_modules_that_are_listed_as_slow_mark_tests_as_fast():
    for path in FOLDER.glob("test_*.py"):
        assert path.stem in SLOW or marks(path.stem, "fast")[0] == 0, path.name
