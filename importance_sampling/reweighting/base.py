"""The base class of reweighting policies.

A policy computes the weights of a batch in two stages. `sample_weights` returns `weight_size` columns per sample from
the data that are known when the batch is drawn. `final_weights` turns them into one weight per sample, in two of the
policies with the scores that the training step measures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from importance_sampling.utils.numerics import FLOAT, all_usable
from importance_sampling.utils.numerics import probabilities as normalised
from importance_sampling.utils.warn import warn_renamed

if TYPE_CHECKING:
    from importance_sampling.reweighting.weight_layer import WeightLayer


class ReweightingPolicy:
    """The base class of policies.

    A subclass implements `weights`; if it uses measured scores, it implements `_columns`, `uniform_weights` and
    `final_weights` too.

    Attributes:
        unbiased: bool, True if the expected weighted gradient is the full gradient.
        weight_size: int, the number of columns per sample.
    """

    unbiased = False
    weight_size = 1

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "even" in vars(cls):
            warn_renamed(f"{cls.__name__}.even", f"{cls.__name__}.uniform_weights")
            cls.uniform_weights = cls.even

    def weights(self, probabilities: Any, pool_size: int, scores: Any) -> Any:
        """Compute the weights of a batch from the data that are known when it is drawn.

        Args:
            probabilities: float `(batch_size,)`, > 0, the probabilities of the drawn samples.
            pool_size: int, the number of candidates.
            scores: float `(batch_size,)`, the scores of the drawn samples.

        Returns:
            Float `(batch_size,)`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `weights(probabilities, pool_size, scores)`")

    def batch_weights(self, probabilities: np.ndarray, pool_size: int, scores: np.ndarray) -> np.ndarray:
        """Return what `weights` computes, on the host, after a check.

        Args:
            probabilities, pool_size, scores: as for `weights`.

        Returns:
            Float `(batch_size,)`.

        Raises:
            ValueError: it isn't a finite weight of at least 0 for each sample.
        """
        weights = np.asarray(self.weights(probabilities, pool_size, scores))
        if weights.shape != probabilities.shape or not all_usable(weights):
            raise ValueError(
                f"`weights` of {type(self).__name__} must return a finite weight of at least 0 for each of the "
                f"{len(probabilities)} drawn samples. Received: {weights!r}"
            )
        return weights

    def sample_weights(self, positions: Any, scores: Any, probabilities: Any = None) -> np.ndarray:
        """Compute the weight columns of a batch that was drawn from a pool, on the host.

        Args:
            positions: int `(batch_size,)`, positions in the pool.
            scores: float `(pool_size,)`, >= 0, the scores of the whole pool; unnormalised or normalised.
            probabilities: float `(pool_size,)`, the probabilities that the batch was drawn with. None (default): the
                normalised scores.

        Returns:
            float32 `(batch_size, weight_size)`.

        Raises:
            ValueError: a position has a probability of zero.
        """
        positions, scores = np.asarray(positions), np.asarray(scores, "float64")
        p = np.asarray(normalised(scores, alpha=0.0) if probabilities is None else probabilities)[positions]
        if not (p > 0).all():
            raise ValueError(
                "`positions` must be of samples that can be drawn, with a score above 0. "
                f"Received: positions={positions!r}, with scores {scores[positions]!r}"
            )
        return self._columns(positions, scores, p).astype("float32")

    def uniform_weights(self, batch_size: int) -> np.ndarray:
        """Return the weight columns of a uniform batch. Its final weights are 1 for all measured scores.

        Args:
            batch_size: int.

        Returns:
            float32 `(batch_size, weight_size)`.
        """
        return np.ones((batch_size, self.weight_size), "float32")

    def even(self, batch_size: int) -> np.ndarray:
        """Deprecated name of `uniform_weights`."""
        warn_renamed("ReweightingPolicy.even", "ReweightingPolicy.uniform_weights")
        return self.uniform_weights(batch_size)

    def final_weights(self, columns: Any, measured: Any) -> Any:
        """Compute the final weights from the columns and the measured scores.

        Args:
            columns: float `(batch_size, weight_size)`, as returned by `sample_weights`.
            measured: float `(batch_size,)`, the scores that the training step measured.

        Returns:
            Float `(batch_size,)`.
        """
        return columns[:, 0]

    def weight_layer(self) -> WeightLayer:
        """Return `final_weights` as a Keras layer with the inputs `[columns, measured]`."""
        from importance_sampling.reweighting.weight_layer import WeightLayer  # here, because it needs Keras

        return WeightLayer(self, dtype=FLOAT)

    def get_config(self) -> dict:
        """Return the constructor's arguments, for Keras's serialisation."""
        return {}

    @classmethod
    def from_config(cls, config: dict) -> ReweightingPolicy:
        """Create a policy from the constructor's arguments."""
        return cls(**config)

    def _columns(self, positions: np.ndarray, scores: np.ndarray, p: np.ndarray) -> np.ndarray:
        """Compute the weight columns of a batch.

        Args:
            positions: int `(batch_size,)`, positions in the pool.
            scores: float64 `(pool_size,)`.
            p: float `(batch_size,)`, the probabilities of the drawn samples.

        Returns:
            Float `(batch_size, weight_size)`.
        """
        return self.batch_weights(p, scores.size, scores[positions])[:, None]


def check_policy(**values: Any) -> None:
    """Check that arguments, passed by name, are policies.

    Raises:
        ValueError: one of them isn't.
    """
    for name, value in values.items():
        if not isinstance(value, ReweightingPolicy):
            raise ValueError(
                f"`{name}` must be a policy, such as `reweighting.UNBIASED`. "
                f"Received: {name}={value!r} (of type {type(value)})"
            )
