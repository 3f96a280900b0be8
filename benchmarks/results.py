"""A JSON-lines file of results. Each run is appended when it ends, so an interrupted benchmark can be resumed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from analysis import USUAL_SCHEDULES

KEY = ("task", "protocol", "schedule", "way", "seed", "by", "budget", "rate", "measurements")


def key(run: Mapping[str, Any]) -> tuple:
    """Return the settings that identify a run."""
    return tuple(run[name] for name in KEY)


class Results:
    """The runs in a file.

    Args:
        path: path of a JSON-lines file, which may not exist yet. An incomplete last line is removed. Runs without a
            schedule have the usual one of their protocol.
    """

    def __init__(self, path: Path):
        self.path = path
        self._runs: dict[tuple, dict] = {}
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            complete = [line for line in lines if line.endswith("\n")]
            if complete != lines:
                path.write_text("".join(complete), encoding="utf-8")
            for run in map(json.loads, complete):
                if "schedule" not in run:
                    run["schedule"] = USUAL_SCHEDULES[run["protocol"]]
                self._runs[key(run)] = run

    def add(self, run: dict) -> None:
        """Append a run to the file."""
        self._runs[key(run)] = run
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(run) + "\n")

    def all(self) -> list[dict]:
        """Return all runs in the file, with their results."""
        return list(self._runs.values())

    def missing(self, wanted: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the wanted runs that aren't in the file."""
        return [run for run in wanted if key(run) not in self._runs]

    def of(self, wanted: Iterable[Mapping[str, Any]]) -> list[dict]:
        """Return the wanted runs that are in the file, with their results, in the given order."""
        return [self._runs[key(run)] for run in wanted if key(run) in self._runs]
