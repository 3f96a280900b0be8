"""Write tables of measurements into the pages, between markers, from the files that the benchmarks wrote.

    python docs/fill.py

Run it after a file in `docs/data` or a marker has changed. A page marks each part that is filled in:

    <!-- begin gains: default in anytime -->
    <!-- end -->

| marker | content |
| --- | --- |
| `measured: WAY` | a heading, and the way beside uniform training, from trainers.json; `all`: all ways |
| `tables: FILE` | a heading and a table of all ways for each task |
| `gains: WAY in FILE` | the figures of the way divided by those of `model.fit`, one row per task |
| `side-by-side: FIGURE` | the figure of each way in METHODS, divided by that of `model.fit`, on each task |
| `test-loss: WAY in FILE` | a sentence on the comparisons in which its test loss is within 2 % of `model.fit`'s |
| `file: PATH` | the file, whose path is relative to `docs/data` |

A FILE is named without its suffix, or by the folder of its table.json. It has the format of table.json, which
`benchmarks/equal_time.py` writes.
"""

import ast
import json
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

from analysis import USUAL_SCHEDULES, markdown_table, protocol_name, summarise_test_loss  # noqa: E402

PAGES = ROOT / "docs" / "pages"
DATA = ROOT / "docs" / "data"
TASKS = ROOT / "benchmarks" / "tasks"
PART = re.compile(
    r"^(?P<begin><!-- begin (?P<kind>[\w-]+): (?P<name>[^\n]+?)(?: in (?P<file>[\w-]+))? -->\n)"
    r".*?^(?P<end><!-- end -->)$",
    re.MULTILINE | re.DOTALL,
)
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
    "lowest test_loss over uniform": ("lowest test loss", ".2f"),
    "test_loss over uniform": ("test loss", ".2f"),
    "test_error over uniform": ("test error", ".2f"),
    "balanced_error over uniform": ("balanced error", ".2f"),
    "speed-up over uniform, 100%": ("speed-up", ".2g"),
    "importance": ("importance steps", ".0%"),
}
METHODS = {  # of the page on related methods: the file and the way that were measured, by the first cell of the row
    "[importance sampling](#importance-sampling)": ("equal_cost", "default"),
    "[RAIS](#rais)": ("equal_cost", "robust"),
    "[selective backprop](#selective-backprop-composer), Composer's schedule": ("equal_cost", "selective-backprop"),
    "selective backprop from the first step": ("equal_cost", "selective-backprop, 90%"),
    "[hard examples](#online-hard-example-mining)": ("equal_cost", "hard-examples"),
    "[InfoBatch](#infobatch), 30 to 35 % fewer steps": ("skipping", "skipping"),
}

Group = Mapping[str, Any]  # a task, a protocol and a budget, with the figures of all ways


def main() -> None:
    """Fill in all pages."""
    files = measurements()
    pages = {path: filled(path.read_text(encoding="utf-8"), files) for path in PAGES.rglob("*.md")}
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")


def measurements() -> dict[str, list[Group]]:
    """Return the contents of the files in `docs/data`, by the names that markers use."""
    paths = {path.stem: path for path in DATA.glob("*.json")}
    paths |= {path.parent.name: path for path in DATA.glob("*/table.json")}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items()}


def filled(page: str, files: Mapping[str, Sequence[Group]]) -> str:
    """Return the text of a page with its parts filled in; what they contained before is dropped.

    Args:
        page: str, Markdown.
        files: as returned by `measurements`.

    Raises:
        ValueError: there is nothing to fill in at a marker.
    """

    def part(found: re.Match) -> str:
        text = _content(found["kind"], found["name"], found["file"], files)
        if not text:
            raise ValueError(f"No file in docs/data has the figures for this part: {found['begin'].strip()}")
        return f"{found['begin']}\n{text}\n\n{found['end']}"

    return PART.sub(part, page)


def _content(kind: str, name: str, file: str | None, files: Mapping[str, Sequence[Group]]) -> str:
    if kind == "file":
        return (DATA / name).read_text(encoding="utf-8").strip()
    if kind == "measured":
        return _card(name, files.get("trainers", ()))
    if kind == "tables":
        return _tables(files.get(name, ()))
    if kind == "gains":
        return _gains(name, files.get(file, ()))
    if kind == "side-by-side":
        return _side_by_side(name, files)
    if kind == "test-loss":
        return _wrapped(summarise_test_loss(files.get(file, ()), name))
    raise ValueError(
        f"A marker must begin with measured, tables, gains, side-by-side, test-loss or file. Received: {kind!r}"
    )


def _card(way: str, groups: Sequence[Group]) -> str:
    texts = []
    for group in groups:
        rows = [row for row in group["ways"] if way in ("all", row["way"]) or row["way"] in BASELINES]
        if way == "all" or any(row["way"] == way for row in rows):
            about = f"Task `{group['task']}`. {_conditions(group)}"
            about = _wrapped(f"{about} Measured by `benchmarks/equal_time.py --trainers`.")
            texts += [about, _table(rows, COLUMNS)]
    return "\n\n".join(["## Measured", *texts]) if texts else ""


def _tables(groups: Sequence[Group]) -> str:
    texts = []
    for name, group in zip(_names(groups), groups, strict=True):
        about = f"{_about(group['task'])} {_conditions(group)}".strip()
        texts += [f"### {name}", _wrapped(about), _table(group["ways"], COLUMNS)]
    return "\n\n".join(texts)


def _gains(way: str, groups: Sequence[Group]) -> str:
    rows = []
    for name, group in zip(_names(groups), groups, strict=True):
        rows += [dict(row, way=f"`{name}`") for row in group["ways"] if row["way"] == way]
    return _table(rows, GAINS, "task") if rows else ""


def _side_by_side(figure: str, files: Mapping[str, Sequence[Group]]) -> str:
    """Return a table of the methods: medians on the tasks of equal_cost, and the range of the training losses."""
    tasks, ratio = [group["task"] for group in files.get("equal_cost", ())], f"{figure} over uniform"
    lines = [["method", *(f"`{task}`" for task in tasks), "training loss"]]
    for method, (file, way) in METHODS.items():
        rows = {group["task"]: row for group in files.get(file, ()) for row in group["ways"] if row["way"] == way}
        if not rows:
            return ""
        cells = [f"{rows[task][ratio]['median']:.2f}" if task in rows else "" for task in tasks]
        losses = [rows[task]["train_loss over uniform"]["median"] for task in tasks if task in rows]
        lines.append([method, *cells, f"{min(losses):.2f} to {max(losses):.2f}"])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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
    text = (
        f"Budget: {group['budget']:g} {UNITS[group['by']]} for each way, at {RATES[schedule]}. "
        f"Figures: {spread}; test error in {group['unit']}. `uniform` is `model.fit`"
    )
    if any(row["way"] == "fast-uniform" for row in group["ways"]):
        text += ", and `fast-uniform` is the fastest uniform training that can be built on the library's input pipeline"
    return f"{text}."


def _about(task: str) -> str:
    """Return the first paragraph of the docstring of the task's module, or "" if there is no module."""
    path = TASKS / f"{task}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.exists() else ""
    return " ".join(text.split("\n\n")[0].split())


def _table(rows: Sequence[Group], columns: Mapping[str, tuple[str, str]], first: str = "way") -> str:
    """Return a Markdown table without empty columns."""
    columns = {name: column for name, column in columns.items() if any(name in row for row in rows)}
    return markdown_table(rows, columns, first)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    main()
