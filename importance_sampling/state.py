"""What a trainer remembers between steps: averages for the gate, totals for the summary, its own random stream.

All of it belongs to the trainer, none of it to the user's model or to a global generator; all of it can be saved. It
decides nothing.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from importance_sampling import backend
from importance_sampling.conditions import Signals, moving_average
from importance_sampling.utils.random import seed_from_python

FORMAT = 3


class TrainerState:
    """A trainer's variables and counters.

    Attributes:
        averages: float32 `(3 + sizes,)` variable, the moving averages of `Signals`, NaN where nothing was measured.
        totals: float32 `(4,)` variable: importance steps, sum of their effective sample sizes, largest weight, steps
            whose scores were no use.
        generator: `keras.random.SeedGenerator`, drawn from once an importance step.
        counters: dict of ints, kept on the host; of floats: `forwards`, forward passes of a batch, `tau`, as the gate
            saw it last, 1 where it was not measured, `rate`, the largest learning rate that it saw, `passed`, passes
            over the data at hand, and `presample`, the size of pools where there are several, 0 before one is chosen;
            and of a str, `data`, the digest of these data where steps are by row.

    Args:
        seed: int in [0, 2**31), or None: taken from a copy of Python's `random`, which is read and not moved.
        momentum: float in [0, 1), of the averages, per step.
        kind: of the trainer; the state of another kind is refused. Empty (default): any will do.
        sizes: int, default 1; of how many sizes of pools the growth is averaged.
    """

    def __init__(self, seed: int | None, momentum: float = 0.9, kind: str = "", sizes: int = 1):
        self.seed = seed if seed is not None else seed_from_python()
        self.momentum = momentum
        self.kind = kind
        self.averages = keras.Variable(
            np.full(3 + sizes, np.nan, "float32"), trainable=False, name="importance_averages"
        )
        self.totals = keras.Variable(np.zeros(4, "float32"), trainable=False, name="importance_totals")
        self.generator = keras.random.SeedGenerator(self.seed, name="importance_generator")
        self._parts: dict[str, Any] = {}
        self._restored: dict[str, dict] = {}  # of parts that are not there yet
        self.counters: dict[str, Any] = dict(
            steps=0,
            open_steps=0,
            pools=0,
            since_look=0,
            closed_looks=0,
            opened_at=-1,
            satisfied=0,
            forwards=0.0,
            tau=1.0,
            rate=0.0,
            passed=0.0,
            presample=0.0,
            data="",
        )

    def keep(self, name: str, part: Any) -> None:
        """Have a part (with `state() -> dict of arrays` and `restore(state)`) saved and restored with the rest."""
        self._parts[name] = part
        if name in self._restored:
            part.restore(self._restored.pop(name))

    def meet(self, data: str) -> bool:
        """Take up data by their digest; returns whether they are others than before.

        Parts that are of others, and passes over them, are forgotten.
        """
        if data == self.counters["data"]:
            return False
        self.counters.update(data=data, passed=0.0, satisfied=0)
        self._parts, self._restored = {}, {}
        return True

    def begin(self) -> None:
        """Begin the totals anew, for the summary of a `fit`."""
        self.totals.assign(np.zeros(4, "float32"))
        self.counters["opened_at"] = -1

    def observe(self, signals: Signals, steps: Any) -> None:
        """Take signals into the averages; `steps` is how many steps ago the last ones were taken."""
        values = ops.concatenate([ops.reshape(ops.cast(value, "float32"), (-1,)) for value in signals])
        self.averages.assign(moving_average(self.averages.value, values, self.momentum, steps))

    def count(self, weights: Any, usable: Any) -> None:
        """Take an importance step's weights into the totals."""
        effective = ops.square(ops.sum(weights)) / ops.sum(ops.square(weights))
        steps, total, largest, unusable = ops.unstack(self.totals.value, 4)
        largest = ops.maximum(largest, ops.max(weights))
        unusable = unusable + (1.0 - ops.cast(usable, "float32"))
        self.totals.assign(ops.stack([steps + 1.0, total + effective, largest, unusable]))

    @property
    def mean_score(self) -> Any:
        """The moving average of the mean score, on the device."""
        return self.averages.value[-1]

    @property
    def signals(self) -> Signals:
        """The averages, read to the host."""
        tau, *growths, discount, score = backend.host(self.averages).tolist()
        return Signals(tau, growths[0] if len(growths) == 1 else growths, discount, score)

    def save(self, path: str | Path) -> None:
        """Write everything to an npz file at `path`."""
        parts = self._restored | {name: part.state() for name, part in self._parts.items()}
        header = json.dumps(
            dict(format=FORMAT, kind=self.kind, seed=self.seed, momentum=self.momentum, counters=self.counters)
        )
        with open(path, "wb") as file:
            np.savez(
                file,
                header=np.array(header),
                **{name: backend.host(v) for name, v in self._variables()},
                **{f"{name}/{key}": value for name, state in parts.items() for key, value in state.items()},
            )

    def load(self, path: str | Path) -> None:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is of another kind, or of another kind of trainer.
        """
        try:
            with np.load(path, allow_pickle=False) as saved:
                header = json.loads(str(saved["header"]))
                values = {name: saved[name] for name, _ in self._variables()}
                parts: dict[str, dict] = {}
                for key in saved.files:
                    name, _, rest = key.partition("/")
                    if rest:
                        parts.setdefault(name, {})[rest] = saved[key]
            usable, kind = header["format"] == FORMAT, header["kind"]
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
            usable = False
        if not usable:
            raise ValueError(
                f"`path` must be a file that `save_state` of this version wrote. Received: path={str(path)!r}"
            )
        if kind and self.kind and kind != self.kind:
            raise ValueError(
                f"`path` must be a file that `save_state` of another {self.kind} wrote. "
                f"Received: path={str(path)!r}, of a {kind}"
            )
        for name, variable in self._variables():
            variable.assign(values[name])
        mine = set(self._parts) if header["counters"]["data"] == self.counters["data"] else set()
        self.seed, self.momentum, self.counters = header["seed"], header["momentum"], header["counters"]
        self._restored = parts
        for name in mine & set(parts):
            self._parts[name].restore(self._restored.pop(name))

    def _variables(self) -> list[tuple[str, Any]]:
        return [("averages", self.averages), ("totals", self.totals), ("generator", self.generator.state)]
