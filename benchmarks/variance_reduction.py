"""Compute the variance of the gradient for samples drawn by a score, at several stages of training.

    python benchmarks/variance_reduction.py --quick [--data mnist.npz]
    python benchmarks/variance_reduction.py --tasks mnist_mlp mnist_cnn --seed 1 --out DIR

The pool contains B = 1024 training samples with the gradients g_i. A batch of b samples is drawn from the pool with the
probabilities P, and the samples have the weights 1 / (B P_i). The variance of the mean gradient is
(sum(|g_i|^2 / P_i) / B^2 - |mean(g)|^2) / b. The benchmark reports the ratio to the variance with uniform probabilities
P = 1 / B, which doesn't depend on b; values below 1 are a gain. P is proportional to the loss, to the gradient norm at
the logits (gnorm), or to the exact gradient norm, which is optimal; alpha is the uniform part of P (0 as published, 0.1
as in the library).

In training every batch has a new pool, which adds variance: with pools of `presample` batches the ratio is
1 / presample higher.

Source: Katharopoulos & Fleuret, Not All Samples Are Created Equal, ICML 2018 (arXiv 1803.00942), figure 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tasks
from analysis import summarise
from stages import build_model, fit_through_stages, parse, sample_rows, write

from importance_sampling.model_wrappers import OracleWrapper, SVRGWrapper
from importance_sampling.plotting.style import STYLES, logarithmic
from importance_sampling.reweighting import UNBIASED
from importance_sampling.utils.numerics import probabilities

POOL = 1024
SCORES = ("loss", "gnorm", "full_gnorm")
NAMES = {"loss": "loss", "gnorm": "gnorm", "full_gnorm": "exact norm"}
ALPHAS = (0.0, 0.1)


def main() -> None:
    """Run the benchmark."""
    options = parse(__doc__, "variance_reduction")
    results = {name: reductions(name, options) for name in options.tasks}
    columns = {
        f"{score}, {alpha:g}": (f"{NAMES[score]}, alpha {alpha:g}", ".3f") for alpha in ALPHAS for score in SCORES
    }
    columns = {"loss now": ("training loss", ".3g")} | columns
    rows = [dict(row, way=f"{name}, {row['step']}") for name, stages in results.items() for row in stages]
    write(rows, columns, "network, steps", options.out, results)
    plot(results, options.out / "variance_reduction.png", options.seed)


def relative_variance(norms: np.ndarray, mean_square: float, p: np.ndarray) -> float:
    """Return the variance of the weighted gradient with probabilities p, divided by that with uniform probabilities.

    Samples with probability 0 don't contribute to the variance. The bias that they cause isn't part of the result.

    Args:
        norms: float `(n,)`, the norms of the gradients of all samples.
        mean_square: float, the squared norm of the mean gradient.
        p: float `(n,)`, the probabilities, with sum 1.

    Example:
        >>> relative_variance(np.array([3.0, 1.0]), 4.0, np.array([0.75, 0.25]))  # (16 / 4 - 4) / (10 / 2 - 4)
        0.0
    """
    squares, positive = np.square(norms, dtype="float64"), p > 0
    second_moment = (squares[positive] / p[positive]).sum() / len(norms) ** 2
    return float((second_moment - mean_square) / (squares.mean() - mean_square))


def reductions(name: str, options: Any) -> list[dict]:
    """Return one dict per stage of a task: medians and quartiles over the pools, by the name of the column."""
    task = tasks.get(name)
    data = task.load(options.data)
    model = build_model(task, options.data, options.seed)
    _, x, y = sample_rows(data, options.rows, options.seed)
    wrappers = {score: OracleWrapper(model, UNBIASED, score) for score in SCORES}
    gradients = SVRGWrapper(model)
    pools = [slice(start, start + POOL) for start in range(0, len(x) - POOL + 1, POOL)]
    rows = []

    def measure(step: int) -> None:
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
        rows.append(row | {key: summarise(ratios) for key, ratios in values.items()})
        print(f"{name}, {step} steps: " + ", ".join(f"{c} {np.median(v):.3f}" for c, v in values.items()), flush=True)

    fit_through_stages(model, data, task.batch_size, options.stages, measure)
    return rows


def plot(results: dict[str, Sequence[dict]], path: Path, seed: int) -> None:
    """Plot the ratios over the stages, one panel per task, with quartiles over the pools as bands."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(results), 5), layout="constrained")
    for axes, (name, rows) in zip(figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True):
        positions = range(len(rows))
        axes.axhline(1.0, color="0.4", linewidth=1.5, label="uniform")
        for index, (score, alpha) in enumerate((score, alpha) for alpha in ALPHAS for score in SCORES):
            style = dict(STYLES[index % len(SCORES)], linestyle="-" if alpha == 0 else ":")
            ratios = [row[f"{score}, {alpha:g}"] for row in rows]
            medians = [ratio["median"] for ratio in ratios]
            axes.plot(positions, medians, label=f"{NAMES[score]}, alpha {alpha:g}", **style)
            low, high = zip(*(ratio["quartiles"] for ratio in ratios), strict=True)
            axes.fill_between(positions, low, high, color=style["color"], alpha=0.15, linewidth=0)
        axes.set_xticks(positions, [f"{row['step']}\n{row['loss now']['median']:.2g}" for row in rows])
        axes.set(title=name, xlabel="training steps, and mean loss at that step")
        axes.set_ylabel("gradient variance / that of uniform draws (log scale)")
        logarithmic(axes)
        axes.grid(True, color="0.88")
        axes.spines[["top", "right"]].set_visible(False)
    lines, names = axes.get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=min(len(names), 4), frameon=False)
    figure.suptitle(f"Batches drawn from pools of {POOL} samples (seed {seed})", weight="bold")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
