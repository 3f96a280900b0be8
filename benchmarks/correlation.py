"""Compare scores with the exact gradient norm, sample by sample, at several stages of training.

    python benchmarks/correlation.py --quick [--data mnist.npz]
    python benchmarks/correlation.py --tasks mnist_mlp mnist_cnn --seed 1 --out DIR

For random training samples, the probabilities s / sum(s) of a score s are compared with those of the exact gradient
norm, which are optimal. The measures are Spearman's rank correlation and the sum of squared errors, divided by that of
uniform probabilities (1: no better than uniform). The scores are

    loss, gnorm: of the current network, in inference mode;
    history: the gnorm of the last training step that contained the sample, with uniform batches;
    lstm: the prediction of `ApproximateImportanceTraining`, on a network that this trainer trains. The table also gives
        its rank correlation with the loss, which it predicts.

Source: Katharopoulos & Fleuret, Not All Samples Are Created Equal, ICML 2018 (arXiv 1803.00942), figure 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tasks
from analysis import summarise
from stages import build_model, fit_through_stages, parse, sample_rows, write

from importance_sampling.model_wrappers import OracleWrapper
from importance_sampling.plotting.style import STYLES
from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import LSTMSampler, UniformSampler
from importance_sampling.samplers.table import ScoreTable
from importance_sampling.training import ApproximateImportanceTraining, SamplerTraining

EXACT = "full_gnorm"
SCORES = ("loss", "gnorm", "history", "lstm")
NUM_POINTS = 1000  # in a scatter plot
LIMITS = (1e-6, 200.0)  # of its axes; smaller probabilities are negligible


def main() -> None:
    """Run the benchmark."""
    options = parse(__doc__, "correlation")
    scores, rows = {}, []
    for name in options.tasks:
        scores[name] = measure_scores(name, options)
        rows.extend(correlations(name, scores[name]))
    columns = {f"rho {score}": (f"{score}: rho", ".3f") for score in SCORES}
    columns |= {f"error {score}": (f"{score}: error", ".3g") for score in SCORES}
    write(rows, columns | {"rho lstm, loss": ("lstm and loss: rho", ".3f")}, "network, steps", options.out, rows)
    plot({name: stages[-1] for name, stages in scores.items()}, options.out / "correlation.png", options.seed)


def ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 0, float64. Equal values have the mean of their ranks.

    Example:
        >>> ranks(np.array([3.0, 1.0, 3.0]))
        array([1.5, 0. , 1.5])
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse]


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation; 0 if one of the arrays is constant."""
    a, b = (ranks(values) - (len(values) - 1) / 2 for values in (first, second))
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale else 0.0


def squared_error(scores: np.ndarray, exact: np.ndarray) -> float:
    """Return the sum of squared errors of the probabilities of the scores, divided by that of uniform probabilities.

    Example:
        >>> squared_error(np.array([1.0, 1.0, 2.0]), np.array([0.0, 1.0, 1.0]))  # (1/16 + 1/16) / (1/9 + 1/36 + 1/36)
        0.75
    """
    p, optimal = (values / values.sum() for values in (scores, exact))
    return float(np.square(p - optimal).sum() / np.square(1 / len(optimal) - optimal).sum())


class LastScoreSampler(UniformSampler):
    """A uniform sampler that stores the last score of every sample."""

    needs_scores = True

    def __init__(self, dataset: Any, seed: int):
        super().__init__(dataset, UNBIASED, seed=seed)
        self.table = ScoreTable(self.size)

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Store the scores of a batch."""
        self.table.record(indices, scores)

    def last_scores(self, indices: np.ndarray) -> np.ndarray:
        """Return the last scores of samples; samples without a score have the mean of the other scores."""
        by_index = np.empty(self.size)
        by_index[self.table.order] = self.table.imputed_scores()
        return by_index[indices]


def measure_scores(name: str, options: Any) -> list[dict]:
    """Return the scores and exact norms of the samples, one dict per stage of a task."""
    task = tasks.get(name)
    data = task.load(options.data)
    indices, x, y = sample_rows(data, options.rows, options.seed)
    stages = [{"step": step} for step in options.stages]

    def train(make_trainer: Any, score_names: Mapping[str, str], sampler_name: str, sampler_scores: Any) -> None:
        """Train a network, and add its scores and those of the sampler to every stage."""
        model, samplers = build_model(task, options.data, options.seed), []
        wrappers = {key: OracleWrapper(model, UNBIASED, score) for key, score in score_names.items()}

        def measure(step: int) -> None:
            stage = stages[options.stages.index(step)]
            stage |= {key: wrapper.score(x, y, batch_size=256).astype("float64") for key, wrapper in wrappers.items()}
            if samplers:
                stage[sampler_name] = sampler_scores(samplers[-1])
            loss = stage[next(iter(score_names))].mean()
            print(f"{name}, {step} steps, {sampler_name}: mean loss {loss:.3g}", flush=True)

        trainer, seen = make_trainer(model), lambda sampler, scores: samplers.append(sampler)
        fit_through_stages(trainer, data, task.batch_size, options.stages, measure, on_scores=seen)

    train(
        lambda model: SamplerTraining(model, lambda rows, _, seed: LastScoreSampler(rows, seed), seed=options.seed),
        {"loss": "loss", "gnorm": "gnorm", EXACT: EXACT},
        "history",
        lambda sampler: sampler.last_scores(indices),
    )
    train(
        lambda model: ApproximateImportanceTraining(model, seed=options.seed),
        {"loss under lstm": "loss", f"{EXACT} under lstm": EXACT},
        "lstm",
        lambda sampler: predict(sampler, indices),
    )
    return stages


def predict(sampler: LSTMSampler, indices: np.ndarray) -> np.ndarray:
    """Return the predictions for samples, computed in chunks."""
    return np.concatenate([sampler.predict(part) for part in np.split(indices, range(512, len(indices), 512))])


def correlations(name: str, stages: Sequence[Mapping]) -> list[dict]:
    """Return rank correlations and errors, one dict per stage."""
    rows = []
    for stage in stages:
        row: dict[str, Any] = {"way": f"{name}, {stage['step']}"}
        for score in SCORES:
            exact = stage[f"{EXACT} under lstm" if score == "lstm" else EXACT]
            if score in stage:
                row[f"rho {score}"] = summarise([rank_correlation(stage[score], exact)])
                row[f"error {score}"] = summarise([squared_error(stage[score], exact)])
        if "lstm" in stage:
            row["rho lstm, loss"] = summarise([rank_correlation(stage["lstm"], stage["loss under lstm"])])
        rows.append(row)
    return rows


def plot(last: Mapping[str, Mapping], path: Path, seed: int) -> None:
    """Plot the probabilities of each score against those of the exact norm, one row of panels per task."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(SCORES), 4.2 * len(last)), layout="constrained")
    grid = figure.subplots(len(last), len(SCORES), squeeze=False)
    for panels, (name, stage) in zip(grid, last.items(), strict=True):
        (row,) = correlations(name, [stage])
        for axes, score, style in zip(panels, SCORES, STYLES, strict=False):
            exact = stage[f"{EXACT} under lstm" if score == "lstm" else EXACT]
            x, y = (values[:NUM_POINTS] / values.mean() for values in (exact, stage[score]))
            axes.plot(x, y, linestyle="", markersize=3, marker=style["marker"], color=style["color"])
            axes.plot(LIMITS, LIMITS, color="0.3", linewidth=1)
            axes.set(xscale="log", yscale="log", xlim=LIMITS, ylim=LIMITS)
            axes.set_title(
                f"{name}, {score}\nrho {row[f'rho {score}']['median']:.3f}, "
                f"error {row[f'error {score}']['median']:.3g} (uniform: 1)",
                fontsize=10,
            )
            axes.set(xlabel="exact gradient norm", ylabel=score)
            axes.grid(True, color="0.9")
            axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"Probabilities relative to uniform ones, after {next(iter(last.values()))['step']} steps (seed {seed})",
        weight="bold",
    )
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
