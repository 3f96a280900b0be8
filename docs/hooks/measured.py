"""Tables of measurements, from the files in `docs/data` that benchmarks wrote: no figure on a page was typed.

Files are as `benchmarks/equal_time.py` writes table.json, and are called by their names without the suffix. Where a
file isn't there, or doesn't have what a place asks for, the page shows nothing.

    <!-- measured: WAY -->        the way beside plain training, from trainers.json, below a heading; `all`: all ways
    <!-- tables: FILE -->         all ways, a heading and a table for each task
    <!-- gains: WAY in FILE -->   what the way makes of each task, over plain training: a row a task
    <!-- promise: WAY in FILE --> where its test loss is within 2 % of plain training's, and where it isn't
    <!-- if FILE --> ... <!-- end -->   shown only where there is the file
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from importance_sampling.comparison.figures import promise, table

ROOT = Path(__file__).parents[2]
DATA = ROOT / "docs" / "data"
TASKS = ROOT / "benchmarks" / "tasks"
PLACE = re.compile(r"<!-- (measured|tables|gains|promise): ([\w-]+)(?: in ([\w-]+))? -->")
BLOCK = re.compile(r"<!-- if ([\w-]+) -->\n(.*?)<!-- end -->", re.DOTALL)
PLAIN = ("plain", "fast-uniform")
UNITS = {"seconds": "seconds of training", "cost": "forward passes of a batch (a backward pass counted as two)"}
RATES = {"anytime": "held constant", "budget": "decayed to zero by a cosine"}
COLUMNS = {
    "train_loss": ("training loss", ".3g"),
    "test_loss": ("test loss", ".3g"),
    "test_error": ("test error", ".2f"),
    "steps": ("steps", ".0f"),
    "ms/step": ("ms a step", ".2f"),
    "importance": ("importance steps", ".0%"),
    "train_loss over plain": ("training loss over plain", ".2g"),
}
GAINS = {
    "train_loss over plain": ("training loss", ".2g"),
    "test_loss over plain": ("test loss", ".2f"),
    "test_error over plain": ("test error", ".2f"),
    "times sooner than plain, 100%": ("times sooner", ".2g"),
    "importance": ("importance steps", ".0%"),
}

Group = Mapping[str, Any]  # a task, a protocol and a budget, with the figures of all ways


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with the Markdown of a page."""
    return filled(markdown, {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in DATA.glob("*.json")})


def filled(markdown: str, files: Mapping[str, Sequence[Group]]) -> str:
    """A page with its tables in place."""

    def place(found: re.Match) -> str:
        kind, name, file = found.groups()
        if kind == "tables":
            return _tables(files.get(name, ()))
        if kind == "promise":
            return promise(files.get(file, ()), name)
        return _gains(name, files.get(file, ())) if kind == "gains" else _card(name, files.get("trainers", ()))

    return PLACE.sub(place, BLOCK.sub(lambda block: block[2] if block[1] in files else "", markdown))


def _card(way: str, groups: Sequence[Group]) -> str:
    texts = []
    for group in groups:
        rows = [row for row in group["ways"] if way in ("all", row["way"]) or row["way"] in PLAIN]
        if way == "all" or any(row["way"] == way for row in rows):
            texts.append(f"Task `{group['task']}`, {_conditions(group)} Made by `benchmarks/equal_time.py --trainers`.")
            texts.append(_table(rows, COLUMNS))
    return "\n\n".join(["## Measured", *texts]) if texts else ""


def _tables(groups: Sequence[Group]) -> str:
    texts = []
    for name, group in zip(_names(groups), groups, strict=True):
        about = f"{_about(group['task'])} {_conditions(group)}".strip()
        texts += [f"### {name}", about, _table(group["ways"], COLUMNS)]
    return "\n\n".join(texts)


def _gains(way: str, groups: Sequence[Group]) -> str:
    rows = []
    for name, group in zip(_names(groups), groups, strict=True):
        rows += [dict(row, way=f"`{name}`") for row in group["ways"] if row["way"] == way]
    return _table(rows, GAINS, "task") if rows else ""


def _names(groups: Sequence[Group]) -> list[str]:
    """What to call each: by the task, and by the budget too if tasks have several."""
    several = len({group["task"] for group in groups}) < len(groups)
    return [f"{group['task']}, {group['budget']:g} {group['by']}" if several else group["task"] for group in groups]


def _conditions(group: Group) -> str:
    """Budget, learning rate, and how to read the figures."""
    seeds = max(row["steps"]["n"] for row in group["ways"])
    spread = f"medians of {seeds} seeds, with quartiles" if seeds > 1 else "one seed"
    return (
        f"{group['budget']:g} {UNITS[group['by']]} each, the learning rate {RATES[group['protocol']]}; {spread}; test "
        f"error in {group['unit']}. `plain` is `model.fit`, `fast-uniform` the fastest uniform training that can be "
        "built on the library's input pipeline."
    )


def _about(task: str) -> str:
    """The first sentence of its module, "" where there is none."""
    path = TASKS / f"{task}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.exists() else ""
    return " ".join(text.split("\n\n")[0].split())


def _table(rows: Sequence[Group], columns: Mapping[str, tuple[str, str]], first: str = "way") -> str:
    """Columns that nobody has are left out, and quartiles stand small below their median."""
    columns = {name: column for name, column in columns.items() if any(name in row for row in rows)}
    return re.sub(r" \(([^()|]+ to [^()|]+)\)", r"<br><small>\1</small>", table(rows, columns, first))
