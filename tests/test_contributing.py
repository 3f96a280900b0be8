"""The map of the code in docs/CONTRIBUTING.md agrees with the code."""

import ast
import functools
import importlib
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "importance_sampling"
TEXT = (ROOT / "docs" / "CONTRIBUTING.md").read_text(encoding="utf-8")
PROSE = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
DRAWING = "".join(re.findall(r"^```text\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
QUOTED = re.findall(r"`([^`]+)`", PROSE)
PATH = re.compile(r"[\w.-]*/[\w./-]*|\w+\.py")
NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
OF_KERAS_OR_THE_SHELL = {"pyproject.toml", "pytest", "KIS_MNIST"}


@functools.cache
def definitions(path):
    """Return the names that a file defines: functions, classes, `Class.member`, assigned names and attributes."""
    found = set()

    def visit(node, prefix):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                found.update({child.name, prefix + child.name})
                visit(child, f"{child.name}." if isinstance(child, ast.ClassDef) else prefix)
            elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                found.update({child.id, prefix + child.id})
            elif isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Store):
                found.add(child.attr)
            else:
                visit(child, prefix)

    visit(ast.parse(path.read_text(encoding="utf-8")), "")
    return found


def everything():
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").glob("*.py")]
    arguments = {"score", "tau", "importance"}  # keys of History
    return set().union(*map(definitions, files), arguments)


def exists(path):
    return (ROOT / path).exists() or (PACKAGE / path).exists()


def is_of_keras(name):
    owner = importlib.import_module("keras")
    for part in name.split(".")[1:]:
        owner = getattr(owner, part, None)
    return owner is not None


def test_every_file_and_folder_named_in_the_contributing_page_exists():
    paths = [path for quoted in QUOTED for path in PATH.findall(quoted)]
    assert len(paths) > 60
    assert [path for path in paths if not exists(path)] == []


def test_every_class_and_function_named_in_the_contributing_page_exists():
    names = [quoted for quoted in QUOTED if NAME.fullmatch(quoted) and not PATH.fullmatch(quoted)]
    known = everything() | OF_KERAS_OR_THE_SHELL
    assert len(names) > 40
    unknown = {name for name in names if name not in known}
    assert {name for name in unknown if not (name.startswith("keras.") and is_of_keras(name))} == set()


def test_every_name_in_the_drawing_of_the_data_flow_is_defined_in_the_file_beside_it():
    pairs = re.findall(r"([A-Za-z_][\w.]*) {2,}([\w/]+\.py)\b", DRAWING)
    assert len(pairs) == DRAWING.count(".py") > 40
    assert [pair for pair in pairs if pair[0] not in definitions(PACKAGE / pair[1])] == []


def test_a_part_that_the_contributing_page_registers_in_a_list_is_in_the_file_of_that_list():
    pairs = re.findall(r"`([A-Z_]+)` of `([\w/]+\.py)`", PROSE)
    assert len(pairs) >= 4
    assert [pair for pair in pairs if pair[0] not in definitions(ROOT / pair[1])] == []
