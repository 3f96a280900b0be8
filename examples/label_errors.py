"""Find wrong labels by the number of times that importance sampling draws a sample.

2 % of the training labels of MNIST are changed to a random other digit. A perceptron is trained on all samples, and a
`SamplingRecorder` counts the draws. Samples with wrong labels keep a high loss and are drawn most often. The script
prints the fraction of wrong labels among the first k samples of the ranking, and plots the first samples. With
`--uniform` there are no draws, and the ranking is by the final loss.

    python examples/label_errors.py --data mnist.npz --out DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from common import add_options
from loading import digits
from mnist_mlp import build
from quiet import keras

from importance_sampling import ImportanceTraining
from importance_sampling.callbacks import SamplingRecorder
from importance_sampling.cli import positive

QUICK_ROWS = 6000
WRONG_FRACTION = 0.02  # of the labels
K_FRACTIONS = (1 / 12, 1 / 4, 1 / 2, 1)  # the values of k in the table, relative to the number of wrong labels
NUM_TILES, COLUMNS = 60, 12
STYLE_INDICES = {"times drawn": 1, "last score": 0, "final loss": 2}  # a solid line for the number of draws


def main() -> None:
    """Train with wrong labels, rank the samples, print the table and write the plot."""
    options = parse()
    keras.utils.set_random_seed(options.seed)
    data = digits(options)
    data = data.first(QUICK_ROWS) if options.quick else data
    true = data.y_train.argmax(1)
    labels = with_errors(true, options.seed)
    model, recorder = build(data), None if options.uniform else SamplingRecorder()
    trainer = model if options.uniform else ImportanceTraining(model, seed=options.seed)
    trainer.fit(
        data.x_train,
        keras.utils.to_categorical(labels, data.output_size),
        batch_size=128,
        epochs=options.epochs,
        validation_data=(data.x_test, data.y_test),
        callbacks=[recorder] if recorder else [],
    )
    if recorder:
        print(trainer.summary())

    wrong, orders = labels != true, rankings(recorder, model, data.x_train, labels)
    precisions = {name: precision(wrong, order) for name, order in orders.items()}
    print(table(precisions, int(wrong.sum())))
    options.out.mkdir(parents=True, exist_ok=True)
    name, order = next(iter(orders.items()))
    plot(data.x_train, labels, true, name, order, precisions, options.out / "label_errors.png")


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n    python")[0])
    parser.add_argument("--uniform", action="store_true", help="train with model.fit")
    parser.add_argument("--epochs", type=positive(int), default=6, metavar="N", help="default: 6")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of labels and model; default: 1")
    parser.add_argument("--quick", action="store_true", help=f"use the first {QUICK_ROWS} samples")
    add_options(parser)
    return parser.parse_args()


def with_errors(labels: np.ndarray, seed: int) -> np.ndarray:
    """Change a fraction `WRONG_FRACTION` of the labels to a random other digit."""
    rng = np.random.default_rng(seed)
    wrong = rng.choice(len(labels), round(WRONG_FRACTION * len(labels)), replace=False)
    changed = labels.copy()
    changed[wrong] = (labels[wrong] + rng.integers(1, 10, len(wrong))) % 10
    return changed


def most_drawn(recorder: SamplingRecorder) -> np.ndarray:
    """Return all row indices, by decreasing number of draws, then by decreasing last score."""
    return np.lexsort((-np.nan_to_num(recorder.last_score), -recorder.draws))


def rankings(
    recorder: SamplingRecorder | None, model: keras.Model, x: np.ndarray, labels: np.ndarray
) -> dict[str, np.ndarray]:
    """Return rankings of all row indices: by draws and last score if there is a recorder, and by the final loss."""
    probabilities = model.predict(x, batch_size=1000, verbose=0)[np.arange(len(x)), labels]
    orders = {"final loss": np.argsort(probabilities, kind="stable")}
    if recorder is None:
        return orders
    by_score = np.argsort(-np.nan_to_num(recorder.last_score), kind="stable")
    return {"times drawn": most_drawn(recorder), "last score": by_score, **orders}


def precision(wrong: np.ndarray, ranking: np.ndarray) -> np.ndarray:
    """Return the fraction of wrong labels among the first k samples of a ranking for every k, float `(rows,)`."""
    return np.cumsum(wrong[ranking]) / np.arange(1, len(ranking) + 1)


def table(precisions: dict[str, np.ndarray], num_wrong: int) -> str:
    """Return a Markdown table of the percentage of wrong labels among the first k samples of every ranking.

    Args:
        precisions: mapping from the name of a ranking to its `precision`.
        num_wrong: the number of wrong labels, which is the largest k.
    """
    lines = [
        "| wrong labels (%) among the first k by | " + " | ".join(f"{name:11}" for name in precisions) + " |",
        "| ------------------------------------- | " + " | ".join("-" * 11 for _ in precisions) + " |",
    ]
    for k in (round(fraction * num_wrong) for fraction in K_FRACTIONS if round(fraction * num_wrong)):
        cells = " | ".join(f"{100 * fractions[k - 1]:11.1f}" for fractions in precisions.values())
        lines.append(f"| {k:37} | {cells} |")
    lines.append(f"Random ranking: {100 * next(iter(precisions.values()))[-1]:.1f} %.")
    return "\n".join(lines)


def plot(
    x: np.ndarray,
    labels: np.ndarray,
    true: np.ndarray,
    name: str,
    ranking: np.ndarray,
    precisions: dict[str, np.ndarray],
    path: Path,
) -> None:
    """Plot the first samples of a ranking with their labels, and the precision of all rankings."""
    from importance_sampling.plotting import Tile, as_image, draw_tiles
    from importance_sampling.plotting.style import curve, new_figure, tidy

    wrong = labels != true
    tiles = [Tile(as_image(x[row]), caption(labels[row], true[row]), bool(wrong[row])) for row in ranking[:NUM_TILES]]
    figure = new_figure(13, 11)
    above, below = figure.subfigures(2, 1, height_ratios=(2.6, 1))
    draw_tiles(above, tiles, COLUMNS)
    above.suptitle(
        f"The first {len(tiles)} digits by {name}: {sum(tile.marked for tile in tiles)} have a wrong label (framed), "
        f"compared with {100 * wrong.mean():.0f} % of all {len(x)} digits\n"
        "Captions: the training label, and the correct label if it differs",
        weight="bold",
    )
    axes = below.subplots()
    k = np.linspace(0, 2 * wrong.sum(), 49).astype("int64")[1:]
    for ranking_name, fractions in precisions.items():
        at_k = 100 * fractions[np.maximum(k, 1) - 1]
        curve(axes, STYLE_INDICES[ranking_name], f"by {ranking_name}", k, at_k, at_k, at_k)
    axes.axhline(100 * wrong.mean(), color="0.3", linestyle=":", linewidth=1.5)
    axes.annotate("random ranking", (k[-1], 100 * wrong.mean()), (0, 4), textcoords="offset points", ha="right")
    axes.set(xlabel="k", ylabel="wrong labels among the first k digits (%)", ylim=(0, 104))
    axes.set_xlim(0, k[-1])
    axes.legend(frameon=False, loc="lower left")
    tidy(axes)
    figure.savefig(path, dpi=110)


def caption(label: int, true: int) -> str:
    """Return the training label, and the correct label if it differs."""
    return f"“{label}”, is {true}" if label != true else f"“{label}”"


if __name__ == "__main__":
    main()
