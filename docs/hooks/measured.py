"""Tables of measurements, from the file that the benchmark wrote: no figure on a page was typed.

`<!-- measured: WAY -->` becomes the table of that way beside plain training, `<!-- measured: all -->` that of all ways.
Where the file isn't there, or doesn't have the way, the page shows nothing in its place.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from importance_sampling.comparison.figures import table

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "data" / "trainers.json"  # as `benchmarks/equal_time.py --trainers` writes table.json
PLACE = re.compile(r"<!-- measured: ([\w-]+) -->")
PLAIN = ("plain", "fast-uniform")
COLUMNS = {
    "train_loss": ("training loss", ".3g"),
    "test_error": ("test error", ".2f"),
    "steps": ("steps", ".0f"),
    "ms/step": ("ms a step", ".2f"),
    "importance": ("importance steps", ".0%"),
    "train_loss over plain": ("loss over plain", ".2f"),
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with the Markdown of a page."""
    return filled(markdown, json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else [])


def filled(markdown: str, figures: Sequence[dict]) -> str:
    """A page with its tables in place.

    Args:
        figures: a dict for each task, protocol and budget, as `equal_time.py` writes them.
    """
    return PLACE.sub(lambda place: "\n\n".join(_tables(place[1], figures)), markdown)


def _tables(way: str, figures: Sequence[dict]) -> list[str]:
    texts = ["## Measured"]
    for group in figures:
        rows = [row for row in group["ways"] if way in ("all", row["way"]) or row["way"] in PLAIN]
        if way != "all" and not any(row["way"] == way for row in rows):
            continue
        seeds = max(row["steps"]["n"] for row in rows)
        texts.append(
            f"Task `{group['task']}`, {group['budget']:g} {group['by']} of training each, the learning rate "
            f"{'held constant' if group['protocol'] == 'anytime' else 'tuned for plain training and decayed to zero'}; "
            f"medians of {seeds} seeds, with quartiles; test error in {group['unit']}. `plain` is `model.fit`, "
            "the fastest uniform training that can be built on the library's input pipeline is `fast-uniform`. Made by "
            "`benchmarks/equal_time.py --trainers`."
        )
        texts.append(table(rows, COLUMNS))
    return texts if len(texts) > 1 else []
