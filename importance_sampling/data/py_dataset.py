"""Read a `keras.utils.PyDataset` twice at the same time: by Keras, and for candidates.

Keras reads the batches in its order and calls the hooks of the dataset. The second reading uses another order and calls
no hooks. Both use Keras's own workers and processes.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import keras
import numpy as np


class LockedDataset(keras.utils.PyDataset):
    """A dataset whose batches are read one at a time, although two threads read it.

    Args:
        dataset: the user's dataset, without workers.
        lock: held while a batch is read.
    """

    def __init__(self, dataset: keras.utils.PyDataset, lock: threading.Lock):
        super().__init__()
        self.dataset = dataset
        self.lock = lock

    @property
    def num_batches(self) -> int:
        return self.dataset.num_batches

    def __getitem__(self, index: int) -> Any:
        with self.lock:
            return self.dataset[index]

    def on_epoch_begin(self) -> None:
        self.dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.dataset.on_epoch_end()


class ShuffledBatches(keras.utils.PyDataset):
    """The batches of a finite dataset, repeated without end and shuffled differently in every epoch.

    Args:
        dataset: the user's dataset.
        seed: int, determines the orders; global generators are not used.
        lock: held while a batch is read; None if the dataset can be read by several threads.
    """

    def __init__(self, dataset: keras.utils.PyDataset, seed: int, lock: threading.Lock | None):
        super().__init__(dataset.workers, dataset.use_multiprocessing, dataset.max_queue_size)
        self.dataset = dataset
        self.seed = seed
        self.lock = lock

    @property
    def num_batches(self) -> None:
        return None

    def __getitem__(self, index: int) -> Any:
        epoch, position = divmod(index, self.dataset.num_batches)
        order = np.random.default_rng((self.seed, epoch)).permutation(self.dataset.num_batches)
        with self.lock or contextlib.nullcontext():
            return self.dataset[int(order[position])]


def is_finite(dataset: keras.utils.PyDataset) -> bool:
    """Return True if a dataset has a known number of batches."""
    try:
        return dataset.num_batches is not None
    except NotImplementedError:
        return False


def has_workers(dataset: keras.utils.PyDataset) -> bool:
    """Return True if Keras reads several batches of the dataset at the same time."""
    return dataset.workers > 1 or (dataset.workers > 0 and dataset.use_multiprocessing)
