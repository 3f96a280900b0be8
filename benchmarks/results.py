"""The file of results: a run a line, appended as it ends, so that a benchmark that was broken off goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

KEY = ("task", "protocol", "way", "seed", "by", "budget", "rate", "measurements")


def key(run: Mapping[str, Any]) -> tuple:
    """What makes a run the one that was asked for."""
    return tuple(run[name] for name in KEY)


class Results:
    """The runs in a file.

    Args:
        path: of a JSON-lines file; it need not exist. A last line that was cut short is dropped.
    """

    def __init__(self, path: Path):
        self.path = path
        self._runs: dict[tuple, dict] = {}
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]
            if whole != lines:
                path.write_text("".join(whole), encoding="utf-8")
            for run in map(json.loads, whole):
                self._runs[key(run)] = run

    def add(self, run: dict) -> None:
        """Append a run, at once."""
        self._runs[key(run)] = run
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(run) + "\n")

    def missing(self, wanted: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Those of the wanted runs that are not there yet."""
        return [run for run in wanted if key(run) not in self._runs]

    def of(self, wanted: Iterable[Mapping[str, Any]]) -> list[dict]:
        """Those of the wanted runs that are there, in the order asked for."""
        return [self._runs[key(run)] for run in wanted if key(run) in self._runs]
