"""Compare estimates of the next scores from old ones with exact gradient norms, at several stages of training.

    python benchmarks/old_scores.py --quick --data DIR
    python benchmarks/old_scores.py --tasks satellite ratings --seeds 3 --data DIR --out OUT

Epochs are resampled by the scores that training measured: by the calibration of `ReshuffleTraining` in one run, by the
uncertainty set of `RobustImportanceTraining` in another. In the run with the calibration both estimates are made from
the same measured scores. Their probabilities, with the uniform share of the library, are compared with exact norms of
random training samples:

    variance: sum(norm^2 / p), divided by that of uniform probabilities (1: no gain). It is the variance of the gradient
        plus the square of its mean;
    error: the sum of squared errors of p, divided by that of uniform probabilities (1: no better than uniform).

`last` are the last scores as they are, `calibration` and `robust` the two estimates, `width 0` the uncertainty set
without its deviations, and `now` the scores of the current network, from a forward pass. Samples without a score have
the mean of the others for `last`. Before the first step there are no old scores, so the stage 0 is left out. The
learning rate is constant. The training losses of both runs are in the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tasks
from analysis import summarise
from budget_runs import sampled
from correlation import EXACT, squared_error
from stages import build_model, fit_through_stages, parse, sample_rows, write
from variance_reduction import relative_variance

from importance_sampling.comparison import Data
from importance_sampling.model_wrappers import OracleWrapper
from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import ReshuffleSampler
from importance_sampling.samplers.calibration import Calibration, cells
from importance_sampling.samplers.uncertainty_set import UncertaintySet
from importance_sampling.training import SamplerTraining
from importance_sampling.utils.numerics import DEFAULT_ALPHA, probabilities

STAGES = [160, 320, 640, 1280]  # the ends of the epochs 2, 4, 8 and 16 at 10,000 samples and batches of 128
TRAINING_ROWS = 10000
ESTIMATES = ("last", "calibration", "width 0", "robust", "now")
LEADERS = {"calibration": "calibrated", "robust": "robust"}  # the estimate that a run draws by: name in the table


class Estimates(Calibration):
    """Several estimates from the same measured scores.

    Args:
        leader: the name of the one that the sampler draws by.
    """

    def __init__(self, leader: str):
        super().__init__()
        self.all = {"calibration": Calibration(), "width 0": UncertaintySet(0.0), "robust": UncertaintySet()}
        self.leader = leader

    def update(self, cells: np.ndarray, scores: np.ndarray) -> None:
        """Record the measured scores of a batch."""
        for one in self.all.values():
            one.update(cells, scores)

    def expected_scores(self) -> np.ndarray:
        """Return the estimate of the leader for every cell."""
        return self.all[self.leader].expected_scores()


class EstimatingSampler(ReshuffleSampler):
    """A sampler that resamples epochs by one of several estimates.

    Args:
        dataset: has `train_data`.
        leader: as for `Estimates`.
        seed: int.
    """

    def __init__(self, dataset: Any, leader: str, seed: int):
        super().__init__(dataset, UNBIASED, seed=seed)
        self.calibration = Estimates(leader)

    def estimates(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the estimates for samples, and their last scores."""
        of_samples = cells(self._scores, self._samples_drawn / self.size - self._scored_at)[indices]
        last = np.where(np.isnan(self._scores), np.nanmean(self._scores), self._scores)[indices]
        return {"last": last} | {key: one.expected_scores()[of_samples] for key, one in self.calibration.all.items()}


def main() -> None:
    """Run the benchmark."""
    options = parse(__doc__, "old_scores", stages=STAGES, rows=2048, seeds=3)
    options.stages = [step for step in options.stages if step]
    columns = {f"variance {key}": (f"variance: {key}", ".3f") for key in ESTIMATES}
    columns |= {f"error {key}": (f"error: {key}", ".3f") for key in ESTIMATES}
    columns |= {f"loss {key}": (f"training loss: {heading}", ".3g") for key, heading in LEADERS.items()}
    rows = []
    for name in options.tasks:
        runs = [measure(name, seed, options) for seed in range(1, options.seeds + 1)]
        for stages in zip(*runs, strict=True):
            keys = [key for key in stages[0] if key != "step"]
            figures = {key: summarise([stage[key] for stage in stages]) for key in keys}
            rows.append({"way": f"`{name}`, {stages[0]['step']}"} | figures)
        write(rows, columns, "task, steps", options.out, rows)  # the tasks so far


def measure(name: str, seed: int, options: Any) -> list[dict]:
    """Return the figures of a task and a seed, one dict per stage."""
    task = tasks.get(name)
    data = sampled(task.load(options.data), TRAINING_ROWS)
    with_calibration, robust = (train(name, data, leader, seed, options) for leader in LEADERS)
    return [
        first | {key: value for key, value in second.items() if key.startswith("loss")}
        for first, second in zip(with_calibration, robust, strict=True)
    ]


def train(name: str, data: Data, leader: str, seed: int, options: Any) -> list[dict]:
    """Train with a leading estimate, and return the figures of all of them, one dict per stage."""
    task = tasks.get(name)
    indices, x, y = sample_rows(data, options.rows, seed)
    model = build_model(task, options.data, seed)
    wrappers = {score: OracleWrapper(model, UNBIASED, score) for score in ("loss", "gnorm", EXACT)}
    samplers, stages = [], []

    def at(step: int) -> None:
        now = {key: wrapper.score(x, y, batch_size=256).astype("float64") for key, wrapper in wrappers.items()}
        loss = float(now["loss"].mean())
        estimates = samplers[-1].estimates(indices) | {"now": now["gnorm"]}
        stages.append({"step": step, f"loss {leader}": loss} | compare(estimates, now[EXACT]))
        print(f"{name}, seed {seed}, {leader}, {step} steps: mean loss {loss:.3g}", flush=True)

    trainer = SamplerTraining(model, lambda rows, _, seed: EstimatingSampler(rows, leader, seed), seed=seed)
    fit_through_stages(
        trainer, data, task.batch_size, options.stages, at, on_scores=lambda sampler, scores: samplers.append(sampler)
    )
    return stages


def compare(scores: Mapping[str, np.ndarray], exact: np.ndarray) -> dict[str, float]:
    """Return the variance and the error of the probabilities of every estimate.

    Args:
        scores: float `(n,)` arrays by the name of the estimate.
        exact: float `(n,)`, the exact gradient norms.
    """
    by_name = {name: probabilities(values.astype("float64"), DEFAULT_ALPHA) for name, values in scores.items()}
    figures = {f"variance {name}": relative_variance(exact, 0.0, p) for name, p in by_name.items()}
    return figures | {f"error {name}": squared_error(p, exact) for name, p in by_name.items()}


if __name__ == "__main__":
    main()
