"""Random models, losses, data and arguments: `model.fit` against every way to train.

Run `python tests/fuzz.py --cases 2000 --seed 0` for many cases, with `--first N` for some of them. A case is known by
the seed and its number. Odd arguments, that Keras may refuse, are drawn less often. Every case is trained by the
settings of `ImportanceTraining` in `ways.py`, and by one other trainer that is drawn.

Checks: the trainer that is switched off equals `model.fit` bit for bit. Otherwise it takes importance steps and reports
a loss near that of the trained model, or does what `model.fit` does, with at most one warning. Where `model.fit`
raises, every way raises an error of the same type.

A case that fails is made simpler, one choice at a time, as long as it fails in the same way. What is left is printed,
with the command that runs it again.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from frameworks import HAS_TENSORFLOW, lacks, several, tf
from keras import layers, ops
from ways import (
    BIASED,
    NEEDS_ROWS,
    REFUSALS,
    REMARKS,
    SHORTER,
    STAYS_OFF,
    TRAINERS,
    WAYS,
    Run,
    Setup,
    added,
    assert_left_alone,
    assert_off,
    assert_trained_alike,
    train,
)

ROWS, SIZE, STEPS = 16, 5, 3  # rows, rows of a batch, time steps of a sequence
GAPS = 8  # runs that decide whether a loss that is far from `evaluate` is so by chance
rng = np.random.default_rng(0)
VALUES = rng.normal(size=(ROWS, 4)).astype("float32")
WEIGHTS = np.linspace(0.2, 2, ROWS).astype("float32")
IMAGES = rng.integers(0, 256, (ROWS, 4, 4, 1)).astype("uint8")
WORDS = rng.integers(1, 7, (ROWS, STEPS)) * (np.arange(STEPS) < rng.integers(1, STEPS + 1, (ROWS, 1)))


# Models: the inputs, and the layers ahead of the outputs

INPUTS = {
    "values": VALUES,
    "images": IMAGES,
    "words": WORDS,
    "list": [VALUES[:, :3], VALUES[:, 1:]],
    "dict": {"a": VALUES[:, :2], "b": VALUES[:, 2:]},
}


def on_values(*stack: Callable[[], keras.Layer]) -> tuple:
    return "values", lambda x: _through(x, layers.Dense(5, activation="relu"), *(make() for make in stack))


def _through(x: Any, *stack: keras.Layer) -> Any:
    for layer in stack:
        x = layer(x)
    return x


def _tied(x: Any) -> Any:
    shared = layers.Dense(4, activation="tanh")
    return layers.Add()([shared(x), shared(layers.Dense(4, trainable=False)(x))])


def _attention(x: Any) -> Any:
    h = layers.Embedding(7, 4, mask_zero=True)(x)
    return layers.LayerNormalization()(h + layers.MultiHeadAttention(2, 2)(h, h))


class AddsLoss(layers.Layer):
    def call(self, x):
        self.add_loss(0.01 * ops.mean(ops.square(x)))
        return x


MODELS: dict[str, tuple[str, Callable]] = {
    "dense": on_values(),
    "batch norm": on_values(layers.BatchNormalization),
    "dropout": on_values(lambda: layers.Dropout(0.2), lambda: layers.GaussianNoise(0.1)),
    "nested": on_values(lambda: keras.Sequential([keras.Input((5,)), layers.Dense(4), layers.Dropout(0.1)])),
    "tied, frozen": ("values", _tied),
    "regularised": on_values(lambda: layers.Dense(4, kernel_regularizer="l2", bias_constraint="max_norm")),
    "activity regulariser": on_values(lambda: layers.Dense(4, activity_regularizer="l2")),
    "add_loss": on_values(AddsLoss),
    "convolution": (
        "images",
        lambda x: _through(
            x,
            layers.Rescaling(1 / 255),
            layers.RandomFlip(seed=1),
            layers.Conv2D(2, 3, activation="relu"),
            layers.Flatten(),
        ),
    ),
    "per pixel": ("images", lambda x: layers.Conv2D(2, 3, padding="same")(layers.Rescaling(1 / 255)(x))),
    "recurrent": ("words", lambda x: layers.GRU(3)(layers.Embedding(7, 3, mask_zero=True)(x))),
    "word by word": (
        "words",
        lambda x: layers.SimpleRNN(3, return_sequences=True)(layers.Embedding(7, 3, mask_zero=True)(x)),
    ),
    "attention": ("words", _attention),
    "pooled attention": ("words", lambda x: layers.GlobalAveragePooling1D()(_attention(x))),
    "embedding": ("words", lambda x: layers.GlobalMaxPooling1D()(layers.Embedding(7, 3)(x))),
    "two inputs": ("list", lambda x: layers.Concatenate()([layers.Dense(3)(part) for part in x])),
    "named inputs": ("dict", lambda x: layers.Dense(4, activation="relu")(layers.Concatenate()([x["a"], x["b"]]))),
}
LINEAR = "linear"  # no layer ahead of the outputs; it is never drawn, and failing cases are made simpler with it


# Losses: the activation and width of an output, its targets by class number, and the loss


def _one_hot(classes: np.ndarray) -> np.ndarray:
    return np.eye(3, dtype="float32")[classes]


def _flag(classes: np.ndarray) -> np.ndarray:
    return (classes == 1).astype("float32")[..., None]


def _size(classes: np.ndarray) -> np.ndarray:
    return (classes - 1).astype("float32")[..., None]


def _by_sample(y: Any, p: Any) -> Any:
    return ops.sqrt(ops.mean(ops.square(y - p), axis=-1) + 0.01)


class Annealed(keras.losses.Loss):
    """Counts its calls."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def call(self, y_true, y_pred):
        self.calls += 1
        return ops.mean(ops.abs(y_true - y_pred) ** 1.5, axis=-1)


LOSSES: dict[str, tuple[str | None, int, Callable, Callable]] = {
    "classes": ("softmax", 3, lambda c: c, lambda: "sparse_categorical_crossentropy"),
    "one hot logits": (None, 3, _one_hot, lambda: keras.losses.CategoricalCrossentropy(True, label_smoothing=0.1)),
    "class logits": (None, 3, lambda c: c, lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
    "flag": ("sigmoid", 1, _flag, lambda: "binary_crossentropy"),
    "flat flag": ("sigmoid", 1, lambda c: c == 1, lambda: "binary_crossentropy"),
    "several flags": ("sigmoid", 3, _one_hot, lambda: keras.losses.BinaryFocalCrossentropy()),
    "mse": (None, 1, _size, lambda: "mse"),
    "flat mse": (None, 1, lambda c: c.astype("float32"), lambda: "mean_squared_error"),
    "huber": (None, 1, _size, lambda: keras.losses.Huber(0.5)),
    "hinge": ("tanh", 1, lambda c: 2 * _flag(c) - 1, lambda: "squared_hinge"),
    "poisson": ("softplus", 1, lambda c: c.astype("float32")[..., None], lambda: "poisson"),
    "divergence": ("softmax", 3, lambda c: 0.8 * _one_hot(c) + 0.2 / 3, lambda: "kl_divergence"),
    "cosine": (
        "softplus" if lacks("cosines of zeros") else None,  # a row that no unit answers to has outputs of zeros
        3,
        _one_hot,
        lambda: keras.losses.CosineSimilarity(),
    ),
    "function": (None, 3, _one_hot, lambda: _by_sample),
    "own class": (None, 3, _one_hot, Annealed),
    "sum": (None, 1, _size, lambda: keras.losses.MeanAbsoluteError(reduction="sum")),
    "not reduced": (
        None,
        1,
        _size,
        lambda: keras.losses.LogCosh(reduction="sum" if lacks("losses that are not reduced") else None),
    ),
    "divided by weights": (
        None,
        1,
        _size,
        lambda: keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"),
    ),
    "one number": (None, 3, _one_hot, lambda: lambda y, p: ops.mean(ops.square(y - p))),
    "spread of the batch": (
        None,
        3,
        _one_hot,
        lambda: lambda y, p: ops.mean(ops.square(y - p), axis=-1) / (0.1 + ops.std(p)),
    ),
}

STRUCTURES = ("one", "one", "list", "dict", "dict, one without a loss")


class Wrapped(keras.Model):
    """A subclassed model."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x, training=False):
        return self.inner(x, training=training)


class OwnStep(keras.Model):
    def train_step(self, *arguments):
        result = super().train_step(*arguments)
        if isinstance(result, tuple):  # on JAX
            logs, state = result
            return dict(logs, extra=1.0), state
        return dict(result, extra=1.0)


class OwnLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 0.5 * super().compute_loss(x, y, y_pred, sample_weight, training)


class Penalised(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        penalty = 0.01 * ops.mean(ops.square(keras.tree.flatten(y_pred)[0]))
        return super().compute_loss(x, y, y_pred, sample_weight, training) + penalty


KINDS = {
    "functional": keras.Model,
    "subclassed": Wrapped,
    "own train_step": OwnStep,
    "own compute_loss": OwnLoss,
    "penalised compute_loss": Penalised,
}

OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.01),
    "momentum": lambda: keras.optimizers.SGD(0.01, momentum=0.9, clipnorm=1.0),
    "adam": lambda: keras.optimizers.Adam(1e-3),
    "averaged": lambda: keras.optimizers.Adam(1e-3, use_ema=True, ema_overwrite_frequency=2),
    "accumulating": lambda: keras.optimizers.Adam(1e-3, gradient_accumulation_steps=2),
    "schedule": lambda: keras.optimizers.RMSprop(keras.optimizers.schedules.ExponentialDecay(1e-3, 2, 0.9)),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01)),
}


# Data


class Batches(keras.utils.PyDataset):
    """A batch at a time."""

    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def __len__(self):
        return -(-ROWS // SIZE)

    def __getitem__(self, index):
        return _rows(self.parts, slice(SIZE * index, SIZE * (index + 1)))


def _rows(parts: tuple, rows: slice) -> tuple:
    return keras.tree.map_structure(lambda part: part[rows], parts)


def _batches(parts: tuple) -> Iterator[tuple]:
    for start in range(0, ROWS, SIZE):
        yield _rows(parts, slice(start, start + SIZE))


def _endless(parts: tuple) -> Iterator[tuple]:
    while True:
        yield from list(_batches(parts))[:-1]


def _dataset(parts: tuple) -> Any:
    """A dataset of TensorFlow where it is installed."""
    if not HAS_TENSORFLOW:
        return Batches(parts)
    return tf.data.Dataset.from_tensor_slices(_tuples(parts)).batch(SIZE)


def _tuples(parts: Any) -> Any:
    """Lists are tensors to tf.data."""
    if isinstance(parts, dict):
        return {name: _tuples(part) for name, part in parts.items()}
    return tuple(map(_tuples, parts)) if isinstance(parts, (list, tuple)) else parts


def _shuffled(parts: tuple) -> Any:
    return _dataset(parts).shuffle(4, seed=1) if HAS_TENSORFLOW else Batches(parts)


def _of_unknown_length(parts: tuple) -> Any:
    return _dataset(parts).filter(lambda *_: True) if HAS_TENSORFLOW else _batches(parts)


def _endless_dataset(parts: tuple) -> Any:
    return _dataset(parts).repeat() if HAS_TENSORFLOW else _endless(parts)


def _frame(x: Any) -> Any:
    try:
        import pandas
    except ImportError:
        return x
    return keras.tree.map_structure(lambda part: pandas.DataFrame(part) if part.ndim == 2 else part, x)


def _each(change: Callable) -> Callable:
    return lambda x: keras.tree.map_structure(change, x)


STREAMS = {
    "dataset": _dataset,
    "shuffled dataset": _shuffled,
    "dataset of unknown length": _of_unknown_length,
    "PyDataset": Batches,
    "generator": _batches,
    "endless generator": _endless,
    "endless dataset": _endless_dataset,
}
ARRAYS = {
    "arrays": lambda x: x,
    "tensors": _each(ops.convert_to_tensor),
    "float64": _each(lambda part: part.astype("float64")),
    "float16": _each(lambda part: part.astype("float16")),
    "frames": _frame,
    "lists": _each(lambda part: part.tolist()),
    "none": lambda x: None,
    "empty": _each(lambda part: part[:0]),
    "narrow": _each(lambda part: part[:, :1]),
    "number": lambda x: 1.0,
}
ODD_X = ("lists", "none", "empty", "narrow", "number")

Y = {
    "whole": lambda y: y,
    "none": lambda y: None,
    "short": lambda y: keras.tree.map_structure(lambda part: part[:-1], y),
    "floats": lambda y: keras.tree.map_structure(lambda part: part.astype("float32"), y),
    "in a list": lambda y: [y],
}


# Callbacks


class Halfway(keras.callbacks.Callback):
    """Ends training in the middle of an epoch."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            self.model.stop_training = True


class Asking(keras.callbacks.Callback):
    """Predicts at the end of an epoch, and changes the learning rate."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.predict(self.model.sample, verbose=0)


class Counting(keras.callbacks.Callback):
    """Notes which batches ended."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(batch)


CALLBACKS: dict[str, Callable[[], list]] = {
    "none": list,
    "early stopping": lambda: [keras.callbacks.EarlyStopping("loss", patience=0, restore_best_weights=True)],
    "plateau": lambda: [keras.callbacks.ReduceLROnPlateau("loss", patience=0, min_delta=9.0)],
    "scheduler": lambda: [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)],
    "halfway": lambda: [Halfway()],
    "asking": lambda: [Asking(), keras.callbacks.TerminateOnNaN()],
}

# Arguments of `fit` that anybody passes, and odd ones, which are drawn less often.
ARGUMENTS: dict[str, tuple[dict, dict]] = {
    "batch_size": (dict(some=SIZE, few=4), dict(none=None, large=64, zero=0, negative=-1, text="6", float=6.0)),
    "epochs": (dict(one=1, first=1, two=2), dict(zero=0, negative=-1, none=None)),
    "validation_split": (dict(none=0.0, no=0.0, quarter=0.25), dict(tiny=0.999, one=1.0, much=1.5, negative=-0.5)),
    "shuffle": (dict(yes=True, off=False), dict(batch="batch", none=None, other="other")),
    "initial_epoch": (dict(zero=0), dict(one=1, five=5, negative=-1)),
    "steps_per_epoch": (dict(none=None, two=2), dict(seven=7, zero=0, negative=-1)),
    "validation_steps": (dict(none=None), dict(two=2, nine=9, zero=0)),
    "validation_batch_size": (dict(none=None), dict(some=16, zero=0)),
    "validation_freq": (dict(one=1), dict(two=2, list=[1], later=[2], zero=0, text="1")),
}
WEIGHTED = ("none", "none", "rows", "classes", "both")
ODD_WEIGHTS = ("short", "in a list", "number", "some classes", "no classes", "list of classes")
VALIDATION = ("none", "none", "none", "none", "arrays", "dataset")
ODD_VALIDATION = ("weighted", "in a list", "PyDataset", "short", "x alone", "four")


USUAL = ("none", "no", "first", "one", "zero", "whole", "yes", "functional", 1, False)

# Each choice of a case: what is drawn, what is drawn less often, and how often. The first value is the simplest.
CHOICES: dict[str, tuple] = dict(
    model=(list(MODELS),),
    loss=(list(LOSSES),),
    structure=(STRUCTURES,),
    kind=(["functional"] * 6 + ["subclassed"] * 2 + list(KINDS),),
    optimizer=(list(OPTIMIZERS),),
    x=(["arrays"] * 4 + list(STREAMS) + [name for name in ARRAYS if name not in ODD_X], ODD_X, 0.06),
    y=(["whole"], list(Y)),
    weights=(WEIGHTED, ODD_WEIGHTS),
    validation=(VALIDATION, ODD_VALIDATION),
    callbacks=(["none"] * 3 + list(CALLBACKS),),
    handed_over=(("list", "list", "list", "CallbackList"),),
    metrics=(("none", "metrics", "weighted_metrics"),),
    steps_per_execution=((1, 1, 1, 3),),
    graph=((False,), (True,), 0.04),
    **{name: (list(usual), list(odd)) for name, (usual, odd) in ARGUMENTS.items()},
)


def values_of(name: str) -> list:
    """Return all values of a choice, simple ones first."""
    if name == "x":
        return [*ARRAYS, *STREAMS]
    drawn = [LINEAR] if name == "model" else []
    return list(dict.fromkeys([*drawn, *(value for values in CHOICES[name][:2] for value in values)]))


class Case(dict):
    """A draw of each choice, by name; `str(case)` is one line that says what isn't usual.

    Args:
        seed, number: of the draws.
        changes: choices in the place of those that are drawn.
    """

    def __init__(self, seed: int, number: int, changes: dict | None = None):
        draw = random.Random(f"{seed}/{number}")
        self.seed, self.number, self.changes = seed, number, dict(changes or {})
        self.ahead = number % 2 == 0  # the others are built in their first step

        def one(usual: Any, odd: Any = (), share: float = 0.03) -> Any:
            return draw.choice(list(odd)) if odd and draw.random() < share else draw.choice(list(usual))

        super().__init__({name: one(*values) for name, values in CHOICES.items()} | self.changes)
        self["steps_per_execution"] = several(self["steps_per_execution"])
        if self["x"].startswith("endless") and self["steps_per_epoch"] in ("none", "zero", "negative"):
            self["steps_per_epoch"] = "two"  # or Keras never ends the epoch
        if self["x"] in STREAMS:  # or most of them would be refused
            self["validation_split"] = "none"
        if self["structure"] != "one":
            self["weights"] = {"classes": "none", "both": "rows"}.get(self["weights"], self["weights"])
        trainers = draw.sample(list(TRAINERS), len(TRAINERS))
        self.ways = [name for name in [*WAYS, next(filter(self.is_possible, trainers))] if self.is_possible(name)]
        self.way = draw.choice(self.ways)

    def is_possible(self, way: str) -> bool:
        """Return False for streams and a way that refuses them."""
        return way not in NEEDS_ROWS or self["x"] in ARRAYS

    def command(self, way: str) -> str:
        """Return the command that runs this case in one way."""
        words = ["python", "tests/fuzz.py", "--seed", self.seed, "--first", self.number, "--cases", 1, "--way", way]
        changes = [f"{name}={value}" for name, value in self.changes.items()]
        return shlex.join(map(str, words + (["--set", *changes] if changes else [])))

    @property
    def is_read_once(self) -> bool:
        """True for a generator, and for what stands in for a dataset of unknown length without TensorFlow."""
        of_generators = () if HAS_TENSORFLOW else ("dataset of unknown length", "endless dataset")
        return self["x"].endswith("generator") or self["x"] in of_generators

    def __str__(self) -> str:
        drawn = ", ".join(
            f"{name}={value}"
            for name, value in self.items()
            if value not in USUAL or value not in CHOICES[name][0]  # "zero" is usual for some
        )
        return f"case {self.number} of seed {self.seed}: {drawn}"

    def build(self) -> Setup:
        """A model, and its data and arguments."""
        kind, body = MODELS.get(self["model"], ("values", lambda x: x))
        x = INPUTS[kind]
        inputs = keras.tree.map_structure(lambda part: keras.Input(part.shape[1:], dtype=part.dtype.name), x)
        activation, units, target, loss = LOSSES[self["loss"]]
        hidden = body(inputs)
        classes = np.random.default_rng(1).integers(0, 3, (ROWS, *hidden.shape[1:-1]))
        outputs = layers.Dense(units, activation=activation, name="first")(hidden)
        y, losses = target(classes), loss()
        metric = "accuracy" if self["loss"] in ("classes", "class logits") else "mae"
        options: dict = {} if self["metrics"] == "none" else {self["metrics"]: [metric]}
        if self["structure"] != "one":
            outputs, y, losses = [outputs, layers.Dense(1, name="second")(hidden)], [y, _size(classes)], [losses, "mse"]
            options = {name: [[metric], ["mae"]] for name in options} | dict(loss_weights=[1.0, 0.3])
        if self["structure"].startswith("dict"):
            names = "first", "second"
            outputs, y, losses = (dict(zip(names, parts, strict=True)) for parts in (outputs, y, losses))
            options = {name: dict(zip(names, parts, strict=True)) for name, parts in options.items()}
        if self["structure"] == "dict, one without a loss":
            losses["second"], options = None, {}
        functional = KINDS[self["kind"]] if self["kind"] != "subclassed" else keras.Model
        model = functional(inputs, outputs)
        if self["kind"] == "subclassed":
            model = Wrapped(model)
        model.compile(
            OPTIMIZERS[self["optimizer"]](),
            losses,
            run_eagerly=not self["graph"],
            steps_per_execution=self["steps_per_execution"],
            **options,
        )
        model.sample = x
        arguments = {name: (usual | odd)[self[name]] for name, (usual, odd) in ARGUMENTS.items()}
        given = self._data(x, y, classes)
        callbacks: Any = [Counting(), *CALLBACKS[self["callbacks"]]()]
        model.counting = callbacks[0]
        if self["handed_over"] == "CallbackList":
            callbacks = keras.callbacks.CallbackList(callbacks, add_history=True, model=model)
        elif len(callbacks) == 1:
            (callbacks,) = callbacks  # without a list
        arguments |= given | dict(callbacks=callbacks)
        return Setup(model, arguments, self._evaluation(x, y, classes, arguments))

    def _data(self, x: Any, y: Any, classes: np.ndarray) -> dict:
        weights: Any = {
            "rows": WEIGHTS,
            "both": WEIGHTS,
            "short": WEIGHTS[:-1],
            "in a list": [WEIGHTS],
            "number": 2.0,
        }.get(self["weights"])
        of_classes: Any = {
            "classes": {0: 0.5, 1: 2.0, 2: 1.0},
            "both": {0: 0.5, 1: 2.0, 2: 1.0},
            "some classes": {0: 0.5, 2: 3.0},
            "no classes": {},
            "list of classes": [1.0, 2.0, 3.0],
        }.get(self["weights"])
        given: dict = {} if of_classes is None else dict(class_weight=of_classes)
        if self["x"] in STREAMS:
            weights = weights if isinstance(weights, np.ndarray) and len(weights) == ROWS else None
            parts = (x, y) if weights is None else (x, y, weights)
            return given | dict(x=STREAMS[self["x"]](parts), y=None if self["y"] == "whole" else Y[self["y"]](y))
        if self["validation"] != "none":
            whole = (x, y)
            given["validation_data"] = {
                "arrays": whole,
                "dataset": _dataset(whole),
                "weighted": (x, y, WEIGHTS),
                "in a list": [x, y],
                "PyDataset": Batches(whole),
                "short": (x, keras.tree.map_structure(lambda part: part[:-1], y)),
                "x alone": x,
                "four": (x, y, WEIGHTS, y),
            }[self["validation"]]
        return given | dict(x=ARRAYS[self["x"]](x), y=Y[self["y"]](y), sample_weight=weights)

    def _evaluation(self, x: Any, y: Any, classes: np.ndarray, arguments: dict) -> dict:
        """The rows that are trained on, with their weights."""
        weights = np.ones(ROWS, "float32")
        if self["weights"] in ("rows", "both"):
            weights = weights * WEIGHTS
        elif self["weights"] == "number":
            weights = 2 * weights
        of_classes = arguments.get("class_weight")
        if isinstance(of_classes, dict) and classes.ndim == 1 and self["structure"] == "one":
            labels = np.asarray(y)
            labels = labels.argmax(-1) if labels.ndim == 2 and labels.shape[1] > 1 else labels.reshape(ROWS)
            weights = weights * [of_classes.get(int(label), 1.0) for label in labels]
        parts = (x, y, weights)
        if arguments["validation_split"] and arguments.get("validation_data") is None:
            parts = _rows(parts, slice(int(ROWS * (1 - arguments["validation_split"]))))
        x, y, weights = parts
        size = arguments["batch_size"] if self["x"] in ARRAYS else SIZE
        given = dict(x=x, y=y, batch_size=size)
        return given if self["weights"] in ("none", "no classes") else given | dict(sample_weight=weights)


def problem(case: Case, plain: Run, name: str) -> str | None:
    """Train a case in a way; return what is wrong with it, in one line, or None."""
    way = (WAYS | TRAINERS)[name]
    run = train(case.build, way, raises=False, ahead=case.ahead)
    if plain.error is None and run.error is not None and _refuses(name, run.error):
        return None
    if type(run.error) is not type(plain.error):
        return f"{_error(run)}, where `model.fit` {_error(plain)}"
    messages = added(plain, run)
    if lacks("logits of probabilities") and case["kind"] == "subclassed":
        messages = [message for message in messages if "because no logits were found" not in message]
    if name in REMARKS:
        messages = [message for message in messages if REMARKS[name] not in message]
    if len(messages) > (name != "off"):
        return f"too many warnings: {messages}"
    if plain.error is not None:
        return None
    try:
        if name == "off":
            assert_off(plain, run)
        elif not run.trainer.summary().startswith("Uniform training throughout"):
            _assert_near(plain, run, lambda way: _mean_gap(case, way), way, name not in BIASED)
        else:
            if name not in ("off", "default") and not messages and _could_open(case, plain):
                return f"no importance step and no warning: {run.trainer.summary()}"
            assert all(message.startswith(STAYS_OFF) for message in messages), messages
            assert_trained_alike(plain, run)
        if not case.is_read_once and name not in SHORTER:  # it has fewer steps
            assert _batches_of(run) == _batches_of(plain), (_batches_of(run), _batches_of(plain))
        assert_left_alone(plain, run)
    except AssertionError as error:
        return " ".join(str(error).split())[:600]
    return None


def _refuses(name: str, error: Exception) -> bool:
    """Return True for an error that the documentation of a trainer announces."""
    return name in REFUSALS and isinstance(error, ValueError) and re.search(REFUSALS[name], str(error)) is not None


def _assert_near(plain: Run, run: Run, mean_gap: Callable, way: Any, is_near: bool = True) -> None:
    loss = float(np.mean(run.history["loss"][-1]))
    assert np.isfinite(loss) == np.isfinite(np.mean(plain.history["loss"][-1])), (loss, plain.history["loss"])
    if np.isfinite(loss):
        evaluated = run.evaluate()
        off, near = abs(loss - evaluated), 0.6 * abs(evaluated) + 0.3
        # A single run may be far off by chance, as `model.fit` may be.
        if is_near and off > near + plain.gap and mean_gap(way) > near + mean_gap(None):
            raise AssertionError(f"loss {loss:.3f}, evaluate {evaluated:.3f}, gap of `model.fit` {plain.gap:.3f}")
        assert all(np.isfinite(weight).all() for weight in run.model.get_weights())


def _mean_gap(case: Case, way: Any) -> float:
    """Return how far the loss of the last epoch is from that of the trained model, on average of some seeds."""
    return float(np.mean([train(case.build, way, seed, ahead=case.ahead).gap for seed in range(2, 2 + GAPS)]))


def _could_open(case: Case, plain: Run) -> bool:
    """Return True if there were rows enough for a pool, and steps to take; to Keras, a batch size of 0 is 32."""
    few = case["batch_size"] in ("large", "none", "zero") or case["validation_split"] not in ("none", "no")
    few = few and case["x"] in ARRAYS
    return not few and len(_batches_of(plain)) > 0 and not case.is_read_once


def _batches_of(run: Run) -> list[int]:
    return sorted(run.model.counting.batches)  # Keras calls the hooks of a callback outside a list in threads


def _error(run: Run) -> str:
    if run.error is None:
        return "goes well"
    text = " ".join(str(run.error).split())
    return (
        f"raises {type(run.error).__name__}: {text[:200]} ... {text[-200:]}"
        if len(text) > 400
        else (f"raises {type(run.error).__name__}: {text}")
    )


def problems(case: Case, ways: list[str] | None = None) -> dict[str, str]:
    """Train a case by `model.fit`, and in some ways, by default the one that was drawn; return what is wrong by way."""
    plain = train(case.build, raises=False, ahead=case.ahead)
    found = {name: problem(case, plain, name) for name in ways or [case.way]}
    return {name: text for name, text in found.items() if text is not None}


def kind_of(text: str) -> str:
    """Return what cases that fail in the same way have in common: the first words, without numbers."""
    return " ".join(re.sub(r"\d+(\.\d+)?", "0", text).split()[:4])


def simplest(case: Case, way: str, text: str, find: Callable[..., dict[str, str]] = problems) -> tuple[Case, str]:
    """Make a case simpler while it fails in the same way.

    Args:
        case: that fails.
        way: in which it fails.
        text: what is wrong with it.
        find: returns what is wrong with a case in some ways, by way.

    Returns:
        A case of which no choice can be changed to a simpler value, and what is wrong with that.
    """
    kind, changed = kind_of(text), True
    while changed:
        changed = False
        for name in CHOICES:
            for value in values_of(name):
                if value == case[name]:
                    break
                simpler = Case(case.seed, case.number, case.changes | {name: value})
                if simpler[name] != value or not simpler.is_possible(way):
                    continue
                found = find(simpler, [way]).get(way)
                if found is not None and kind_of(found) == kind:
                    case, text, changed = simpler, found, True
                    break
    return case, text


def parsed(changes: list[str]) -> dict[str, Any]:
    """Return the choices that are written as `name=value`."""
    result = {}
    for change in changes:
        name, _, text = change.partition("=")
        values = {str(value): value for value in values_of(name)} if name in CHOICES else {}
        if text not in values:
            known = f"a value of {name}: {', '.join(values)}" if values else f"a choice: {', '.join(CHOICES)}"
            raise SystemExit(f"--set must be {known}. Received: {change}")
        result[name] = values[text]
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first case (default: 0)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of the processor, after which it ends")
    parser.add_argument("--way", choices=[*WAYS, *TRAINERS], metavar="NAME", help="the only way (default: as drawn)")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="choices in place of those drawn")
    options = parser.parse_args(arguments)
    began, failed, numbers = time.process_time(), [], []
    changes, known, write = parsed(options.set), set(), sys.stdout.write
    try:
        for number in range(options.first, options.first + options.cases):
            if time.process_time() - began > options.seconds:
                break
            case = Case(options.seed, number, changes)
            found = problems(case, [options.way] if options.way else case.ways)
            numbers.append(number)
            if found:
                failed.append(number)
                write(f"{case}\n")
            for way, text in found.items():
                write(f"    {way}: {text}\n    again: {case.command(way)}\n")
                sys.stdout.flush()
                if (way, kind_of(text)) not in known:  # the first of its kind
                    known.add((way, kind_of(text)))
                    small, text = simplest(case, way, text)
                    write(f"    simplest: {small}\n        {text}\n    again: {small.command(way)}\n")
                    sys.stdout.flush()
    except KeyboardInterrupt:
        write("interrupted: ")
    seconds = time.process_time() - began
    write(f"{len(numbers)} cases in {seconds:.0f} s of the processor, {len(failed)} failed: {failed}\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
