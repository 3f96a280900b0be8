"""Insert tables of measurements into pages, from the files in `docs/data` that the benchmarks wrote.

The files have the format of table.json, which `benchmarks/equal_time.py` writes. A page names a file without its
suffix, or the folder of a table.json. If the file or the figures don't exist, the page shows nothing.

    <!-- measured: WAY -->        a heading, and the way beside uniform training, from trainers.json; `all`: all ways
    <!-- tables: FILE -->         a heading and a table of all ways for each task
    <!-- gains: WAY in FILE -->   the figures of the way divided by those of `model.fit`, one row per task
    <!-- test-loss: WAY in FILE --> a sentence on the comparisons in which its test loss is within 2 % of `model.fit`'s
    <!-- if FILE --> ... <!-- end -->   shown only if the file exists
"""

import ast
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from analysis import USUAL_SCHEDULES, markdown_table, protocol_name, summarise_test_loss  # noqa: E402

DATA = ROOT / "docs" / "data"
TASKS = ROOT / "benchmarks" / "tasks"
PLACE = re.compile(r"<!-- (measured|tables|gains|test-loss): ([\w-][\w ,%-]*?)(?: in ([\w-]+))? -->")
BLOCK = re.compile(r"<!-- if ([\w-]+) -->\n(.*?)<!-- end -->", re.DOTALL)
BASELINES = ("uniform", "fast-uniform")
UNITS = {"seconds": "seconds of training", "cost": "forward passes of a batch (a backward pass counts as two)"}
RATES = {  # by schedule
    "constant": "a constant learning rate",
    "cosine": "a learning rate that follows a cosine to zero",
    "steps": "a learning rate that is divided by 10 after a half and after three quarters of the budget",
    "warmup-linear": "a learning rate that rises in the first tenth of the budget and then decays linearly to zero",
    "plateau": "a learning rate that is divided by 10 when the test loss stops falling",
}
COLUMNS = {
    "train_loss": ("training loss", ".3g"),
    "test_loss": ("test loss", ".3g"),
    "test_error": ("test error", ".2f"),
    "steps": ("steps", ".0f"),
    "ms/step": ("ms per step", ".2f"),
    "importance": ("importance steps", ".0%"),
    "train_loss over uniform": ("training loss / uniform", ".2g"),
}
GAINS = {
    "train_loss over uniform": ("training loss", ".2g"),
    "test_loss over uniform": ("test loss", ".2f"),
    "test_error over uniform": ("test error", ".2f"),
    "balanced_error over uniform": ("balanced error", ".2f"),
    "speed-up over uniform, 100%": ("speed-up", ".2g"),
    "importance": ("importance steps", ".0%"),
}

Group = Mapping[str, Any]  # a task, a protocol and a budget, with the figures of all ways


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Insert the tables into the Markdown of a page; mkdocs calls this function."""
    paths = {path.stem: path for path in DATA.glob("*.json")}
    paths |= {path.parent.name: path for path in DATA.glob("*/table.json")}
    return filled(markdown, {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items()})


def filled(markdown: str, files: Mapping[str, Sequence[Group]]) -> str:
    """Return the page with its tables."""

    def place(found: re.Match) -> str:
        kind, name, file = found.groups()
        if kind == "tables":
            return _tables(files.get(name, ()))
        if kind == "test-loss":
            return summarise_test_loss(files.get(file, ()), name)
        return _gains(name, files.get(file, ())) if kind == "gains" else _card(name, files.get("trainers", ()))

    return PLACE.sub(place, BLOCK.sub(lambda block: block[2] if block[1] in files else "", markdown))


def _card(way: str, groups: Sequence[Group]) -> str:
    texts = []
    for group in groups:
        rows = [row for row in group["ways"] if way in ("all", row["way"]) or row["way"] in BASELINES]
        if way == "all" or any(row["way"] == way for row in rows):
            about = f"Task `{group['task']}`. {_conditions(group)}"
            texts += [f"{about} Measured by `benchmarks/equal_time.py --trainers`.", _table(rows, COLUMNS)]
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
    """Return the headings: the name of the task, with schedule and budget if a task has several of them."""
    if len({group["task"] for group in groups}) == len(groups):
        return [group["task"] for group in groups]
    several = len({protocol_name(group) for group in groups}) > 1
    texts = [f"{group['task']}, {protocol_name(group)}" if several else group["task"] for group in groups]
    return [f"{text}, {group['budget']:g} {group['by']}" for text, group in zip(texts, groups, strict=True)]


def _conditions(group: Group) -> str:
    """Describe the budget, the learning rate and the figures."""
    seeds = max(row["steps"]["n"] for row in group["ways"])
    spread = f"medians of {seeds} seeds, with quartiles" if seeds > 1 else "one seed"
    schedule = group.get("schedule", USUAL_SCHEDULES[group["protocol"]])
    return (
        f"Budget: {group['budget']:g} {UNITS[group['by']]} for each way, at {RATES[schedule]}. "
        f"Figures: {spread}; test error in {group['unit']}. `uniform` is `model.fit`, and `fast-uniform` is the "
        "fastest uniform training that can be built on the library's input pipeline."
    )


def _about(task: str) -> str:
    """Return the first paragraph of the docstring of the task's module, or "" if there is no module."""
    path = TASKS / f"{task}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.exists() else ""
    return " ".join(text.split("\n\n")[0].split())


def _table(rows: Sequence[Group], columns: Mapping[str, tuple[str, str]], first: str = "way") -> str:
    """Return a Markdown table without empty columns, with the quartiles in small print below the median."""
    columns = {name: column for name, column in columns.items() if any(name in row for row in rows)}
    return re.sub(r" \(([^()|]+ to [^()|]+)\)", r"<br><small>\1</small>", markdown_table(rows, columns, first))
