"""Do scores say what the exact gradient norm says? Sample by sample, at several stages of training.

    python benchmarks/correlation.py --quick [--data mnist.npz]
    python benchmarks/correlation.py --tasks mnist_mlp mnist_cnn --seed 1 --out DIR

For some training rows the probabilities that a score gives, s / sum(s), are compared with those of the exact gradient
norm, of which nothing is better: by Spearman's rank correlation and by the sum of squared errors, which is given in
shares of what uniform probabilities err by (1: no better than uniform). The scores are

    loss, gnorm: of the network as it is, in inference mode;
    history: the gnorm that a sample last showed when it was trained on, in uniform batches;
    lstm: what `ApproximateImportanceTraining` predicts, of another network that it trains by its own draws. Its rank
        correlation with what it predicts, the loss, stands beside.

Source: Katharopoulos & Fleuret, Not All Samples Are Created Equal, ICML 2018 (arXiv 1803.00942), figure 2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tasks
from figures import summarise
from stages import Stages, built, looked_at, parse, write

from importance_sampling.comparison.picture import STYLES
from importance_sampling.model_wrappers import OracleWrapper
from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import LSTMSampler, UniformSampler
from importance_sampling.samplers.table import ScoreTable
from importance_sampling.training import ApproximateImportanceTraining, SamplerTraining

EXACT = "full_gnorm"
SCORES = ("loss", "gnorm", "history", "lstm")
SHOWN = 1000  # points in a scatter plot
LIMITS = (1e-6, 200.0)  # of its axes; what is less hardly counts


def main() -> None:
    """Train, look, report."""
    options = parse(__doc__, "correlation")
    found, rows = {}, []
    for name in options.tasks:
        found[name] = looks(name, options)
        rows.extend(figures(name, found[name]))
    columns = {f"rho {score}": (f"{score}: rho", ".3f") for score in SCORES}
    columns |= {f"error {score}": (f"{score}: error", ".3g") for score in SCORES}
    write(rows, columns | {"rho lstm, loss": ("lstm and loss: rho", ".3f")}, "network, steps", options.out)
    (options.out / "table.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    picture({name: ones[-1] for name, ones in found.items()}, options.out / "correlation.png", options.seed)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0 on, float64; equal values share the mean of theirs.

    Example:
        >>> ranks(np.array([3.0, 1.0, 3.0]))
        array([1.5, 0. , 1.5])
    """
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[places]


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rho; 0 where one of them is constant."""
    a, b = (ranks(values) - (len(values) - 1) / 2 for values in (one, other))
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale else 0.0


def squared_error(scores: np.ndarray, exact: np.ndarray) -> float:
    """The sum of squared errors of probabilities in proportion to the scores, over that of uniform ones.

    Example:
        >>> squared_error(np.array([1.0, 1.0, 2.0]), np.array([0.0, 1.0, 1.0]))  # (1/16 + 1/16) / (1/9 + 1/36 + 1/36)
        0.75
    """
    p, best = (values / values.sum() for values in (scores, exact))
    return float(np.square(p - best).sum() / np.square(1 / len(best) - best).sum())


class Remembering(UniformSampler):
    """Uniform batches, and a table of the score that every sample last showed."""

    needs_scores = True

    def __init__(self, dataset: Any, seed: int):
        super().__init__(dataset, UNBIASED, seed=seed)
        self.table = ScoreTable(self.size)

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Remember."""
        self.table.put(indices, scores)

    def remembered(self, indices: np.ndarray) -> np.ndarray:
        """Last scores of samples, the mean of the seen for those unseen."""
        by_index = np.empty(self.size)
        by_index[self.table.order] = self.table.filled()
        return by_index[indices]


def looks(name: str, options: Any) -> list[dict]:
    """At every stage of a task: scores and exact norms by sample."""
    task = tasks.get(name)
    data = task.load(options.data)
    indices, x, y = looked_at(data, options.rows, options.seed)
    found = [{"step": step} for step in options.stages]

    def watch(trainer_of: Any, names: Mapping[str, str], told: str, tell: Any) -> None:
        """Train a network; at every stage keep its scores, and what the sampler tells of the rows."""
        model, held = built(task, options.seed), {}
        wrappers = {kept: OracleWrapper(model, UNBIASED, score) for kept, score in names.items()}

        def look(step: int) -> None:
            row = found[options.stages.index(step)]
            row |= {kept: wrapper.score(x, y, batch_size=256).astype("float64") for kept, wrapper in wrappers.items()}
            if held:
                row[told] = tell(held["sampler"])
            print(f"{name}, {step} steps, {told}: mean loss {row[next(iter(names))].mean():.3g}", flush=True)

        trainer_of(model).fit(
            data.x_train,
            data.y_train,
            batch_size=task.batch_size,
            epochs=10**6,
            verbose=0,
            callbacks=[Stages(options.stages, look)],
            on_scores=lambda sampler, scores: held.update(sampler=sampler),
        )

    watch(
        lambda model: SamplerTraining(model, lambda rows, _, seed: Remembering(rows, seed), seed=options.seed),
        {"loss": "loss", "gnorm": "gnorm", EXACT: EXACT},
        "history",
        lambda sampler: sampler.remembered(indices),
    )
    watch(
        lambda model: ApproximateImportanceTraining(model, seed=options.seed),
        {"loss under lstm": "loss", f"{EXACT} under lstm": EXACT},
        "lstm",
        lambda sampler: predicted(sampler, indices),
    )
    return found


def predicted(sampler: LSTMSampler, indices: np.ndarray) -> np.ndarray:
    """Predictions for samples, in slices."""
    return np.concatenate([sampler.predict(part) for part in np.split(indices, range(512, len(indices), 512))])


def figures(name: str, found: Sequence[Mapping]) -> list[dict]:
    """A row for every stage: correlations and errors."""
    rows = []
    for one in found:
        row: dict[str, Any] = {"way": f"{name}, {one['step']}"}
        for score in SCORES:
            exact = one[f"{EXACT} under lstm" if score == "lstm" else EXACT]
            if score in one:
                row[f"rho {score}"] = summarise([rank_correlation(one[score], exact)])
                row[f"error {score}"] = summarise([squared_error(one[score], exact)])
        if "lstm" in one:
            row["rho lstm, loss"] = summarise([rank_correlation(one["lstm"], one["loss under lstm"])])
        rows.append(row)
    return rows


def picture(last: Mapping[str, Mapping], path: Path, seed: int) -> None:
    """A row of scatter plots a network, probability by score over probability by exact norm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(SCORES), 4.2 * len(last)), layout="constrained")
    grid = figure.subplots(len(last), len(SCORES), squeeze=False)
    for line, (name, one) in zip(grid, last.items(), strict=True):
        (row,) = figures(name, [one])
        for number, (axes, score) in enumerate(zip(line, SCORES, strict=True)):
            exact = one[f"{EXACT} under lstm" if score == "lstm" else EXACT]
            x, y = (values / values.mean() for values in (exact, one[score]))
            style = STYLES[number]
            axes.plot(x[:SHOWN], y[:SHOWN], linestyle="", markersize=3, marker=style["marker"], color=style["color"])
            axes.plot(LIMITS, LIMITS, color="0.3", linewidth=1)
            axes.set(xscale="log", yscale="log", xlim=LIMITS, ylim=LIMITS)
            axes.set_title(
                f"{name}, {score}\nrho {row[f'rho {score}']['median']:.3f}, "
                f"error {row[f'error {score}']['median']:.3g} of uniform's",
                fontsize=10,
            )
            axes.set(xlabel="by exact gradient norm", ylabel=f"by {score}")
            axes.grid(True, color="0.9")
            axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"Probabilities, in units of uniform's, after {next(iter(last.values()))['step']} steps (seed {seed})",
        weight="bold",
    )
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
