"""Write the state of a trainer to a file, and read it.

A file is read without trusting it: no pickled objects, and no memory for what it doesn't contain. Files of all versions
are read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import zipfile
from pathlib import Path

import numpy as np

from importance_sampling import backend
from importance_sampling.conditions import LossComparison, LossTrend
from importance_sampling.fit.counters import Counters, LastDecision
from importance_sampling.fit.held_out_losses import HeldOutLosses
from importance_sampling.fit.state import TrainerState

FORMAT = 4
NEWER = "a file of this version of the library or an earlier one (upgrade keras-importance-sampling)"
# Names of the counters in files of format 3, which version 1.0.0 wrote.
FORMAT_3_NAMES = {
    "open_steps": "importance_steps",
    "since_look": "steps_since_probe",
    "closed_looks": "closed_probes",
    "satisfied": "gate_is_open",
    "forwards": "forward_passes",
    "rate": "peak_learning_rate",
    "passed": "epochs_on_dataset",
    "data": "dataset",
}
# Counters of earlier versions that are no longer used.
GONE = ("presample", "new_loss", "mean_loss", "validation_ratio", "first_importance_step", "opened_at")


class UnreadableState(ValueError):
    """A file isn't one that `save_state` wrote, is damaged, or belongs to another moment.

    Args:
        path: of the file.
        rule: what the file must be.
        received: what it is, if that is known.
    """

    def __init__(
        self, path: str | Path, rule: str = "a file that `save_state` of version 1.0 or later wrote", received: str = ""
    ):
        super().__init__(f"`path` must be {rule}. Received: path={str(path)!r}{received and f', {received}'}")


def save_state(state: TrainerState, path: str | Path, optimizer_steps: int | None = None) -> None:
    """Write a state to an npz file, which is replaced at once or not at all.

    Args:
        state: of the trainer.
        path: of the file.
        optimizer_steps: int or None; the steps that the model's optimizer has taken, by which `load_state` recognises
            the model that the state belongs to.
    """
    parts = state.restored | {name: part.state() for name, part in state.parts.items()}
    header = json.dumps(
        dict(
            format=FORMAT,
            kind=state.kind,
            seed=state.seed,
            momentum=state.momentum,
            optimizer_steps=optimizer_steps,
            counters={name: value for one in _counted(state) for name, value in dataclasses.asdict(one).items()},
        )
    )
    path = Path(path)
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        with open(unfinished, "wb") as file:
            np.savez(
                file,
                header=np.array(header),
                **{name: backend.to_host(v) for name, v in state.variables},
                **{f"{name}/{key}": value for name, part in parts.items() for key, value in part.items()},
            )
        os.replace(unfinished, path)  # a process that is killed while it writes leaves the file before
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def load_state(state: TrainerState, path: str | Path, optimizer_steps: int | None = None) -> int | None:
    """Read a file that `save_state` wrote, of this version or of 1.0.0. After an error the state is as it was.

    Args:
        state: of the trainer; it is set to what the file contains.
        path: of the file.
        optimizer_steps: int or None; the steps that the optimizer must have taken when the file was written, if the
            file has them.

    Returns:
        The steps that the optimizer had taken when the file was written, if the file has them.

    Raises:
        UnreadableState: the file is of another kind, of a later version or damaged, or was written after another
            number of steps.
        ValueError: it is of another kind of trainer, or of other data.
    """
    try:
        saved = _read_arrays(path)
        header = json.loads(str(saved["header"]))
        if header["format"] > FORMAT:
            raise UnreadableState(path, NEWER, f"of format {header['format']}")
        if header["format"] < FORMAT:  # with an average of discounts, which are measured anew
            saved["averages"], saved["discounts"] = saved["averages"][[0, 1, 3]], np.zeros(2)
        values = {name: saved[name].astype(variable.dtype) for name, variable in state.variables}
        parts: dict[str, dict] = {}
        for key, value in saved.items():
            name, _, rest = key.partition("/")
            if rest:
                parts.setdefault(name, {})[rest] = value
        counted, kind = _read_counters(header), header["kind"]
        seed, momentum, steps = header["seed"], header["momentum"], header.get("optimizer_steps")
    except UnreadableState:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
        raise UnreadableState(path) from None
    if None not in (steps, optimizer_steps) and steps != optimizer_steps:
        rule = f"the state that was saved with the model, after {optimizer_steps} steps of its optimizer"
        raise UnreadableState(path, rule, f"saved after {steps} steps")
    if kind and state.kind and kind != state.kind:
        raise ValueError(
            f"`path` must be a file that `save_state` of another {state.kind} wrote. "
            f"Received: path={str(path)!r}, of a {kind}"
        )
    if any(values[name].shape != tuple(variable.shape) for name, variable in state.variables):
        raise UnreadableState(path)
    registered = set(state.parts) & set(parts) if counted[0].dataset == state.counters.dataset else set()
    before = {name: state.parts[name].state() for name in registered}
    try:
        for name in registered:
            state.parts[name].restore(parts.pop(name))
    except BaseException:
        for name, saved_part in before.items():
            state.parts[name].restore(saved_part)
        raise
    for name, variable in state.variables:
        variable.assign(values[name])
    state.seed, state.momentum = seed, momentum
    state.counters, state.decision, state.losses = counted
    state.restored = parts
    return steps


def _read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file that isn't compressed, by name.

    The size of each array is compared with the size of the file before any memory is taken.

    Raises:
        ValueError, KeyError, EOFError, zipfile.BadZipFile: the file isn't an npz file of this kind.
    """
    limit = os.path.getsize(path)
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            if math.prod(shape) * dtype.itemsize > limit or member.compress_type != zipfile.ZIP_STORED:
                raise ValueError("another size than that of the file")
    with np.load(path, allow_pickle=False) as saved:
        return {name: saved[name] for name in saved.files}


def _counted(state: TrainerState) -> tuple[Counters, LastDecision, HeldOutLosses]:
    """Return what is saved as `counters`, a flat dict in which all names are different."""
    return state.counters, state.decision, state.losses


def _read_counters(header: dict) -> tuple[Counters, LastDecision, HeldOutLosses]:
    """Return what the header of a file contains as `counters`.

    Raises:
        ValueError, TypeError, KeyError: the file has another format.
    """
    saved = dict(header["counters"])
    for name in GONE:
        saved.pop(name, None)
    if header["format"] == 3:
        saved = {FORMAT_3_NAMES.get(name, name): value for name, value in saved.items()}
        saved["gate_is_open"] = bool(saved["gate_is_open"])
    elif header["format"] != FORMAT:
        raise ValueError("another format")
    for name in ("validation", "within_epochs"):
        if name in saved:
            trends = {kind: _read_trend(saved[name][kind]) for kind in ("held_out", "training")}
            saved[name] = LossComparison(**saved[name] | trends)
    parts = [
        {field.name: saved.pop(field.name) for field in dataclasses.fields(kind) if field.name in saved}
        for kind in (Counters, LastDecision, HeldOutLosses)
    ]
    if saved:
        raise ValueError(f"unknown counters: {', '.join(saved)}")
    return Counters(**parts[0]), LastDecision(**parts[1]), HeldOutLosses(**parts[2])


def _read_trend(saved: dict) -> LossTrend:
    """Return a loss trend. Earlier versions saved one mean of all samples, not one of each group.

    Raises:
        ValueError, TypeError, KeyError: the averages aren't numbers.
    """
    averages = {name: np.atleast_1d(np.asarray(saved[name], "float64")).tolist() for name in ("recent", "longer")}
    return LossTrend(count=int(saved["count"]), **averages)
