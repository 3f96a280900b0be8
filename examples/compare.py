"""Train an example both ways for the same number of training seconds, and draw how far each got.

    python examples/compare.py mnist_mlp [--data FILE] [--seconds S] [--seed N] [--out DIR]

Both models start from the same weights and take turns of half a second, so that a machine that slows down slows both.
Each is one ordinary call of `fit`; a callback counts the seconds. Evaluation, waiting and compilation don't count.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import mnist_mlp
import numpy as np

from importance_sampling import ImportanceTraining
from importance_sampling.comparison import Clock, Data, Evaluation, Panel, Point, alike, draw, train

EXAMPLES = {"mnist_mlp": mnist_mlp}
LAST = 5  # measurements in the mean over the end


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
    data = Data(*example.load(options.data)).resident()
    plain, model = alike(lambda: example.build(data.x_train.shape[1]), 2, options.seed)
    trainers = [plain, ImportanceTraining(model, seed=options.seed)]
    clocks = train(trainers, data, Evaluation(data), options.seconds)
    print(table(clocks))
    print(trainers[1].summary())
    options.out.mkdir(parents=True, exist_ok=True)
    picture(clocks, options.out / f"{options.example}.png")


def table(clocks: Sequence[Clock]) -> str:
    """The measurements, every fourth of them."""
    lines = [
        "|  training  |      training loss     |     test error (%)     |",
        "|  seconds   |   uniform | importance |   uniform | importance |",
        "| ---------- | --------- | ---------- | --------- | ---------- |",
    ]

    def line(head: str, uniform: Point, importance: Point) -> str:
        return (
            f"| {head:10} | {uniform.train_loss:9.5f} | {importance.train_loss:10.5f} "
            f"| {uniform.test_error:9.2f} | {importance.test_error:10.2f} |"
        )

    for points in list(zip(*(clock.points for clock in clocks), strict=False))[::4]:
        lines.append(line(f"{points[0].seconds:10.1f}", *points))
    lines.append(line(f"mean of {LAST}", *map(latest, clocks)))
    lines.append(f"Steps taken: uniform {clocks[0].steps}, importance {clocks[1].steps}.")
    return "\n".join(lines)


def latest(clock: Clock) -> Point:
    """The mean of the last measurements: a constant learning rate leaves single moments noisy."""
    return Point(*np.mean(clock.points[-LAST:], axis=0).tolist())


def picture(clocks: Sequence[Clock], path: Path) -> None:
    """Both ways over the seconds: training loss on the left, test error on the right."""
    ends, means = [clock.points[-1] for clock in clocks], [latest(clock) for clock in clocks]

    def heading(what: str, field: str, spec: str) -> str:
        (end, end_importance), (mean, mean_importance) = (
            [format(getattr(point, field), spec) for point in points] for points in (ends, means)
        )
        return (
            f"{what} at the end: {end} uniform, {end_importance} importance\n"
            f"mean of the last {LAST} points: {mean} uniform, {mean_importance} importance"
        )

    draw(
        {
            "uniform: model.fit": [clocks[0].points],
            "importance: ImportanceTraining(model).fit": [clocks[1].points],
        },
        [
            Panel(
                "train_loss",
                "training loss (cross-entropy, log scale)",
                log=True,
                title=heading("training loss", "train_loss", ".2g"),
            ),
            Panel("test_error", "test error (%)", title=heading("test error (%)", "test_error", ".2f")),
        ],
        path,
        title=f"{path.stem}: {max(end.seconds for end in ends):.0f} training seconds each way",
    )


if __name__ == "__main__":
    main()
