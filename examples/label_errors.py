"""Find wrong labels by what importance sampling keeps coming back to.

    python examples/label_errors.py [--data FILE] [--epochs N] [--seed N] [--quick] [--out DIR]

Of the training labels 2 % are changed to another digit, a perceptron is trained on all of them, and a recorder notes
what was drawn. A sample that stays hard is drawn again and again: the ranking begins with the wrong labels. It prints
how many of the first k are wrong, and draws the first ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import mnist_mlp
import numpy as np

from importance_sampling import ImportanceTraining
from importance_sampling.callbacks import SamplingRecorder

SHARE = 0.02  # of the labels that are changed
FIRST = (100, 300, 600, 1200)
SHOWN, COLUMNS = 60, 12
QUICK_ROWS = 6000


def main() -> None:
    """Train on labels of which some are wrong, rank the samples, print the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FILE", help="an npz file in the layout of Keras's mnist.npz")
    parser.add_argument("--epochs", type=int, default=6, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the changed labels, too")
    parser.add_argument("--quick", action="store_true", help=f"the first {QUICK_ROWS} digits only")
    parser.add_argument("--out", type=Path, default=Path("."), metavar="DIR", help="where the picture goes")
    options = parser.parse_args()

    x, one_hot, _, _ = mnist_mlp.load(options.data)
    rows = QUICK_ROWS if options.quick else len(x)
    x, true = x[:rows], one_hot[:rows].argmax(1)
    given = with_errors(true, options.seed)

    keras.utils.set_random_seed(options.seed)
    recorder = SamplingRecorder()
    trainer = ImportanceTraining(mnist_mlp.build(x.shape[1]), seed=options.seed)
    labels = keras.utils.to_categorical(given, 10)
    trainer.fit(x, labels, batch_size=128, epochs=options.epochs, verbose=2, callbacks=[recorder])
    print(trainer.summary())

    ranking = suspects(recorder)
    found = precision(given != true, ranking)
    print(table(found))
    options.out.mkdir(parents=True, exist_ok=True)
    picture(x, given, true, ranking, found, options.out / "label_errors.png")


def with_errors(labels: np.ndarray, seed: int) -> np.ndarray:
    """The labels, of which `SHARE` were changed to another digit by chance."""
    rng = np.random.default_rng(seed)
    wrong = rng.choice(len(labels), round(SHARE * len(labels)), replace=False)
    changed = labels.copy()
    changed[wrong] = (labels[wrong] + rng.integers(1, 10, len(wrong))) % 10
    return changed


def suspects(recorder: SamplingRecorder) -> np.ndarray:
    """All rows, the most suspicious first: those drawn most often, of equals the one with the higher last score."""
    return np.lexsort((-np.nan_to_num(recorder.last_score), -recorder.draws))


def precision(wrong: np.ndarray, ranking: np.ndarray) -> np.ndarray:
    """Which share of the first k are wrong, for every k, float `(rows,)`."""
    return np.cumsum(wrong[ranking]) / np.arange(1, len(ranking) + 1)


def table(found: np.ndarray) -> str:
    """The share of wrong labels among the first k."""
    lines = [
        "| first k | wrong labels among them | precision (%) |",
        "| ------- | ----------------------- | ------------- |",
    ]
    for k in (k for k in FIRST if k <= len(found)):
        lines.append(f"| {k:7} | {round(found[k - 1] * k):23} | {100 * found[k - 1]:13.1f} |")
    lines.append(f"By chance: {100 * found[-1]:.1f} %.")
    return "\n".join(lines)


def picture(
    x: np.ndarray, given: np.ndarray, true: np.ndarray, ranking: np.ndarray, found: np.ndarray, path: Path
) -> None:
    """The first suspects, with the label given and the true one, above the precision over k."""
    from importance_sampling.plotting import Tile, as_image, draw_tiles
    from importance_sampling.plotting.style import STYLES, new_figure, tidy

    tiles = [Tile(as_image(x[row]), caption(given[row], true[row]), given[row] != true[row]) for row in ranking[:SHOWN]]
    figure = new_figure(13, 10.5)
    above, below = figure.subfigures(2, 1, height_ratios=(2.7, 1))
    draw_tiles(above, tiles, COLUMNS)
    above.suptitle(
        f"{sum(tile.marked for tile in tiles)} of the {len(tiles)} most drawn digits have a label that is wrong "
        f"(framed); of all {len(x)} it is {100 * found[-1]:.0f} %\n",
        weight="bold",
    )
    axes = below.subplots()
    k = np.arange(1, min(2 * FIRST[-1], len(found)) + 1)
    axes.plot(k, 100 * found[: len(k)], linewidth=2, color=STYLES[1]["color"])
    marks = [k for k in FIRST if k <= len(found)]
    axes.plot(marks, [100 * found[k - 1] for k in marks], "o", color=STYLES[1]["color"])
    for mark in marks:
        axes.annotate(
            f"{100 * found[mark - 1]:.0f} %", (mark, 100 * found[mark - 1]), (6, 6), textcoords="offset points"
        )
    axes.axhline(100 * found[-1], color="0.3", linestyle="--", linewidth=1.5)
    axes.annotate("by chance", (k[-1], 100 * found[-1]), (0, 5), textcoords="offset points", ha="right")
    axes.set(xlabel="k most drawn digits", ylabel="wrong labels among them (%)", ylim=(0, 105), xlim=(0, k[-1]))
    tidy(axes)
    figure.savefig(path, dpi=110)


def caption(given: int, true: int) -> str:
    """What a label says, and what it should say."""
    return f"“{given}”, is {true}" if given != true else f"“{given}”"


if __name__ == "__main__":
    main()
