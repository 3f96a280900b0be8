"""A small recurrent network that predicts a sample's next score from its last ones and its class.

Source: [KF17] (arXiv 1706.00043), section 3.2. It doesn't draw, and it never sees a sample itself.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import layers, ops

UNITS = 32
LEAST = 1e-6
MOST = 80.0  # for an exponent
STEEPEST = math.log(100.0)


class ScorePredictor:
    """Two LSTM(32) over the last scores and a 32-wide embedding of the class, joined into a number z by a linear layer.

    Scores go in as logarithms, and exp(z) comes out. Trained by Adam on s exp(-z) + z, whose least is at the mean of
    the scores s to be expected, and which weighs errors by their ratio: where scores span magnitudes a square error is
    that of the few largest alone, and leaves the others in no order. It uses its own generators only, and each of its
    functions is traced once for a number of rows.

    Args:
        history: int, how many last scores.
        classes: int, how many classes.
        log: bool; whether it is trained on (z - log s)^2 instead, whose least is at the geometric mean.
        seed: int, of its weights.
    """

    def __init__(self, history: int, classes: int, log: bool, seed: int):
        self.model = _network(history, classes, seed)
        # Compiled once, for shapes that stay; XLA would take longer to compile it than it ever saves.
        optimizer = keras.optimizers.Adam(name="score_predictor_adam")
        self.model.compile(optimizer, "mse" if log else deviance, jit_compile=False)
        self.model.optimizer.build(self.model.trainable_variables)

    def predict(self, histories: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """The next scores.

        Args:
            histories: float32 `(n, history)`, the last score last; 0 where there is none.
            classes: int32 `(n,)`.

        Returns:
            float64 `(n,)`, at least 1e-6.
        """
        predicted = np.asarray(self.model.predict_on_batch(self._inputs(histories, classes)), "float64")[:, 0]
        return np.maximum(np.exp(np.minimum(predicted, MOST)), LEAST)

    def train(self, histories: np.ndarray, classes: np.ndarray, scores: np.ndarray) -> None:
        """A gradient step towards `scores`, float `(n,)`; what isn't finite or is negative is passed over."""
        usable = np.isfinite(scores) & (scores >= 0)
        targets = logarithms(np.where(usable, scores, 0.0)).astype("float32")[:, None]
        # Weighed by zero in place of left out: the shapes stay.
        self.model.train_on_batch(self._inputs(histories, classes), targets, usable.astype("float32"))

    def state(self) -> dict[str, np.ndarray]:
        """Weights, and the optimizer's variables."""
        return {name: keras.ops.convert_to_numpy(variable).copy() for name, variable in self._variables()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `state` returned."""
        for name, variable in self._variables():
            variable.assign(state[name])

    def _variables(self) -> list[tuple[str, keras.Variable]]:
        variables = [*self.model.weights, *self.model.optimizer.variables]
        return [(str(number), variable) for number, variable in enumerate(variables)]

    def _inputs(self, histories: np.ndarray, classes: np.ndarray) -> list[np.ndarray]:
        seen = histories > 0
        return [np.where(seen, logarithms(histories), 0.0).astype("float32")[:, :, None], classes]


def deviance(logarithm: Any, z: Any) -> Any:
    """s exp(-z) + z, by row, of log s: what a gamma law of mean exp(z) makes of s, but for what doesn't depend on z.

    Where s is more than 100 times the mean it goes on as a straight line, or one such score would undo what was learnt.
    """
    above = logarithm - z
    ratio = ops.exp(ops.minimum(above, STEEPEST))
    return ops.mean(ratio * (1.0 + ops.maximum(above - STEEPEST, 0.0)) + z, axis=-1)


def logarithms(scores: np.ndarray) -> np.ndarray:
    """Of scores, where they are at least 1e-6."""
    return np.log(np.maximum(scores, LEAST))


def _network(history: int, classes: int, seed: int) -> keras.Model:
    """The network, every random number of it from `seed`."""
    seeds = iter(np.random.default_rng((seed, 2)).integers(2**31, size=8).tolist())

    def lstm(name: str, **options: bool) -> layers.LSTM:
        return layers.LSTM(
            UNITS,
            kernel_initializer=keras.initializers.GlorotUniform(next(seeds)),
            recurrent_initializer=keras.initializers.Orthogonal(seed=next(seeds)),
            seed=next(seeds),
            name=name,
            dtype="float32",
            **options,
        )

    scores = keras.Input((history, 1), name="scores", dtype="float32")
    label = keras.Input((), name="label", dtype="int32")
    embedding = layers.Embedding(
        classes,
        UNITS,
        embeddings_initializer=keras.initializers.RandomUniform(-0.05, 0.05, seed=next(seeds)),
        name="class_embedding",
        dtype="float32",
    )
    past = lstm("second_lstm")(lstm("first_lstm", return_sequences=True)(scores))
    joined = layers.Concatenate(name="joined", dtype="float32")([past, embedding(label)])
    head = layers.Dense(
        1, kernel_initializer=keras.initializers.GlorotUniform(next(seeds)), name="next_score", dtype="float32"
    )
    return keras.Model([scores, label], head(joined), name="score_predictor")
