"""A small recurrent network that predicts a sample's next score from its last scores and its class.

Source: [KF17] (arXiv 1706.00043), section 3.2, for the network. The loss is this library's own.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import layers, ops

UNITS = 32
MIN_SCORE = 1e-6
MAX_LOG_SCORE = 80.0  # limits predictions to the range of float32
MAX_LOG_RATIO = math.log(100.0)


class ScorePredictor:
    """Two LSTM(32) layers over the last scores and a class embedding of width 32, joined by a linear layer.

    The network receives logarithms of scores, and its output z is the logarithm of the predicted score. Adam minimises
    s exp(-z) + z, see `gamma_deviance`, whose minimum is at the mean of the next score s, and which depends on the
    ratio of s to the prediction. (The squared error of scores that span orders of magnitude depends on the largest ones
    only.) The network uses its own random generators, and each of its functions is traced once per batch size.

    Args:
        history: int, the number of last scores.
        classes: int, the number of classes.
        log: bool. True: minimise (z - log s)^2, whose minimum is at the geometric mean of s.
        seed: int, of the initial weights.
    """

    def __init__(self, history: int, classes: int, log: bool, seed: int):
        from importance_sampling import backend  # here, so that samplers are imported without a backend

        self.model = _network(history, classes, seed)
        optimizer = keras.optimizers.Adam(name="score_predictor_adam")
        self.model.compile(optimizer, "mse" if log else gamma_deviance, jit_compile=backend.JIT_COMPILE_SMALL)
        self.model.optimizer.build(self.model.trainable_variables)

    def predict(self, histories: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Predict the next scores.

        Args:
            histories: float32 `(n, history)`, the latest score last; 0 where there is no score.
            classes: int32 `(n,)`.

        Returns:
            float64 `(n,)`, at least 1e-6.
        """
        predicted = np.asarray(self.model.predict_on_batch(self._inputs(histories, classes)), "float64")[:, 0]
        return np.maximum(np.exp(np.minimum(predicted, MAX_LOG_SCORE)), MIN_SCORE)

    def train(self, histories: np.ndarray, classes: np.ndarray, scores: np.ndarray) -> None:
        """Take a gradient step.

        Args:
            histories, classes: as for `predict`.
            scores: float `(n,)`, the measured scores. Negative and non-finite ones are ignored.
        """
        usable = np.isfinite(scores) & (scores >= 0)
        targets = log_scores(np.where(usable, scores, 0.0)).astype("float32")[:, None]
        # Unusable scores get a weight of zero instead of being removed, so that the batch size is constant.
        self.model.train_on_batch(self._inputs(histories, classes), targets, usable.astype("float32"))

    def state(self) -> dict[str, np.ndarray]:
        """Return the weights and the variables of the optimizer."""
        return {name: keras.ops.convert_to_numpy(variable).copy() for name, variable in self._variables()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Set the variables to those that `state` returned."""
        for name, variable in self._variables():
            variable.assign(state[name])

    def _variables(self) -> list[tuple[str, keras.Variable]]:
        variables = [*self.model.weights, *self.model.optimizer.variables]
        return [(str(number), variable) for number, variable in enumerate(variables)]

    def _inputs(self, histories: np.ndarray, classes: np.ndarray) -> list[np.ndarray]:
        known = histories > 0
        return [np.where(known, log_scores(histories), 0.0).astype("float32")[:, :, None], classes]


def gamma_deviance(log_score: Any, z: Any) -> Any:
    """Compute s exp(-z) + z: the negative log-likelihood of a gamma distribution with mean exp(z), up to constants.

    The loss is linear for s > 100 exp(z), so that a single very high score cannot undo the training.

    Args:
        log_score: float `(batch, 1)`, log s.
        z: float `(batch, 1)`, the logarithm of the prediction.

    Returns:
        Float `(batch,)`.
    """
    log_ratio = log_score - z
    ratio = ops.exp(ops.minimum(log_ratio, MAX_LOG_RATIO))
    return ops.mean(ratio * (1.0 + ops.maximum(log_ratio - MAX_LOG_RATIO, 0.0)) + z, axis=-1)


def log_scores(scores: np.ndarray) -> np.ndarray:
    """Return the logarithms of scores, with a lower limit of 1e-6 on the scores."""
    return np.log(np.maximum(scores, MIN_SCORE))


def _network(history: int, classes: int, seed: int) -> keras.Model:
    """Build the network. All its random numbers derive from `seed`."""
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
