"""The names in the code use the terms of the field, one for each concept."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("importance_sampling", "examples", "benchmarks")
# Former private words, as parts of a name, and the terms in their place.
FORBIDDEN = {
    "ahead": "in advance, prefetched, peeked",
    "alike": "identical",
    "fair": "uniform, unbiased",
    "follow": "apply",
    "forget": "release, decay",
    "fronts": "legacy",
    "given": "arguments",
    "growth": "variance gain",
    "keep": "register, record",
    "lap": "stop",
    "listed": "as_list",
    "look": "probe",
    "looks": "probes",
    "meet": "set, examine",
    "obstacle": "reason",
    "offer": "context",
    "plain": "uniform",
    "points": "logits",
    "price": "cost",
    "promise": "expected",
    "remarks": "notes",
    "resident": "in memory",
    "sooner": "speed-up",
    "spend": "cost",
    "takes": "accepts",
    "tell": "notify",
    "terms": "context",
    "told": "notified",
    "turns": "round robin",
}
# Deprecated names, public arguments, and points of curves.
ALLOWED = {
    ("benchmarks/correlation.py", "NUM_POINTS"),
    ("importance_sampling/comparison/__init__.py", "alike"),
    ("benchmarks/analysis.py", "points"),
    ("importance_sampling/comparison/clock.py", "points"),
    ("importance_sampling/comparison/data.py", "resident"),
    ("importance_sampling/samplers/base.py", "fair"),
    ("importance_sampling/samplers/smoothing.py", "forget"),
}


def files():
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def defined_names(tree):
    """Return the names that a module defines: of functions, classes, arguments, variables and attributes."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return names


def parts(name):
    """Return the words of a name in snake case or camel case."""
    return re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_uses_none_of_the_former_private_words(path):
    place = path.relative_to(ROOT).as_posix()
    names = defined_names(ast.parse(path.read_text(encoding="utf-8"))) | {path.stem}
    found = {
        f"{name}: use {FORBIDDEN[part.lower()]}"
        for name in names
        for part in parts(name)
        if part.lower() in FORBIDDEN and (place, name) not in ALLOWED
    }
    assert not found


def test_words_are_found_in_snake_case_and_in_camel_case():
    tree = ast.parse("def row_looks(terms_of): pass\nclass FairSignals: pass\nself.meetsAll = price = 1")
    assert {part.lower() for name in defined_names(tree) for part in parts(name)} >= {"looks", "terms", "fair", "price"}
