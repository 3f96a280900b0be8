"""Train with wrong labels at equal cost: `model.fit`, importance sampling, the reducible loss, and cleaned labels.

    python benchmarks/noisy_labels.py --quick --data DIR
    python benchmarks/noisy_labels.py --tasks satellite mnist_mlp --seeds 3 --data DIR --out OUT

A fraction of the training labels is changed: `uniform` to a random other class, `confusable` to the class whose mean
input is nearest. Test labels are correct. All ways of a seed have the same initial weights and the same wrong labels,
and are trained for the same cost, with a learning rate that decays along a cosine to zero. The cost is that of a number
of epochs of `model.fit`, counted in forward passes of a batch: long enough to memorise wrong labels.

`uniform` is `model.fit`, `default` is `ImportanceTraining`, `reducible` is `ReducibleLossTraining`. `cleaned` trains
two copies as `reducible` does, removes the samples whose label isn't the class that the copy predicts, and then calls
`model.fit`. The lowest test error during a run shows what ideal early stopping would give. The table of suspects has
the share of wrong labels among the first 1 % of a ranking. Results are appended to OUT/results.jsonl and aren't
repeated.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tasks
from analysis import markdown_table, summarise, summarise_ways
from budget_runs import make_parser, sampled, settings, train_runs
from report import write_tables
from results import Results

from importance_sampling import ImportanceTraining
from importance_sampling.comparison import Data, identical_models
from importance_sampling.labels import OutOfSample, label_suspicion, out_of_sample
from importance_sampling.training import ReducibleLossTraining

TASKS = ("satellite", "shuttle", "mnist_mlp", "mnist_cnn")
KINDS = ("uniform", "confusable")
RATES = (0.2, 0.4)
COPY_EPOCHS = 10
QUICK_EPOCHS = 4
MEASUREMENTS = 10
WAYS: dict[str, Callable[[keras.Model, int, int], Any]] = {
    "uniform": lambda model, batch_size, seed: model,
    "default": lambda model, batch_size, seed: ImportanceTraining(model, seed=seed),
    "reducible": lambda model, batch_size, seed: ReducibleLossTraining(model, copy_epochs=COPY_EPOCHS, seed=seed),
    "cleaned": lambda model, batch_size, seed: CleanedTraining(model, batch_size, seed),
}
COLUMNS = {
    "test_error": ("test error", ".2f"),
    "test_error over uniform": ("over uniform", ".2f"),
    "lowest": ("lowest test error", ".2f"),
    "test_loss over uniform": ("test loss over uniform", ".2f"),
    "seconds": ("seconds", ".0f"),
}
SUSPECTS = {
    "label_suspicion": ("`label_suspicion`", ".0%"),
    "cleanlab": ("cleanlab, normalized margin", ".0%"),
    "loss": ("the loss of the copies", ".0%"),
}


class CleanedTraining:
    """Remove the samples whose label copies of the model contradict, then train with `model.fit`.

    Args:
        model: a compiled model.
        batch_size: int.
        seed: int.

    Attributes:
        out_of_sample: `OutOfSample`; None before `fit`.
    """

    def __init__(self, model: keras.Model, batch_size: int, seed: int):
        self.model, self.batch_size, self.seed = model, batch_size, seed
        self.out_of_sample: OutOfSample | None = None

    @property
    def forward_equivalents(self) -> float:
        """The cost in forward passes of a batch; that of the copies counts from the first step on."""
        steps = int(self.model.optimizer.iterations.value)
        return 3.0 * steps + (self.out_of_sample.cost / self.batch_size if steps else 0.0)

    def fit(self, x: Any, y: Any, **arguments: Any) -> keras.callbacks.History:
        """Train with Keras's arguments."""
        predicted = out_of_sample(self.model, x, y, batch_size=self.batch_size, epochs=COPY_EPOCHS, seed=self.seed)
        self.out_of_sample = predicted
        agrees = predicted.probabilities.argmax(1) == np.asarray(y).argmax(1)
        return self.model.fit(np.asarray(x)[agrees], np.asarray(y)[agrees], **arguments)


def main() -> None:
    """Run the missing runs and write the tables."""
    parser = make_parser("noisy_labels", __doc__, TASKS)
    parser.add_argument("--epochs", type=int, default=40, metavar="N", help="whose cost is the budget")
    parser.set_defaults(seeds=3, rows=4000)
    options = parser.parse_args()
    kinds, rates = KINDS, RATES
    if options.quick:
        options.tasks, options.seeds, options.epochs = options.tasks[:1], 1, QUICK_EPOCHS
        kinds, rates = KINDS[:1], RATES[:1]
    results = Results(options.out / "results.jsonl")
    wanted = [
        [settings(name, way, seed, options.epochs, f"{kind} {rate:.0%}", MEASUREMENTS) for way in WAYS]
        for seed in range(1, options.seeds + 1)
        for name in options.tasks
        for kind in kinds
        for rate in rates
    ]
    for runs in wanted:
        if results.missing(runs):
            train_all(runs, results, options)
    text = write_report([run for runs in wanted for run in results.of(runs)], options.out)
    print(text)


def with_wrong_labels(data: Data, protocol: str, seed: int) -> tuple[Data, np.ndarray]:
    """Return the data with wrong one-hot training labels, and which they are.

    Args:
        data: `Data`, with one-hot labels.
        protocol: the kind and the fraction of wrong labels, such as "uniform 20%".
        seed: int.
    """
    kind, percent = protocol.split()
    random, rate = np.random.default_rng(seed), float(percent.rstrip("%")) / 100
    labels, classes = np.asarray(data.y_train).argmax(1), np.asarray(data.y_train).shape[1]
    wrong = random.random(len(labels)) < rate
    if kind == "uniform":
        changed = (labels + random.integers(1, classes, len(labels))) % classes
    else:
        changed = nearest_classes(np.asarray(data.x_train), labels, classes)[labels]
    noisy = np.where(wrong, changed, labels)
    return data._replace(y_train=np.eye(classes, dtype="float32")[noisy]), wrong


def nearest_classes(x: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return for each class the class with the nearest mean input, int `(classes,)`."""
    flat = x.reshape(len(x), -1)
    means = np.stack(
        [flat[labels == c].mean(0) if (labels == c).any() else np.full(flat.shape[1], np.inf) for c in range(classes)]
    )
    with np.errstate(invalid="ignore"):
        distances = np.nan_to_num(np.square(means[:, None] - means).sum(-1), nan=np.inf)
    np.fill_diagonal(distances, np.inf)
    return distances.argmin(1)


def train_all(runs: Sequence[Mapping], results: Results, options: argparse.Namespace) -> None:
    """Train a task, a kind of wrong labels and a seed in all ways, and add their results."""
    task, seed = tasks.get(runs[0]["task"]), runs[0]["seed"]
    data, wrong = with_wrong_labels(sampled(task.load(options.data), options.rows), runs[0]["protocol"], seed)
    data = data.as_tensors()
    models = identical_models(task.builder(options.data), len(runs), seed)
    trainers = [WAYS[run["way"]](model, task.batch_size, seed) for run, model in zip(runs, models, strict=True)]

    def suspects(trainer: Any) -> dict:
        has_ranking = hasattr(trainer, "out_of_sample")
        return dict(suspects=shares_of_wrong(trainer.out_of_sample, data, wrong) if has_ranking else {})

    train_runs(runs, trainers, data, results, suspects)


def shares_of_wrong(predicted: OutOfSample, data: Data, wrong: np.ndarray) -> dict[str, float]:
    """Return the share of wrong labels among the first 1 % of each ranking."""
    labels, p = np.asarray(data.y_train).argmax(1), predicted.probabilities
    rankings = {
        "label_suspicion": np.argsort(-label_suspicion(labels, p), kind="stable"),
        "loss": np.argsort(-predicted.losses, kind="stable"),
    }
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        pass  # its column stays empty
    else:
        rankings["cleanlab"] = find_label_issues(
            labels, p.astype("float64"), return_indices_ranked_by="normalized_margin", n_jobs=1
        )
    first = len(labels) // 100
    return {name: float(wrong[ranking[:first]].mean()) for name, ranking in rankings.items()}


def write_report(runs: Sequence[Mapping], out: Path) -> str:
    """Write the tables, and return them."""
    groups, table, suspects = [], [], []
    for name, protocol in dict.fromkeys((run["task"], run["protocol"]) for run in runs):
        of_group = [run for run in runs if (run["task"], run["protocol"]) == (name, protocol)]
        rows = summarise_ways(of_group, ("uniform",))
        for row in rows:
            own = [run for run in of_group if run["way"] == row["way"]]
            row["seconds"] = summarise([run["seconds"] for run in own])
            row["lowest"] = summarise([min(point["test_error"] for point in run["points"]) for run in own])
            found = [run["suspects"] for run in own if run["suspects"]]
            if row["way"] == "reducible" and found:
                figures = {key: summarise([one[key] for one in found]) for key in found[0]}
                suspects.append(dict(figures, way=f"`{name}`, {protocol}"))
        groups.append(dict(task=name, protocol=protocol, ways=rows))
        table += [dict(row, way=f"`{name}`, {protocol}, {row['way']}") for row in rows]
    text = markdown_table(table, COLUMNS, "task, wrong labels, way")
    ranked = markdown_table(suspects, SUSPECTS, "wrong among the first 1 % by")
    return write_tables(out, groups, table=text, suspects=ranked)


if __name__ == "__main__":
    main()
