"""Train an example both ways for the same number of training seconds, and draw how far each got.

    python examples/compare.py mnist_mlp [--data FILE] [--seconds S] [--seed N] [--out DIR]

Both models start from the same weights and take turns of half a second, so that a machine that slows down slows both.
Each is one ordinary call of `fit`; a callback counts the seconds. Only the time inside training steps counts:
evaluation, waiting and compilation (a model's first steps, and its first importance steps) don't.
"""

from __future__ import annotations

import argparse
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import keras
import matplotlib
import mnist_mlp
import numpy as np

from importance_sampling import ImportanceTraining

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

EXAMPLES = {"mnist_mlp": mnist_mlp}
WAYS = ("uniform", "importance")
TURN = 0.5  # seconds
WARM_UP = 3  # steps that may compile something, at the start and again when importance sampling first opens
MEASUREMENTS = 20
LOSS_ROWS = 10000
LAST = 5  # measurements in the mean over the end


class Point(NamedTuple):
    """What was measured at one moment."""

    seconds: float
    loss: float  # on the first training rows, in inference mode
    error: float  # per cent of the test set


class Turns:
    """Lets one of two threads run at a time."""

    def __init__(self) -> None:
        self.gates = [threading.Semaphore(1), threading.Semaphore(0)]
        self.left = [False, False]

    def enter(self, number: int) -> None:
        """Wait for the first turn."""
        self.gates[number].acquire()

    def hand_over(self, number: int) -> None:
        """Let the other run, and wait for the next turn."""
        if not self.left[1 - number]:
            self.gates[1 - number].release()
            self.gates[number].acquire()

    def leave(self, number: int) -> None:
        """Let the other run for good."""
        self.left[number] = True
        self.gates[1 - number].release()


class Clock(keras.callbacks.Callback):
    """Counts training seconds, measures at regular moments, takes turns, and stops when the seconds are over.

    Args:
        digits: `(x_train, y_train, x_test, y_test)`.
        seconds: how long to train.
        turns, number: whose turn it is, and which of the two this is.
    """

    def __init__(self, digits: mnist_mlp.Digits, seconds: float, turns: Turns, number: int):
        super().__init__()
        x_train, y_train, x_test, y_test = digits
        self.train, self.test = (x_train[:LOSS_ROWS], y_train[:LOSS_ROWS]), (x_test, y_test)
        self.limit, self.turns, self.number = seconds, turns, number
        self.seconds = self.handed_over = self.started = 0.0
        self.steps = self.open_steps = 0
        self.points: list[Point] = []

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Measure the untrained model."""
        self._measure()

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Stop the clock, and see what is due."""
        elapsed = time.perf_counter() - self.started
        self.steps += 1
        is_open = bool(logs) and logs.get("importance", 0) > 0
        self.open_steps += is_open
        if self.steps > WARM_UP and not (is_open and self.open_steps <= WARM_UP):
            self.seconds += elapsed
        if self.seconds >= len(self.points) * self.limit / MEASUREMENTS:
            self._measure()
        if self.seconds >= self.limit:
            self.model.stop_training = True
        elif self.seconds - self.handed_over >= TURN:
            self.handed_over = self.seconds
            self.turns.hand_over(self.number)

    def _measure(self) -> None:
        """Evaluate as `model.evaluate` does; the clock stands still."""
        loss = self.model.evaluate(*self.train, batch_size=1000, verbose=0, return_dict=True)["loss"]
        accuracy = self.model.evaluate(*self.test, batch_size=1000, verbose=0, return_dict=True)["accuracy"]
        self.points.append(Point(self.seconds, loss, 100 * (1 - accuracy)))


def main() -> None:
    """Train both ways, print the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("example", choices=EXAMPLES)
    parser.add_argument("--data", type=Path, metavar="FILE", help="as the example takes it")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="of training, each way")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--out", type=Path, default=Path("."), metavar="DIR", help="where the picture goes")
    options = parser.parse_args()

    example = EXAMPLES[options.example]
    digits = example.load(options.data)
    models = []
    for _ in WAYS:
        keras.utils.set_random_seed(options.seed)
        models.append(example.build(digits[0].shape[1]))
    models[1].set_weights(models[0].get_weights())

    trainers = [models[0], ImportanceTraining(models[1], seed=options.seed)]
    clocks = train(trainers, digits, options.seconds)
    print(table(clocks))
    print(trainers[1].summary())
    options.out.mkdir(parents=True, exist_ok=True)
    draw(clocks, options.out / f"{options.example}.png")


def train(trainers: list[Any], digits: mnist_mlp.Digits, seconds: float) -> list[Clock]:
    """Fit both by turns; returns their clocks with what was measured."""
    turns = Turns()
    clocks = [Clock(digits, seconds, turns, number) for number in range(len(trainers))]

    def fit(number: int) -> None:
        turns.enter(number)
        try:
            x_train, y_train, _, _ = digits
            forever = 10**6
            trainers[number].fit(
                x_train, y_train, batch_size=128, epochs=forever, verbose=0, callbacks=[clocks[number]]
            )
        finally:
            turns.leave(number)

    with ThreadPoolExecutor(len(trainers)) as executor:
        list(executor.map(fit, range(len(trainers))))
    return clocks


def table(clocks: list[Clock]) -> str:
    """The measurements, every fourth of them."""
    lines = [
        "|  training  |      training loss     |     test error (%)     |",
        "|  seconds   |   uniform | importance |   uniform | importance |",
        "| ---------- | --------- | ---------- | --------- | ---------- |",
    ]
    for uniform, importance in list(zip(*(clock.points for clock in clocks), strict=False))[::4]:
        lines.append(
            f"| {uniform.seconds:10.1f} | {uniform.loss:9.5f} | {importance.loss:10.5f} "
            f"| {uniform.error:9.2f} | {importance.error:10.2f} |"
        )
    uniform, importance = (latest(clock) for clock in clocks)
    lines.append(
        f"| mean of {LAST}  | {uniform.loss:9.5f} | {importance.loss:10.5f} "
        f"| {uniform.error:9.2f} | {importance.error:10.2f} |"
    )
    lines.append(f"Steps taken: uniform {clocks[0].steps}, importance {clocks[1].steps}.")
    return "\n".join(lines)


def latest(clock: Clock) -> Point:
    """The mean of the last measurements: a constant learning rate leaves single moments noisy."""
    return Point(*np.mean(clock.points[-LAST:], axis=0).tolist())


def draw(clocks: list[Clock], path: Path) -> None:
    """Both ways over the seconds: training loss on the left, test error on the right."""
    styles = [
        dict(color="#e08214", linestyle="--", marker="s", markerfacecolor="white", label="uniform: model.fit"),
        dict(color="#1b2a6b", linestyle="-", marker="o", label="importance: ImportanceTraining(model).fit"),
    ]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    for clock, style in zip(clocks, styles, strict=True):
        seconds, losses, errors = np.array(clock.points).T
        left.plot(seconds, losses, linewidth=2, markersize=5, **style)
        right.plot(seconds, errors, linewidth=2, markersize=5, **style)
    uniform, importance = (clock.points[-1] for clock in clocks)
    calm, calm_importance = (latest(clock) for clock in clocks)
    left.set(yscale="log", ylabel="training loss (cross-entropy, log scale)")
    left.yaxis.set_major_formatter("{x:g}")
    left.set_title(
        f"training loss at the end: {uniform.loss:.2g} uniform, {importance.loss:.2g} importance\n"
        f"mean of the last {LAST} points: {calm.loss:.2g} uniform, {calm_importance.loss:.2g} importance"
    )
    # The untrained model's 90 % would flatten all the rest.
    after = [point.error for clock in clocks for point in clock.points[1:]]
    margin = 0.08 * (max(after) - min(after)) + 0.02
    right.set(ylim=(max(0.0, min(after) - margin), max(after) + margin), ylabel="test error (%)")
    right.set_title(
        f"test error at the end: {uniform.error:.2f} % uniform, {importance.error:.2f} % importance\n"
        f"mean of the last {LAST} points: {calm.error:.2f} % uniform, {calm_importance.error:.2f} % importance"
    )
    for axes in (left, right):
        axes.set_xlabel("training time (seconds)")
        axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
        axes.set_xlim(0, None)
        axes.grid(True, which="major", color="0.88")
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(loc="best", frameon=False)
    figure.suptitle(
        f"{path.stem}: {max(uniform.seconds, importance.seconds):.0f} training seconds each way", weight="bold"
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
