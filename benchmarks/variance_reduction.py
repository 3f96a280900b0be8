"""How much less noise has the gradient, if samples are drawn by a score? At several stages of training, by formula.

    python benchmarks/variance_reduction.py --quick [--data mnist.npz]
    python benchmarks/variance_reduction.py --tasks mnist_mlp mnist_cnn --seed 1 --out DIR

A pool of B = 1024 training rows is given. A batch of b drawn from it with probabilities P, each sample weighted by
1 / (B P_i), has a mean gradient whose variance is (sum(|g_i|^2 / P_i) / B^2 - |mean(g)|^2) / b, g_i the gradients of
the samples. It is divided by that of uniform draws, P = 1 / B, so that b falls out; a number below 1 is a gain. P is
proportional to the loss, to the gradient norm at the last pre-activations (gnorm) and to the exact gradient norm, than
which nothing is better; as published (alpha 0) and with the library's uniform share of a tenth (alpha 0.1).

Where pools are fresh every time, as in training, their own noise comes on top: with pools of `presample` batches the
ratio is 1 / presample more.

Source: Katharopoulos & Fleuret, Not All Samples Are Created Equal, ICML 2018 (arXiv 1803.00942), figure 1.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tasks
from stages import Stages, built, looked_at, parse, write

from importance_sampling.comparison.figures import summarise
from importance_sampling.model_wrappers import OracleWrapper, SVRGWrapper
from importance_sampling.plotting.style import STYLES, logarithmic
from importance_sampling.probabilities import probabilities
from importance_sampling.reweighting import UNBIASED

POOL = 1024
SCORES = ("loss", "gnorm", "full_gnorm")
NAMES = {"loss": "loss", "gnorm": "gnorm", "full_gnorm": "exact norm"}
ALPHAS = (0.0, 0.1)


def main() -> None:
    """Train, look, report."""
    options = parse(__doc__, "variance_reduction")
    found = {name: reductions(name, options) for name in options.tasks}
    columns = {
        f"{score}, {alpha:g}": (f"{NAMES[score]}, alpha {alpha:g}", ".3f") for alpha in ALPHAS for score in SCORES
    }
    columns = {"loss now": ("training loss", ".3g")} | columns
    rows = [dict(row, way=f"{name}, {row['step']}") for name, ones in found.items() for row in ones]
    write(rows, columns, "network, steps", options.out)
    (options.out / "table.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    picture(found, options.out / "variance_reduction.png", options.seed)


def relative_variance(norms: np.ndarray, mean_square: float, p: np.ndarray) -> float:
    """The variance of the weighted gradient by draws with probabilities p, over that by uniform ones.

    Samples with a probability of zero are never drawn: they add nothing to the variance, and a bias that isn't counted.

    Args:
        norms: float `(n,)`, of the gradients of all samples.
        mean_square: float, the squared norm of their mean.
        p: float `(n,)`, summing to 1.

    Example:
        >>> relative_variance(np.array([3.0, 1.0]), 4.0, np.array([0.75, 0.25]))  # (16 / 4 - 4) / (10 / 2 - 4)
        0.0
    """
    squares, drawn = np.square(norms, dtype="float64"), p > 0
    of_p = (squares[drawn] / p[drawn]).sum() / len(norms) ** 2
    return float((of_p - mean_square) / (squares.mean() - mean_square))


def reductions(name: str, options: Any) -> list[dict]:
    """A row of figures for every stage of a task: over the pools, medians with quartiles."""
    task = tasks.get(name)
    data = task.load(options.data)
    model = built(task, options.seed)
    _, x, y = looked_at(data, options.rows, options.seed)
    wrappers = {score: OracleWrapper(model, UNBIASED, score) for score in SCORES}
    gradients = SVRGWrapper(model)
    pools = [slice(start, start + POOL) for start in range(0, len(x) - POOL + 1, POOL)]
    rows = []

    def look(step: int) -> None:
        scores = {score: wrapper.score(x, y, batch_size=256) for score, wrapper in wrappers.items()}
        values: dict[str, list[float]] = {f"{score}, {alpha:g}": [] for score in SCORES for alpha in ALPHAS}
        for pool in pools:
            gradients.update_grad([(x[pool], y[pool])])
            mean_square = sum(float(keras.ops.sum(keras.ops.square(mean))) for mean in gradients.mean)
            for score in SCORES:
                for alpha in ALPHAS:
                    p = probabilities(scores[score][pool].astype("float64"), alpha)
                    values[f"{score}, {alpha:g}"].append(relative_variance(scores["full_gnorm"][pool], mean_square, p))
        row = {"step": step, "loss now": summarise([float(scores["loss"].mean())])}
        rows.append(row | {column: summarise(ones) for column, ones in values.items()})
        print(f"{name}, {step} steps: " + ", ".join(f"{c} {np.median(v):.3f}" for c, v in values.items()), flush=True)

    stages = Stages(options.stages, look)
    model.fit(data.x_train, data.y_train, batch_size=task.batch_size, epochs=10**6, verbose=0, callbacks=[stages])
    return rows


def picture(found: dict[str, Sequence[dict]], path: Path, seed: int) -> None:
    """A panel a network: the ratio over the stages, with quartiles over pools."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(found), 5), layout="constrained")
    for axes, (name, rows) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        places = range(len(rows))
        axes.axhline(1.0, color="0.4", linewidth=1.5, label="uniform")
        for number, (score, alpha) in enumerate((score, alpha) for alpha in ALPHAS for score in SCORES):
            style = dict(STYLES[number % len(SCORES)], linestyle="-" if alpha == 0 else ":")
            ones = [row[f"{score}, {alpha:g}"] for row in rows]
            axes.plot(places, [one["median"] for one in ones], label=f"{NAMES[score]}, alpha {alpha:g}", **style)
            low, high = zip(*(one["quartiles"] for one in ones), strict=True)
            axes.fill_between(places, low, high, color=style["color"], alpha=0.15, linewidth=0)
        axes.set_xticks(places, [f"{row['step']}\n{row['loss now']['median']:.2g}" for row in rows])
        axes.set(title=name, xlabel="training steps, and mean loss then")
        axes.set_ylabel("variance of the gradient / uniform's (log scale)")
        logarithmic(axes)
        axes.grid(True, color="0.88")
        axes.spines[["top", "right"]].set_visible(False)
    lines, names = axes.get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=min(len(names), 4), frameon=False)
    figure.suptitle(f"Batches drawn from pools of {POOL}, by formula (seed {seed})", weight="bold")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
