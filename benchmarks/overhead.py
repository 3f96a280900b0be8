"""What a step costs: closed and open, over plain `model.fit` and over the fastest uniform step of our own pipeline.

Open steps are of two kinds: pools, and reshuffled epochs, the scoring pass at the beginning of each counted in.
What a `SamplingRecorder` costs is measured by itself: with `--recorder`, the same steps with one and without.

All ways train the same model, are warmed up, and take turns of a few hundred steps, every other round in the opposite
order; the figures are medians and quartiles of the ratios within a round, so that a machine that drifts hurts all
alike. Memory and the time to the first step are measured in processes of their own, and by what Linux says of them. It
measures no accuracy.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from importance_sampling.comparison.figures import summarise

BATCH = 128
TRAINERS = {
    "off": dict(tau_th=float("inf")),
    "closed": dict(tau_th=1e9),
    "open": dict(tau_th=0.0),
    "reshuffled": dict(tau_th=0.0, sampler="reshuffle"),
}
SAMPLING = ("closed", "open", "reshuffled")  # those that score
WAYS = ("plain", *TRAINERS)
PROCESSES = ("start-up", *WAYS)
RATIOS = {
    "off over plain": ("off", "plain"),
    "closed over plain": ("closed", "plain"),
    "open over closed": ("open", "closed"),
    "open over plain": ("open", "plain"),
    "open over fast uniform": ("open", "fast uniform"),
    "reshuffled over plain": ("reshuffled", "plain"),
    "reshuffled over fast uniform": ("reshuffled", "fast uniform"),
    "plain over fast uniform": ("plain", "fast uniform"),
}


def load(file: str | None) -> tuple:
    """MNIST from a local npz in Keras's layout, or random rows of its shape."""
    import numpy as np

    if file is None:
        rng = np.random.default_rng(0)
        return rng.random((60000, 784), "float32"), np.eye(10, dtype="float32")[rng.integers(0, 10, 60000)]
    with np.load(file) as data:
        x = data["x_train"].reshape(-1, 784).astype("float32")
        x /= 255
        return x, np.eye(10, dtype="float32")[data["y_train"]]


@functools.cache
def build() -> object:
    """The MLP of the example, one for all ways: where weights lie in memory is worth 2 % of a step."""
    import keras
    from keras.layers import Dense, Dropout

    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((784,)),
        Dense(512, "relu"),
        Dropout(0.2),
        Dense(512, "relu"),
        Dropout(0.2),
        Dense(10, "softmax"),
    ]
    model = keras.Sequential(layers)
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


def trainer(way: str) -> object:
    """A model, or a trainer of one, by the name of the way."""
    from importance_sampling import ImportanceTraining

    model = build()
    if way == "plain":
        return model
    return ImportanceTraining(model, **TRAINERS[way], seed=0)


def fast_uniform(x: object, y: object) -> Callable[[int], float]:
    """Seconds of n uniform steps on our own pipeline."""
    import keras
    from fast_uniform import FastUniform

    run = FastUniform(build()).steps(x, y, BATCH)

    def measure(steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            logs = run()
        float(keras.ops.convert_to_numpy(logs["loss"]))
        return time.perf_counter() - started

    return measure


def timed_fit(way: str, x: object, y: object) -> Callable[..., float]:
    """Seconds of n steps of `fit`, from the sixth on; of a reshuffle from the first, before which it scores.

    Returns:
        `measure(n, recorded=False)`; all that it measures, recorded or not, is of one trainer.
    """
    import keras

    from importance_sampling.callbacks import SamplingRecorder

    trained = trainer(way)
    skipped = 0 if way == "reshuffled" else 5

    class Clock(keras.callbacks.Callback):
        async_safe = True

        def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
            if batch == skipped:
                self.started = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            self.seconds = time.perf_counter() - self.started

    recorder = SamplingRecorder()

    def measure(steps: int, recorded: bool = False) -> float:
        clock = Clock()
        rows = (steps + 5) * BATCH
        # The clock comes last: the recorder's work at the end of an epoch is within it.
        trained.fit(
            x[:rows], y[:rows], batch_size=BATCH, verbose=0, callbacks=[recorder, clock] if recorded else [clock]
        )
        return clock.seconds * steps / (steps + 5 - skipped)

    return measure


def steps(file: str | None, rounds: int, steps: int) -> dict:
    """Milliseconds a step, and the ratios of interest, over interleaved turns."""
    x, y = load(file)
    ways = {way: timed_fit(way, x, y) for way in WAYS}
    ways["fast uniform"] = fast_uniform(x, y)
    return interleaved(ways, RATIOS, rounds, steps)


def recorder(file: str | None, rounds: int, steps: int) -> dict:
    """The same steps with a recorder and without, in neighbouring turns.

    Both are taken by one trainer: of two, the one that is built first is a few per cent faster or slower.
    """
    x, y = load(file)
    ways, ratios = {}, {}
    for way in SAMPLING:
        ways[way] = timed_fit(way, x, y)
        ways[f"{way}, recorded"] = functools.partial(ways[way], recorded=True)
        ratios[f"recorder over none, {way}"] = (f"{way}, recorded", way)
    return interleaved(ways, ratios, rounds, steps)


def interleaved(ways: dict[str, Callable[[int], float]], ratios: dict, rounds: int, steps: int) -> dict:
    """Milliseconds a step of all ways by turns, and their ratios."""
    for measure in ways.values():
        measure(steps)  # as many as later: a reshuffle lays out an epoch of these rows
    times: dict[str, list] = {way: [] for way in ways}
    for number in range(rounds):
        for way, measure in list(ways.items())[:: 1 if number % 2 == 0 else -1]:
            times[way].append(1000 * measure(steps) / steps)
    figures = {f"ms/step, {way}": summarise(values) for way, values in times.items()}
    for name, (above, below) in ratios.items():
        figures[name] = summarise([a / b for a, b in zip(times[above], times[below], strict=True)])
    return figures


def process(way: str, file: str | None) -> None:
    """Measure one way in this process: peak memory in MB, seconds to the end of the first batch."""
    import keras

    x, y = load(file)
    keras.ops.ones((2,)) + 1
    first: list = []
    if way != "start-up":
        trained = trainer(way)
        started = time.perf_counter()
        note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: first.append(time.perf_counter()))
        # All of the data, but no more steps than show the peak.
        trained.fit(x, y, batch_size=BATCH, epochs=2, steps_per_epoch=100, verbose=0, callbacks=[note])
        first = [first[0] - started]
    # Of this process alone: `ru_maxrss` begins at the size of the parent, which has trained all ways.
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps({"peak": peak, "first": first[0] if first else 0.0}))


def processes(file: str | None, times: int) -> dict:
    """Peak memory beyond start-up and time to the first step, a process each."""
    measured: dict[str, list] = {way: [] for way in PROCESSES}
    for _ in range(times):
        for way in PROCESSES:
            command = [sys.executable, __file__, "--process", way, *(["--data", file] if file else [])]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            measured[way].append(json.loads(said.splitlines()[-1]))
    base = statistics.median(one["peak"] for one in measured["start-up"])
    figures = {}
    beyond = {way: [one["peak"] - base for one in ones] for way, ones in measured.items() if way != "start-up"}
    for way in WAYS:
        figures[f"seconds to the first step, {way}"] = summarise([one["first"] for one in measured[way]])
        figures[f"MB beyond start-up, {way}"] = summarise(beyond[way])
    for way in SAMPLING:
        ratios = [a / b for a, b in zip(beyond[way], beyond["plain"], strict=True)]
        figures[f"memory, {way} over plain"] = summarise(ratios)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", metavar="FILE", help="a local npz in the layout of Keras's mnist.npz")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=200, help="a turn")
    parser.add_argument("--quick", action="store_true", help="a minute's look")
    parser.add_argument("--recorder", action="store_true", help="only what a SamplingRecorder costs")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--process", choices=PROCESSES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        process(options.process, options.data)
        return
    rounds = 3 if options.quick else options.rounds
    if options.recorder:
        figures = recorder(options.data, rounds, options.steps)
    else:
        figures = steps(options.data, rounds, options.steps) | processes(options.data, 1 if options.quick else 3)
    for name, figure in figures.items():
        low, high = figure["quartiles"]
        print(f"{name:36}{figure['median']:10.3f}   ({low:.3f} to {high:.3f}, {figure['n']} turns)")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
