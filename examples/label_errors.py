"""Find wrong labels by what importance sampling keeps coming back to.

Of the training labels 2 % are changed to another digit, a perceptron is trained on all of them, and a recorder notes
what was drawn. A sample that stays hard is drawn again and again: the ranking begins with the wrong labels. It prints
how many of the first k are wrong, and draws the first ones. With `--uniform` nothing is drawn by importance, and the
ranking is by the loss at the end.

    python examples/label_errors.py --data mnist.npz --out DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import mnist_mlp
import numpy as np
from common import Example, fit
from loading import digits

from importance_sampling.callbacks import SamplingRecorder

SHARE = 0.02  # of the labels that are changed
PARTS = (1 / 12, 1 / 4, 1 / 2, 1)  # of as many samples as have a wrong label: how many come first
SHOWN, COLUMNS = 60, 12
STYLE_NUMBERS = {"times drawn": 1, "last score": 0, "final loss": 2}  # the solid line for what was drawn


def main() -> None:
    """Train on labels of which some are wrong, rank the samples, print the table, draw the picture."""
    options = EXAMPLE.options()
    data = EXAMPLE.data(options)
    true = data.y_train.argmax(1)
    given = with_errors(true, options.seed)
    model, recorder = EXAMPLE.build(data), None if options.uniform else SamplingRecorder()
    labelled = data._replace(y_train=keras.utils.to_categorical(given, data.output_size))
    fit(EXAMPLE, model, labelled, options, [recorder] if recorder else [])

    wrong, orders = given != true, rankings(recorder, model, data.x_train, given)
    found = {name: precision(wrong, order) for name, order in orders.items()}
    print(table(found, int(wrong.sum())))
    options.out.mkdir(parents=True, exist_ok=True)
    name, order = next(iter(orders.items()))
    picture(data.x_train, given, true, name, order, found, options.out / "label_errors.png")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where the picture goes; and there is a seed always, since labels are changed by it."""
    parser.add_argument("--out", type=Path, default=Path("."), metavar="DIR", help="of the picture; default: here")
    parser.set_defaults(seed=1)


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


def rankings(
    recorder: SamplingRecorder | None, model: keras.Model, x: np.ndarray, given: np.ndarray
) -> dict[str, np.ndarray]:
    """All rows, the most suspicious first: by what was drawn, if it was recorded, and by the loss of the model."""
    probabilities = model.predict(x, batch_size=1000, verbose=0)[np.arange(len(x)), given]
    orders = {"final loss": np.argsort(probabilities, kind="stable")}
    if recorder is None:
        return orders
    by_score = np.argsort(-np.nan_to_num(recorder.last_score), kind="stable")
    return {"times drawn": most_drawn(recorder), "last score": by_score, **orders}


def precision(wrong: np.ndarray, ranking: np.ndarray) -> np.ndarray:
    """Which share of the first k are wrong, for every k, float `(rows,)`."""
    return np.cumsum(wrong[ranking]) / np.arange(1, len(ranking) + 1)


def table(found: dict[str, np.ndarray], wrong: int) -> str:
    """The share of wrong labels among the first k, for every ranking.

    Args:
        found: from the name of a ranking to what `precision` makes of it.
        wrong: how many labels are wrong, which is the largest k.
    """
    lines = [
        "| wrong labels (%) among the first k by | " + " | ".join(f"{name:11}" for name in found) + " |",
        "| ------------------------------------- | " + " | ".join("-" * 11 for _ in found) + " |",
    ]
    for k in (round(part * wrong) for part in PARTS if round(part * wrong)):
        lines.append(f"| {k:37} | " + " | ".join(f"{100 * shares[k - 1]:11.1f}" for shares in found.values()) + " |")
    lines.append(f"By chance: {100 * next(iter(found.values()))[-1]:.1f} %.")
    return "\n".join(lines)


def picture(
    x: np.ndarray,
    given: np.ndarray,
    true: np.ndarray,
    by: str,
    ranking: np.ndarray,
    found: dict[str, np.ndarray],
    path: Path,
) -> None:
    """The first suspects of a ranking with the label given and the true one, above the precision of all rankings."""
    from importance_sampling.plotting import Tile, as_image, draw_tiles
    from importance_sampling.plotting.style import curve, new_figure, tidy

    wrong = given != true
    tiles = [Tile(as_image(x[row]), caption(given[row], true[row]), bool(wrong[row])) for row in ranking[:SHOWN]]
    figure = new_figure(13, 11)
    above, below = figure.subfigures(2, 1, height_ratios=(2.6, 1))
    draw_tiles(above, tiles, COLUMNS)
    above.suptitle(
        f"The first {len(tiles)} digits by {by}: {sum(tile.marked for tile in tiles)} of them have a wrong label "
        f"(framed), of all {len(x)} digits {100 * wrong.mean():.0f} %\n"
        "Under each digit the label trained on, and what it is if that is another",
        weight="bold",
    )
    axes = below.subplots()
    k = np.linspace(0, 2 * wrong.sum(), 49).astype("int64")[1:]
    for name, shares in found.items():
        at_k = 100 * shares[np.maximum(k, 1) - 1]
        curve(axes, STYLE_NUMBERS[name], f"by {name}", k, at_k, at_k, at_k)
    axes.axhline(100 * wrong.mean(), color="0.3", linestyle=":", linewidth=1.5)
    axes.annotate("by chance", (k[-1], 100 * wrong.mean()), (0, 4), textcoords="offset points", ha="right")
    axes.set(xlabel="k, the digits that come first", ylabel="wrong labels among them (%)", ylim=(0, 104))
    axes.set_xlim(0, k[-1])
    axes.legend(frameon=False, loc="lower left")
    tidy(axes)
    figure.savefig(path, dpi=110)


def caption(given: int, true: int) -> str:
    """What a label says, and what it should say."""
    return f"“{given}”, is {true}" if given != true else f"“{given}”"


EXAMPLE = Example(
    "label_errors",
    __doc__,
    digits,
    mnist_mlp.build,
    mnist_mlp.trainer,
    epochs=6,
    quick=(6000, 6),
    add_options=add_options,
)

if __name__ == "__main__":
    main()
