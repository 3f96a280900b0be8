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
from loading import digits

from importance_sampling import ImportanceTraining
from importance_sampling.callbacks import SamplingRecorder

SHARE = 0.02  # of the labels that are changed
FIRST = (100, 300, 600, 1200)
SHOWN, COLUMNS = 60, 12
QUICK_ROWS = 6000
STYLE_NUMBERS = (1, 0, 2)  # the solid line for what was drawn


def main() -> None:
    """Train on labels of which some are wrong, rank the samples, print the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FILE", help="an npz file in the layout of Keras's mnist.npz")
    parser.add_argument("--epochs", type=int, default=6, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the changed labels, too")
    parser.add_argument("--quick", action="store_true", help=f"the first {QUICK_ROWS} digits only")
    parser.add_argument("--out", type=Path, default=Path("."), metavar="DIR", help="where the picture goes")
    options = parser.parse_args()

    data = digits(options)
    data = data.first(QUICK_ROWS) if options.quick else data
    x, true = data.x_train, data.y_train.argmax(1)
    given = with_errors(true, options.seed)

    keras.utils.set_random_seed(options.seed)
    recorder = SamplingRecorder()
    model = mnist_mlp.build(data)
    trainer = ImportanceTraining(model, seed=options.seed)
    labels = keras.utils.to_categorical(given, 10)
    trainer.fit(x, labels, batch_size=128, epochs=options.epochs, verbose=2, callbacks=[recorder])
    print(trainer.summary())

    found = {name: precision(given != true, order) for name, order in rankings(recorder, model, x, given).items()}
    print(table(found))
    options.out.mkdir(parents=True, exist_ok=True)
    picture(x, given, true, most_drawn(recorder), found, options.out / "label_errors.png")


def with_errors(labels: np.ndarray, seed: int) -> np.ndarray:
    """The labels, of which `SHARE` were changed to another digit by chance."""
    rng = np.random.default_rng(seed)
    wrong = rng.choice(len(labels), round(SHARE * len(labels)), replace=False)
    changed = labels.copy()
    changed[wrong] = (labels[wrong] + rng.integers(1, 10, len(wrong))) % 10
    return changed


def most_drawn(recorder: SamplingRecorder) -> np.ndarray:
    """All rows, those drawn most often first; of equals, the one with the higher last score."""
    return np.lexsort((-np.nan_to_num(recorder.last_score), -recorder.draws))


def rankings(recorder: SamplingRecorder, model: keras.Model, x: np.ndarray, given: np.ndarray) -> dict[str, np.ndarray]:
    """All rows, the most suspicious first, by what was drawn and by what the trained model makes of them."""
    probabilities = model.predict(x, batch_size=1000, verbose=0)[np.arange(len(x)), given]
    return {
        "times drawn": most_drawn(recorder),
        "last score": np.argsort(-np.nan_to_num(recorder.last_score), kind="stable"),
        "final loss": np.argsort(probabilities, kind="stable"),
    }


def precision(wrong: np.ndarray, ranking: np.ndarray) -> np.ndarray:
    """Which share of the first k are wrong, for every k, float `(rows,)`."""
    return np.cumsum(wrong[ranking]) / np.arange(1, len(ranking) + 1)


def table(found: dict[str, np.ndarray]) -> str:
    """The share of wrong labels among the first k, for every ranking."""
    lines = [
        "| wrong labels (%) among the first k by | " + " | ".join(f"{name:11}" for name in found) + " |",
        "| ------------------------------------- | " + " | ".join("-" * 11 for _ in found) + " |",
    ]
    for k in (k for k in FIRST if k <= min(map(len, found.values()))):
        lines.append(f"| {k:37} | " + " | ".join(f"{100 * shares[k - 1]:11.1f}" for shares in found.values()) + " |")
    lines.append(f"By chance: {100 * next(iter(found.values()))[-1]:.1f} %.")
    return "\n".join(lines)


def picture(
    x: np.ndarray, given: np.ndarray, true: np.ndarray, ranking: np.ndarray, found: dict[str, np.ndarray], path: Path
) -> None:
    """The first suspects with the label given and the true one, above the precision of all rankings."""
    from importance_sampling.plotting import Tile, as_image, draw_tiles
    from importance_sampling.plotting.style import curve, new_figure, tidy

    tiles = [Tile(as_image(x[row]), caption(given[row], true[row]), given[row] != true[row]) for row in ranking[:SHOWN]]
    figure = new_figure(13, 11)
    above, below = figure.subfigures(2, 1, height_ratios=(2.6, 1))
    draw_tiles(above, tiles, COLUMNS)
    above.suptitle(
        f"{sum(tile.marked for tile in tiles)} of the {len(tiles)} most drawn digits have a wrong label (framed); "
        f"of all {len(x)} digits {100 * SHARE:.0f} % have\nunder each digit: the label trained on, and what it is",
        weight="bold",
    )
    axes = below.subplots()
    k = np.linspace(0, min(2 * FIRST[-1], len(x)), 49).astype("int64")[1:]
    for number, (name, shares) in enumerate(found.items()):
        at_k = 100 * shares[k - 1]
        curve(axes, STYLE_NUMBERS[number], f"by {name}", k, at_k, at_k, at_k)
    axes.axhline(100 * SHARE, color="0.3", linestyle=":", linewidth=1.5)
    axes.annotate("by chance", (k[-1], 100 * SHARE), (0, 4), textcoords="offset points", ha="right")
    axes.set(xlabel="k, the digits that come first", ylabel="wrong labels among them (%)", ylim=(0, 104))
    axes.set_xlim(0, k[-1])
    axes.legend(frameon=False, loc="lower left")
    tidy(axes)
    figure.savefig(path, dpi=110)


def caption(given: int, true: int) -> str:
    """What a label says, and what it should say."""
    return f"“{given}”, is {true}" if given != true else f"“{given}”"


if __name__ == "__main__":
    main()
