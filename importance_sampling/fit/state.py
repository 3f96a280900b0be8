"""The state of a trainer: averages for the gate, totals for the summary, counters, and its own random stream.

All of it belongs to the trainer, none of it to the user's model or to a global generator, and all of it can be saved.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from importance_sampling import backend
from importance_sampling.conditions import Signals, moving_average
from importance_sampling.fit.counters import FORMAT, NEWER, Counters, read_counters
from importance_sampling.fit.state_file import UnreadableState, read_arrays
from importance_sampling.utils.random import seed_from_python


class Part(Protocol):
    """Something that is saved and restored with the state."""

    def state(self) -> dict[str, np.ndarray]: ...

    def restore(self, state: dict[str, np.ndarray]) -> None: ...


class TrainerState:
    """A trainer's variables and counters.

    Args:
        seed: int in [0, 2**31), or None: taken from a copy of Python's `random`, which stays as it is.
        momentum: float in [0, 1), default 0.9; of the averages, per step.
        kind: name of the kind of trainer; the state of another kind is refused. Empty (default): any kind is accepted.

    Attributes:
        averages: float32 `(4,)` variable, the moving averages of `Signals`; NaN where nothing was measured.
        totals: float32 `(4,)` variable: importance steps, sum of their effective sample sizes, largest weight, steps
            with unusable scores.
        generator: `keras.random.SeedGenerator`, used once for each importance step.
        counters: `Counters`.
    """

    def __init__(self, seed: int | None, momentum: float = 0.9, kind: str = ""):
        self.seed = seed if seed is not None else seed_from_python()
        self.momentum = momentum
        self.kind = kind
        with _undistributed():  # a distribution over several processes refuses NaN
            self.averages = keras.Variable(np.full(4, np.nan, "float32"), trainable=False, name="importance_averages")
            self.totals = keras.Variable(np.zeros(4, "float32"), trainable=False, name="importance_totals")
            self.generator = keras.random.SeedGenerator(self.seed, name="importance_generator")
        self.counters = Counters()
        self._parts: dict[str, Part] = {}
        self._restored: dict[str, dict] = {}  # of parts that aren't registered yet

    def register(self, name: str, part: Part) -> None:
        """Save and restore a part with the state, under a name; a state that was loaded for it is restored now."""
        self._parts[name] = part
        if name in self._restored:
            part.restore(self._restored.pop(name))

    def set_dataset(self, digest: str) -> bool:
        """Set the current data set; return True if it is another one, whose parts and epochs then start afresh."""
        if digest == self.counters.dataset:
            return False
        self.counters.dataset = digest
        self.counters.epochs_on_dataset = 0.0
        self.counters.held_out_are, self.counters.held_out_is_over = "", False
        self.counters.gate_is_open = False
        self._parts, self._restored = {}, {}
        return True

    def reset_totals(self) -> None:
        """Reset the totals at the beginning of a `fit`."""
        self.totals.assign(np.zeros(4, "float32"))
        self.counters.first_importance_step = -1

    def update_averages(self, signals: Signals, steps: Any) -> None:
        """Add signals to the moving averages; `steps` is the number of steps since the last ones."""
        values = ops.stack([ops.cast(value, "float32") for value in signals])
        self.averages.assign(moving_average(self.averages.value, values, self.momentum, steps))

    def record_weights(self, weights: Any, are_usable: Any) -> None:
        """Add an importance step to the totals.

        Args:
            weights: float `(b,)`, of the step.
            are_usable: bool, False if the scores were NaN, negative or all zero.
        """
        effective = ops.square(ops.sum(weights)) / ops.sum(ops.square(weights))
        steps, total, largest, unusable = ops.unstack(self.totals.value, 4)
        largest = ops.maximum(largest, ops.max(weights))
        unusable = unusable + (1.0 - ops.cast(are_usable, "float32"))
        self.totals.assign(ops.stack([steps + 1.0, total + effective, largest, unusable]))

    @property
    def mean_score(self) -> Any:
        """The moving average of the mean score, on the device."""
        return self.averages.value[-1]

    @property
    def signals(self) -> Signals:
        """The moving averages, read to the host."""
        return Signals(*backend.to_host(self.averages).tolist())

    def save(self, path: str | Path, optimizer_steps: int | None = None) -> None:
        """Write the state to an npz file, which is replaced at once or not at all.

        Args:
            path: of the file.
            optimizer_steps: int or None; the steps that the model's optimizer has taken, by which `load` recognises the
                model that the state belongs to.
        """
        parts = self._restored | {name: part.state() for name, part in self._parts.items()}
        header = json.dumps(
            dict(
                format=FORMAT,
                kind=self.kind,
                seed=self.seed,
                momentum=self.momentum,
                optimizer_steps=optimizer_steps,
                counters=dataclasses.asdict(self.counters),
            )
        )
        path = Path(path)
        unfinished = path.with_name(path.name + ".unfinished")
        try:
            with open(unfinished, "wb") as file:
                np.savez(
                    file,
                    header=np.array(header),
                    **{name: backend.to_host(v) for name, v in self._variables()},
                    **{f"{name}/{key}": value for name, state in parts.items() for key, value in state.items()},
                )
            os.replace(unfinished, path)  # a process that is killed while it writes leaves the file before
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise

    def load(self, path: str | Path, optimizer_steps: int | None = None) -> int | None:
        """Read a file that `save` wrote, of this version or of 1.0.0. After an error the state is as it was.

        Args:
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
            saved = read_arrays(path)
            header = json.loads(str(saved["header"]))
            if header["format"] > FORMAT:
                raise UnreadableState(path, NEWER, f"of format {header['format']}")
            values = {name: saved[name].astype(variable.dtype) for name, variable in self._variables()}
            parts: dict[str, dict] = {}
            for key, value in saved.items():
                name, _, rest = key.partition("/")
                if rest:
                    parts.setdefault(name, {})[rest] = value
            counters, kind = read_counters(header), header["kind"]
            seed, momentum, steps = header["seed"], header["momentum"], header.get("optimizer_steps")
        except UnreadableState:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
            raise UnreadableState(path) from None
        if None not in (steps, optimizer_steps) and steps != optimizer_steps:
            rule = f"the state that was saved with the model, after {optimizer_steps} steps of its optimizer"
            raise UnreadableState(path, rule, f"saved after {steps} steps")
        if kind and self.kind and kind != self.kind:
            raise ValueError(
                f"`path` must be a file that `save_state` of another {self.kind} wrote. "
                f"Received: path={str(path)!r}, of a {kind}"
            )
        if any(values[name].shape != tuple(variable.shape) for name, variable in self._variables()):
            raise UnreadableState(path)
        registered = set(self._parts) & set(parts) if counters.dataset == self.counters.dataset else set()
        before = {name: self._parts[name].state() for name in registered}
        try:
            for name in registered:
                self._parts[name].restore(parts.pop(name))
        except BaseException:
            for name, state in before.items():
                self._parts[name].restore(state)
            raise
        for name, variable in self._variables():
            variable.assign(values[name])
        self.seed, self.momentum, self.counters = seed, momentum, counters
        self._restored = parts
        return steps

    def _variables(self) -> list[tuple[str, Any]]:
        return [("averages", self.averages), ("totals", self.totals), ("generator", self.generator.state)]


@contextlib.contextmanager
def _undistributed() -> Iterator[None]:
    """Create variables outside Keras's distribution, if one is set: every process has its own copies."""
    distribution = keras.distribution.distribution()
    if distribution is not None:
        keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        if distribution is not None:
            keras.distribution.set_distribution(distribution)
