"""The baselines of skipping, with as many steps: samples skipped at random, and uniform training with fewer epochs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import schedules

from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import SkippingSampler
from importance_sampling.training import SkippingTraining


class RandomSkipping(SkippingTraining):
    """Skip samples at random: all samples of an epoch have the same inclusion probability.

    Args:
        model: compiled `keras.Model`.
        shares: float `(epochs,)`, in (0, 1], the shares of the samples that the epochs have.
        seed: int.
    """

    def __init__(self, model: keras.Model, shares: Sequence[float], seed: int = 0):
        super().__init__(model, full_epochs=0.0, seed=seed)
        self.shares = shares

    def _make_sampler(self, rows: Any) -> SkippingSampler:
        return RandomSampler(rows, self.shares, self._state.seed)


class RandomSampler(SkippingSampler):
    """Include every sample of an epoch with the same probability.

    Args:
        dataset: has `train_data`.
        shares: float `(epochs,)`, the probabilities, which are raised to make whole batches.
        seed: int.
    """

    def __init__(self, dataset: Any, shares: Sequence[float], seed: int):
        super().__init__(dataset, UNBIASED, seed=seed)
        self._shares = iter(shares)

    def inclusion_probabilities(self, losses: np.ndarray) -> np.ndarray:
        """Return the probability of the next epoch for every sample."""
        return np.full(len(losses), next(self._shares))


class Compressed(keras.callbacks.Callback):
    """Ends training after a number of steps, over which the learning-rate schedule is compressed.

    Args:
        steps: int, the number of steps.
        epochs: int, the epochs of the schedule.
        schedule: function from the epoch to the learning rate.
    """

    def __init__(self, steps: int, epochs: int, schedule: Callable[[int], float]):
        super().__init__()
        self.steps, self.epochs, self.schedule = steps, epochs, schedule
        self._taken = 0

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Set the learning rate."""
        self.model.optimizer.learning_rate = self.schedule(self._taken * self.epochs // self.steps)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Count the step, and stop after the last one."""
        self._taken += 1
        if self._taken == self.steps:
            self.model.stop_training = True


def cosine(rate: float, epochs: int) -> Callable[[int], float]:
    """Return the learning rate as a function of the epoch: it decays from `rate` along a cosine.

    Example:
        >>> [round(cosine(1.0, 4)(epoch), 3) for epoch in range(4)]
        [1.0, 0.854, 0.5, 0.146]
    """
    return lambda epoch: rate * schedules.cosine(epoch / epochs)
