"""How often does the training loss jump up with old scores? `ReshuffleTraining` on MNIST, with Adam and AMSGrad.

    python benchmarks/jumps.py --data mnist.npz --out OUT

A step measures the scores of its batch. Their weighted mean estimates the mean score of all samples. It *jumps* if its
mean over 15 steps is six times that of 45 steps before. The cause is found in the step in which the weighted mean rises
first: a sample whose score is much higher than predicted, with its share of the batch's sum.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tasks
from analysis import markdown_table, summarise
from report import write_tables

from importance_sampling.training import ReshuffleTraining

OPTIMIZERS = {"Adam": {}, "Adam(amsgrad=True)": {"amsgrad": True}}
MEAN, BEFORE, RISE = 15, 45, 6.0  # steps, steps, ratio
APART = 300  # steps between jumps that are counted separately
FIRST_RISE = 4.0  # of the weighted mean of a step over the median of the steps before
BATCH_SIZE = 128
COLUMNS = {
    "jumps": ("jumps in a run", ".0f"),
    "loss": ("training loss of the last epoch", ".2g"),
    "share": ("share of one sample", ".0%"),
    "surprise": ("its score over the predicted one", ".0f"),
}


class Steps(NamedTuple):
    """What was measured in the steps of a run; float `(steps,)` each."""

    mean: np.ndarray  # of the weighted scores
    share: np.ndarray  # of the sample with the largest weighted score, in their sum
    surprise: np.ndarray  # its score, divided by the predicted one


def main() -> None:
    """Train, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4, metavar="N")
    parser.add_argument("--epochs", type=int, default=24, metavar="N")
    parser.add_argument("--data", type=Path, metavar="PATH", help="path of mnist.npz, or its folder")
    parser.add_argument("--out", type=Path, default=Path("jumps"), metavar="DIR")
    options = parser.parse_args()
    data = tasks.get("mnist_mlp").load(options.data)
    rows = []
    for name, settings in OPTIMIZERS.items():
        runs = [run(settings, seed, options.epochs, data) for seed in range(1, options.seeds + 1)]
        causes = [cause for _, steps in runs for cause in causes_of(steps)]
        row: dict[str, Any] = {"way": name, "loss": summarise([loss for loss, _ in runs])}
        row["jumps"] = summarise([len(jumps(steps.mean)) for _, steps in runs])
        if causes:
            shares, surprises = zip(*causes, strict=True)
            row |= {"share": summarise(shares), "surprise": summarise(surprises)}
        rows.append(row)
    print(write_tables(options.out, rows, table=markdown_table(rows, COLUMNS, "optimizer")))


def run(settings: dict, seed: int, epochs: int, data: Any) -> tuple[float, Steps]:
    """Train with one seed; return the training loss of the last epoch, and the steps from the second epoch on."""
    keras.utils.set_random_seed(seed)
    model = tasks.get("mnist_mlp").builder(None)()
    model.compile(keras.optimizers.Adam(**settings), "categorical_crossentropy")
    drawn: list[tuple] = []
    measured: list[np.ndarray] = []
    history = ReshuffleTraining(model, seed=seed).fit(
        data.x_train,
        data.y_train,
        BATCH_SIZE,
        epochs,
        verbose=0,
        on_sample=lambda sampler, indices, weights, scores: drawn.append((weights, scores)),
        on_scores=lambda sampler, scores: measured.append(scores),
    )
    first = -(-len(data.x_train) // BATCH_SIZE)  # steps of the first epoch have no predicted scores
    steps = [
        of_step(weights, predicted, scores)
        for (weights, predicted), scores in zip(drawn[first:], measured[first:], strict=True)
    ]
    return history.history["loss"][-1], Steps(*np.array(steps).T)


def of_step(weights: np.ndarray, predicted: np.ndarray, scores: np.ndarray) -> tuple[float, float, float]:
    """Return what `Steps` has of one step."""
    weighted = weights * scores
    largest = weighted.argmax()
    return weighted.mean(), weighted[largest] / max(weighted.sum(), 1e-30), scores[largest] / predicted[largest]


def jumps(means: np.ndarray) -> list[int]:
    """Return the steps before which the mean was a sixth of what it is 45 steps later.

    Example:
        >>> jumps(np.array([1.0] * 200 + [10.0] * 400))
        [149]
    """
    smooth = np.convolve(means, np.ones(MEAN) / MEAN, "valid")
    found: list[int] = []
    for step in np.flatnonzero(smooth[BEFORE:] > RISE * smooth[:-BEFORE]):
        if not found or step - found[-1] >= APART:
            found.append(int(step))
    return found


def causes_of(steps: Steps) -> list[tuple[float, float]]:
    """Return share and surprise of the sample that begins each jump."""
    causes = []
    for begin in jumps(steps.mean):
        usual = statistics.median(steps.mean[max(begin - 100, 0) : begin + 1])
        rising = np.flatnonzero(steps.mean[begin : begin + MEAN + BEFORE] > FIRST_RISE * usual)
        if len(rising):
            step = begin + rising[0]
            causes.append((float(steps.share[step]), float(steps.surprise[step])))
    return causes


if __name__ == "__main__":
    main()
