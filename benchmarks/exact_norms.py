"""Measure the time of the exact gradient norm of every sample, `score="full_gnorm"`, over that of a forward pass.

    python benchmarks/exact_norms.py --out docs/data/exact_norms
    python benchmarks/exact_norms.py --quick

The exact norm is computed by formulas, from one forward and one backward pass, and in the earlier way: after a forward
pass, a vectorised gradient per sample (on TensorFlow one after another for the LSTM), 32 samples at once. The forward
pass is that of the score "loss". The floor is the forward and the backward pass of the formulas, which gives the
gradients at the outputs of the layers, without the formulas. Each way is compiled, and scores the same batch of random
data. The ways take turns, every second round in reverse order; the results are medians and quartiles of the ratios
within a round.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from analysis import markdown_table, summarise
from keras import layers, ops
from report import write_tables

from importance_sampling import backend
from importance_sampling.backend import keras_internals
from importance_sampling.backend.scopes import replaced_attribute
from importance_sampling.core import scoring
from importance_sampling.core.exact_norms import norms_by_sample
from importance_sampling.core.logits import Logits
from importance_sampling.core.scoring import Scorer, call
from importance_sampling.core.weighted_loss import stateless

CLASSES = 10
WORDS, LENGTH = 2000, 32
SECONDS = 0.2  # of a measurement
CRASHING = ("transformer",)  # the gradient per sample ends TensorFlow 2.21 with a segmentation fault


def perceptron() -> keras.Model:
    """Return the perceptron of the MNIST tasks."""
    hidden = [layers.Dense(512, "relu"), layers.Dense(512, "relu")]
    return keras.Sequential([keras.Input((784,)), *hidden, layers.Dense(CLASSES, "softmax")])


def convolutional() -> keras.Model:
    """Return a small convolutional network with batch normalisation, for 32 x 32 colour images."""
    stack: list = [keras.Input((32, 32, 3))]
    for filters, strides in ((32, 1), (64, 2), (128, 2)):
        stack += [layers.Conv2D(filters, 3, strides, "same"), layers.BatchNormalization(), layers.ReLU()]
    return keras.Sequential([*stack, layers.GlobalAveragePooling2D(), layers.Dense(CLASSES, "softmax")])


def lstm() -> keras.Model:
    """Return an embedding and an LSTM, for sequences of words."""
    tokens = keras.Input((LENGTH,), dtype="int32")
    hidden = layers.LSTM(128)(layers.Embedding(WORDS, 64)(tokens))
    return keras.Model(tokens, layers.Dense(CLASSES, "softmax")(hidden))


def transformer() -> keras.Model:
    """Return an embedding and two transformer blocks with 4 heads, for sequences of words."""
    tokens = keras.Input((LENGTH,), dtype="int32")
    hidden = layers.Embedding(WORDS, 64)(tokens)
    for _ in range(2):
        attention = layers.MultiHeadAttention(4, 16)(hidden, hidden)
        hidden = layers.LayerNormalization()(hidden + attention)
        dense = layers.Dense(64)(layers.Dense(256, "relu")(hidden))
        hidden = layers.LayerNormalization()(hidden + dense)
    return keras.Model(tokens, layers.Dense(CLASSES, "softmax")(layers.GlobalAveragePooling1D()(hidden)))


MODELS = {
    "perceptron": perceptron,
    "convolutional network": convolutional,
    "LSTM": lstm,
    "transformer": transformer,
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batch", type=int, default=128, metavar="N", help="number of samples that are scored")
    parser.add_argument("--rounds", type=int, default=15, metavar="N")
    parser.add_argument("--quick", action="store_true", help="two rounds, 16 samples")
    parser.add_argument("--out", type=Path, default=Path("exact_norms"), metavar="DIR")
    options = parser.parse_args()
    if options.quick:
        options.batch, options.rounds = 16, 2
    rows = [measure(name, options.batch, options.rounds) for name in options.models]
    columns = {
        "parameters": ("parameters", ",.0f"),
        "forward": ("forward pass, ms", ".2f"),
        "floor": ("floor, forward passes", ".2f"),
        "formulas": ("formulas, forward passes", ".2f"),
        "by sample": ("gradient per sample, forward passes", ".2f"),
        "speed-up": ("gradient per sample over formulas", ".1f"),
        "difference": ("largest relative difference", ".0e"),
    }
    table = markdown_table(rows, columns, "model")
    print(write_tables(options.out, table=table))


def measure(name: str, batch: int, rounds: int) -> dict:
    """Return the row of a model in the table: summaries of times and of their ratios."""
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    model.compile("sgd", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    shape = (batch, *model.input_shape[1:])
    x = rng.integers(0, WORDS, shape) if len(shape) == 2 and shape[1] == LENGTH else rng.normal(size=shape)
    data = backend.to_tensor(x), backend.to_tensor(rng.integers(0, CLASSES, batch))
    keras_internals.build_on_batch(model, data)
    ways = {way: backend.compile_step(function, model) for way, function in scoring_functions(model).items()}
    if name in CRASHING and keras.config.backend() == "tensorflow":
        del ways["by sample"]
    results = {way: ops.convert_to_numpy(run(*data)) for way, run in ways.items()}  # compiles
    counts = {way: max(1, int(SECONDS / seconds(run, data, 3))) for way, run in ways.items()}
    times: dict[str, list] = {way: [] for way in ways}
    for i in range(rounds):
        for way in list(ways)[:: 1 if i % 2 == 0 else -1]:
            times[way].append(seconds(ways[way], data, counts[way]))
    forward, formulas = np.array(times["forward"]), np.array(times["formulas"])
    row = {
        "way": name,
        "parameters": summarise([model.count_params()]),
        "forward": summarise(forward * 1000),
        "floor": summarise(np.array(times["floor"]) / forward),
        "formulas": summarise(formulas / forward),
    }
    if "by sample" in ways:
        by_sample = np.array(times["by sample"])
        row["by sample"] = summarise(by_sample / forward)
        row["speed-up"] = summarise(by_sample / formulas)
        row["difference"] = summarise([np.max(np.abs(results["formulas"] / results["by sample"] - 1))])
    return row


def scoring_functions(model: keras.Model) -> dict[str, Callable]:
    """Return functions of `(x, y)` that compute a score of each sample, in four ways."""

    def score(name: str) -> Callable:
        scorer = Scorer(model, name, Logits(model))
        return lambda x, y: scorer((x, y, None)).scores

    forward = score("loss")

    def sample_loss(leaves: list) -> Any:
        x, y = leaves
        with stateless(model):
            return model.compute_loss(x, y, call(model, x, training=False))

    def by_sample(x: Any, y: Any) -> Any:
        # The losses of the forward pass are added with a factor of zero, so that they are computed.
        return norms_by_sample(sample_loss, [x, y], model.trainable_weights, [model]) + 0.0 * forward(x, y)

    exact = score("full_gnorm")

    def floor(x: Any, y: Any) -> Any:
        with replaced_attribute(scoring, "exact_norms", without_formulas):
            return exact(x, y)

    return {"forward": forward, "floor": floor, "formulas": exact, "by sample": by_sample}


def without_formulas(model: keras.Model, calls: list, gradients: list, rows: int) -> Any:
    """Return a number per sample that depends on the gradients at all tapped tensors, in the place of exact norms."""
    tapped = [gradient for gradient in gradients if gradient is not None]
    return sum(ops.reshape(gradient, (rows, -1))[:, 0] for gradient in tapped)


def seconds(run: Callable, data: tuple, count: int) -> float:
    """Return the mean time of a call."""
    start = time.perf_counter()
    for _ in range(count):
        result = run(*data)
    ops.convert_to_numpy(result)
    return (time.perf_counter() - start) / count


if __name__ == "__main__":
    main()
