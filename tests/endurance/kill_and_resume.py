"""Kill trainings with SIGKILL and resume them with Keras's `BackupAndRestore`: the result must be as without a kill.

    KERAS_BACKEND=jax python tests/endurance/kill_and_resume.py --kills 20 --seed 0

A training is killed at a random time, or while a file is written, and started again until it ends. Weights, optimizer,
History, the trainer's counters and a recorder's counts must equal those of a training that wasn't killed, bit for bit.
Keras resumes at the beginning of an epoch: a backup within an epoch is compared with a training that an exception ended
right after the same backup. Prints a row of a Markdown table for each trainer and frequency of backups.
"""

from __future__ import annotations

import argparse
import collections
import json
import pickle
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from forked import AIMS, WAYS, End, run

FREQUENCIES: dict[str, str | int] = {"epoch": "epoch", "3 steps": 3}
MOST_STEPS, LONGEST = 20, 0.03  # steps and seconds until a kill; a backup takes some hundredths of a second
IN_A_ROW = 4  # kills of a training


OUTCOMES = ("equal", "refused by Keras", "told")


class Trainings:
    """Trainings of one kind with backups of one frequency, and their results without a kill."""

    def __init__(self, way: str, save_freq: str | int, folder: Path):
        self.way, self.save_freq, self.folder = way, save_freq, folder
        (folder / "begin").mkdir()
        self.references, self.stopped = {}, {(): folder / "begin"}

    def endure(self, ends: list[End]) -> tuple[int, str]:
        """Kill a training by several ends, and resume it until it ends; return the kills and what came of it."""
        kills, resumed, folder = 0, [], self._copy(self._stopped(()))
        for end in [*ends, None]:
            outcome = run(self.way, self.save_freq, folder, end)
            if outcome == "error":
                return kills, _error((folder / "error.txt").read_text())
            start = tuple(json.loads((folder / "start.json").read_text()))
            if start not in ((0, 0), *resumed[-1:]):  # or it was killed before another backup
                resumed.append(start)
            kills += outcome == "killed"
            if outcome == "ended":
                break
        result = _result(folder)
        different = differences(result["figures"], self.reference(tuple(resumed))["figures"])
        if different and result["told"]:
            return kills, f"told: {result['told'][0]}"
        if different:
            return kills, f"differs in {', '.join(different[:4])} ({ends}, resumed at {resumed})"
        return kills, "told" if result["told"] else "equal"

    def reference(self, resumed: tuple[tuple[int, int], ...]) -> dict:
        """Return the result of a training without a kill that resumed at some steps and epochs."""
        if resumed:
            ends = self.reference(())["epoch_ends"]
            if self.save_freq == "epoch" and all(ends.get(epoch - 1) == step for step, epoch in resumed):
                return self.reference(())  # it must be as if it had never ended
        if resumed not in self.references:
            folder = self._copy(self._stopped(resumed))
            assert run(self.way, self.save_freq, folder) == "ended", (folder / "error.txt").read_text()
            self.references[resumed] = _result(folder)
        return self.references[resumed]

    def _stopped(self, resumed: tuple[tuple[int, int], ...]) -> Path:
        """Return the folder of a training that was stopped after the backup of each of these steps."""
        if resumed and resumed not in self.stopped:
            (step, epoch), folder = resumed[-1], self._copy(self._stopped(resumed[:-1]))
            assert run(self.way, self.save_freq, folder, End("stop", step)) == "stopped", (resumed, step)
            path = folder / "backup" / "training_metadata.json"
            path.write_text(json.dumps(dict(json.loads(path.read_text()), epoch=epoch)))
            self.stopped[resumed] = folder
        return self.stopped[resumed]

    def _copy(self, folder: Path) -> Path:
        return Path(shutil.copytree(folder, Path(tempfile.mkdtemp(dir=self.folder)), dirs_exist_ok=True))


def differences(figures: dict, expected: dict) -> list[str]:
    """Return the names of the figures that aren't equal bit for bit; History has only the epochs since the start."""
    found = {name: np.asarray(value) for name, value in figures.items()}
    assert all(value.dtype != object for value in found.values()), "bytes of an object are its address"
    return [
        name for name, value in found.items() if value.tobytes() != np.asarray(expected[name]).tobytes()
    ]  # NaN equals NaN


def _result(folder: Path) -> dict:
    return pickle.loads((folder / "result.pickle").read_bytes())


def _error(text: str) -> str:
    """Return "refused by Keras" if its callback couldn't read its own file, else the error."""
    return f"refused by Keras: {text.splitlines()[-1][:80]}" if "in _load_model" in text else text


def moments(draw: random.Random, kills: int, aims: int) -> list[list[End]]:
    """Return the ends of each training: kills at random times, and while files are written, `IN_A_ROW` of them."""
    ends = [End("time", draw.randint(1, MOST_STEPS), draw.uniform(0, LONGEST)) for _ in range(kills)]
    ends += [End(kind, draw.randint(2, 3)) for kind in AIMS for _ in range(aims)]
    draw.shuffle(ends)
    return [ends[first : first + IN_A_ROW] for first in range(0, len(ends), IN_A_ROW)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="at random times, of each kind (default: %(default)s)")
    parser.add_argument("--aims", type=int, default=2, help="kills in each moment of a backup (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="NAME")
    options = parser.parse_args()
    write, failed = sys.stdout.write, 0
    write("| backend | trainer | backup each | kills | trainings | equal | refused by Keras | told | failed | s |\n")
    write("| --- " * 10 + "|\n")
    for way in options.ways:
        for each, save_freq in FREQUENCIES.items():
            draw, began = random.Random(f"{options.seed}/{way}/{each}"), time.perf_counter()
            kills, outcomes = 0, collections.Counter()
            with tempfile.TemporaryDirectory() as folder:
                trainings = Trainings(way, save_freq, Path(folder))
                for ends in moments(draw, options.kills, options.aims):
                    killed, outcome = trainings.endure(ends)
                    kills += killed
                    outcomes[next((word for word in OUTCOMES if outcome.startswith(word)), "failed")] += 1
                    if outcome != "equal":
                        sys.stderr.write(f"{way}, {each}, {ends}: {outcome}\n")
            failed += outcomes["failed"]
            cells = [keras.config.backend(), way, each, kills, outcomes.total(), *map(outcomes.get, OUTCOMES)]
            cells = [str(cell or 0) for cell in cells]
            write("| " + " | ".join(cells) + f" | {outcomes['failed']} | {time.perf_counter() - began:.0f} |\n")
            sys.stdout.flush()
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
