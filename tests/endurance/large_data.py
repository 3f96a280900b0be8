"""Time and memory of samplers on many rows: planning an epoch, the table, and steps on 10^6 rows against 10^4.

    python tests/endurance/large_data.py plan --rows 10000000
    python tests/endurance/large_data.py step

`plan` draws from a `ReshuffleSampler` alone: the rows are numbers that nothing reads, and the scores are exponential.
`step` trains a small model on both sizes, a `fit` of some steps on each in turn, and compares medians; with `--how
model.fit`, without a trainer: rows that lie far apart in memory take longer to read there as well.
Prints a row of a Markdown table.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np


class Rows:
    """A data set of which only the number of rows is read."""

    def __init__(self, rows: int):
        self.train_data = range(rows)


def resident_bytes(peak: bool = False) -> int:
    """Return the size of the process in memory, now or at most."""
    if peak:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def plan(rows: int, batch_size: int, batches: int) -> str:
    """Return the cells of a row: seconds to plan an epoch, of a draw, and bytes a row while at rest and at most."""
    from importance_sampling.reweighting import UNBIASED
    from importance_sampling.samplers import ReshuffleSampler

    random, before = np.random.default_rng(0), resident_bytes()
    sampler = ReshuffleSampler(Rows(rows), UNBIASED, seed=0)
    # Every row has a score, as after an epoch; written in parts, so that the peak is that of the plan.
    for start in range(0, rows, 10**6):
        part = slice(start, min(start + 10**6, rows))
        sampler._scores[part] = random.standard_exponential(part.stop - start, "float32")
    for table in (sampler._scored_at, sampler._order, sampler._cells, sampler._draw_probabilities):
        table.fill(0)
    table_bytes = resident_bytes() - before
    began = time.process_time()
    sampler.draw(batch_size)
    planned = time.process_time() - began
    seconds = []
    for _ in range(batches):
        began = time.process_time()
        drawn = sampler.draw(batch_size)
        sampler.update(drawn.indices, random.standard_exponential(batch_size))
        seconds.append(time.process_time() - began)
    peak = resident_bytes(peak=True) - before
    figures = f"{planned:.2f} | {planned / rows * batch_size * 1e6:.1f} | {np.median(seconds) * 1e6:.0f}"
    return f"| {rows:,} | {figures} | {table_bytes / rows:.1f} | {peak / rows:.0f} | {peak / 2**30:.2f} |"


def step(how: str, rows: list[int], batch_size: int, steps: int, repeats: int) -> str:
    """Return the cells of a row: milliseconds of a step on each number of rows, and their ratio."""
    import keras

    from importance_sampling.training import ReshuffleTraining

    random, ways = np.random.default_rng(0), []
    for n in rows:
        x = random.normal(size=(n, 32)).astype("float32")
        y = (x[:, 0] > 0).astype("int32")
        model = keras.Sequential([keras.Input((32,)), keras.layers.Dense(256, "relu"), keras.layers.Dense(2)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        ways.append((ReshuffleTraining(model, seed=1) if how == "ReshuffleTraining" else model, x, y))

    class Clock(keras.callbacks.Callback):
        """Times the steps after the first, which plans the epoch."""

        def on_train_batch_end(self, batch, logs=None):
            self.times.append(time.perf_counter())

    seconds: list[list[float]] = [[] for _ in ways]
    clock = Clock()
    for repeat in range(repeats + 1):
        for found, (trainer, x, y) in zip(seconds, ways, strict=True):
            clock.times = []
            trainer.fit(x, y, batch_size, steps_per_epoch=steps, verbose=0, callbacks=[clock])
            if repeat:  # the first compiles
                found += list(np.diff(clock.times)[1:])
    medians = [float(np.median(found)) * 1e3 for found in seconds]
    ratios = [np.median(a) / np.median(b) for a, b in zip(*(np.array_split(f, repeats) for f in seconds), strict=True)]
    spread = np.quantile(ratios, [0.25, 0.75])
    cells = [keras.config.backend(), how, *(f"{value:.3f}" for value in medians)]
    return f"| {' | '.join(cells)} | {np.median(ratios):.3f} [{spread[0]:.3f}, {spread[1]:.3f}] |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("plan", "step"))
    parser.add_argument("--rows", type=int, default=10**7, help="of `plan` (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=128, help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=75, help="of each `fit` of `step` (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=21, help="`fit`s of each size (default: %(default)s)")
    ways = ("ReshuffleTraining", "model.fit")
    parser.add_argument("--how", nargs="+", choices=ways, default=ways[:1], help="of `step` (default: %(default)s)")
    options = parser.parse_args()

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    if options.what == "plan":
        write("| rows | s to plan an epoch | us of it a batch | us to draw, update | bytes a row | at most | GiB |\n")
        write("| --- " * 7 + "|\n")
        write(plan(options.rows, options.batch_size, 200) + "\n")
    else:
        write("| backend | trained by | ms a step, 10^6 rows | 10^4 rows | ratio: median [quartiles] |\n")
        write("| --- " * 5 + "|\n")
        for how in options.how:
            write(step(how, [10**6, 10**4], options.batch_size, options.steps, options.repeats) + "\n")


if __name__ == "__main__":
    main()
