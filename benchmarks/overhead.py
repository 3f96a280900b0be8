"""Measure the time and memory of a training step, relative to `model.fit` and to fast uniform steps.

The ways are: "off", a trainer with importance sampling switched off; "gate closed", uniform steps with probes; "pool",
importance steps with pools; and "reshuffle", importance steps on reshuffled epochs, including the scoring before an
epoch. `--recorder` measures the same steps with and without a `SamplingRecorder`.

All ways train the same model, after a warm-up, in turns of a few hundred steps; every second round is in reverse order.
The results are medians and quartiles of the ratios within a round, so slow changes of the speed of the machine cancel.
Peak memory and the time to the first step are measured in separate processes on Linux.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from analysis import summarise

BATCH = 128
TRAINERS = {
    "off": dict(tau_th=float("inf")),
    "gate closed": dict(tau_th=1e9),
    "pool": dict(tau_th=0.0),
    "reshuffle": dict(tau_th=0.0, sampler="reshuffle"),
}
SCORING = ("gate closed", "pool", "reshuffle")  # the ways that compute scores
WAYS = ("uniform", *TRAINERS)
PROCESSES = ("start-up", *WAYS)
RATIOS = {
    "off over uniform": ("off", "uniform"),
    "gate closed over uniform": ("gate closed", "uniform"),
    "pool over gate closed": ("pool", "gate closed"),
    "pool over uniform": ("pool", "uniform"),
    "pool over fast uniform": ("pool", "fast uniform"),
    "reshuffle over uniform": ("reshuffle", "uniform"),
    "reshuffle over fast uniform": ("reshuffle", "fast uniform"),
    "uniform over fast uniform": ("uniform", "fast uniform"),
}


def load(file: str | None) -> tuple:
    """Load MNIST from an npz file in the format of Keras, or return random data of the same shape."""
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
    """Build the perceptron that all ways share, because the memory layout of the weights affects times by 2 %."""
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
    """Return the model or a trainer for the name of a way."""
    from importance_sampling import ImportanceTraining

    model = build()
    if way == "uniform":
        return model
    return ImportanceTraining(model, **TRAINERS[way], seed=0)


def fast_uniform(x: object, y: object) -> Callable[[int], float]:
    """Return a function that measures the seconds of n uniform steps on the input pipeline of the library."""
    import keras
    from fast_uniform import FastUniform

    run = FastUniform(build()).steps(x, y, BATCH)

    def measure(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            logs = run()
        float(keras.ops.convert_to_numpy(logs["loss"]))  # waits for the last step
        return time.perf_counter() - start

    return measure


def timed_fit(way: str, x: object, y: object) -> Callable[..., float]:
    """Return a function that measures the seconds of n steps of `fit`.

    The first five steps aren't timed, except for "reshuffle", which scores the samples before the first step.

    Returns:
        `measure(n, recorded=False)`, which always uses the same trainer.
    """
    import keras

    from importance_sampling.callbacks import SamplingRecorder

    trained = trainer(way)
    skipped = 0 if way == "reshuffle" else 5

    class Timer(keras.callbacks.Callback):
        async_safe = True

        def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
            if batch == skipped:
                self.start = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            self.seconds = time.perf_counter() - self.start

    recorder = SamplingRecorder()

    def measure(steps: int, recorded: bool = False) -> float:
        timer = Timer()
        rows = (steps + 5) * BATCH
        # The timer is the last callback, so it includes the work of the recorder at the end of the epoch.
        callbacks = [recorder, timer] if recorded else [timer]
        trained.fit(x[:rows], y[:rows], batch_size=BATCH, verbose=0, callbacks=callbacks)
        return timer.seconds * steps / (steps + 5 - skipped)

    return measure


def measure_steps(file: str | None, rounds: int, steps: int) -> dict:
    """Measure the milliseconds per step of all ways, and their ratios."""
    x, y = load(file)
    ways = {way: timed_fit(way, x, y) for way in WAYS}
    ways["fast uniform"] = fast_uniform(x, y)
    return interleaved(ways, RATIOS, rounds, steps)


def measure_recorder(file: str | None, rounds: int, steps: int) -> dict:
    """Measure the milliseconds per step with and without a recorder, in alternating turns.

    Both use the same trainer, because the times of two trainers differ by a few per cent.
    """
    x, y = load(file)
    ways, ratios = {}, {}
    for way in SCORING:
        ways[way] = timed_fit(way, x, y)
        ways[f"{way}, recorded"] = functools.partial(ways[way], recorded=True)
        ratios[f"with over without recorder, {way}"] = (f"{way}, recorded", way)
    return interleaved(ways, ratios, rounds, steps)


def interleaved(ways: dict[str, Callable[[int], float]], ratios: dict, rounds: int, steps: int) -> dict:
    """Measure the milliseconds per step of all ways in turns, and their ratios within a round."""
    for measure in ways.values():
        measure(steps)  # warm-up with the same number of steps, because it determines the size of the epoch
    times: dict[str, list] = {way: [] for way in ways}
    for index in range(rounds):
        for way, measure in list(ways.items())[:: 1 if index % 2 == 0 else -1]:
            times[way].append(1000 * measure(steps) / steps)
    results = {f"ms/step, {way}": summarise(values) for way, values in times.items()}
    for name, (numerator, denominator) in ratios.items():
        results[name] = summarise([a / b for a, b in zip(times[numerator], times[denominator], strict=True)])
    return results


def measure_process(way: str, file: str | None) -> None:
    """Measure a way in this process: print the peak memory in MiB and the seconds to the end of the first step."""
    import keras

    x, y = load(file)
    keras.ops.ones((2,)) + 1  # initialises the backend
    times: list = []
    seconds = 0.0
    if way != "start-up":
        trained = trainer(way)
        start = time.perf_counter()
        timer = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: times.append(time.perf_counter()))
        # All data, but only as many steps as are needed to reach the peak.
        trained.fit(x, y, batch_size=BATCH, epochs=2, steps_per_epoch=100, verbose=0, callbacks=[timer])
        seconds = times[0] - start
    # VmHWM and not `ru_maxrss`, which starts at the size of the parent process.
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps({"peak": peak, "seconds": seconds}))


def measure_processes(file: str | None, repeats: int) -> dict:
    """Measure peak memory above start-up and the time to the first step, each in a new process."""
    measured: dict[str, list] = {way: [] for way in PROCESSES}
    for _ in range(repeats):
        for way in PROCESSES:
            command = [sys.executable, __file__, "--process", way, *(["--data", file] if file else [])]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            measured[way].append(json.loads(output.splitlines()[-1]))
    start_up = statistics.median(result["peak"] for result in measured["start-up"])
    memory = {way: [result["peak"] - start_up for result in measured[way]] for way in WAYS}
    results = {}
    for way in WAYS:
        results[f"seconds to the first step, {way}"] = summarise([result["seconds"] for result in measured[way]])
        results[f"MiB above start-up, {way}"] = summarise(memory[way])
    for way in SCORING:
        ratios = [a / b for a, b in zip(memory[way], memory["uniform"], strict=True)]
        results[f"memory, {way} over uniform"] = summarise(ratios)
    return results


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", metavar="FILE", help="local npz file in the format of Keras's mnist.npz")
    parser.add_argument("--backend", choices=("tensorflow", "jax", "torch"), help="default: that of Keras")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each way; default: 12")
    parser.add_argument("--steps", type=int, default=200, help="steps per turn; default: 200")
    parser.add_argument("--quick", action="store_true", help="three rounds, about a minute")
    parser.add_argument("--recorder", action="store_true", help="measure only the overhead of a SamplingRecorder")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--process", choices=PROCESSES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.backend:
        os.environ["KERAS_BACKEND"] = options.backend  # before Keras is imported, here and in the processes started
    if options.process:
        measure_process(options.process, options.data)
        return
    rounds = 3 if options.quick else options.rounds
    if options.recorder:
        results = measure_recorder(options.data, rounds, options.steps)
    else:
        results = measure_steps(options.data, rounds, options.steps)
        results |= measure_processes(options.data, 1 if options.quick else 3)
    for name, result in results.items():
        low, high = result["quartiles"]
        print(f"{name:40}{result['median']:10.3f}   ({low:.3f} to {high:.3f}, n = {result['n']})")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
