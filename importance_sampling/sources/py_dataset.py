"""`keras.utils.PyDataset`s, read by Keras and a second time for candidates.

Keras reads its own, in its order, and calls the hooks of it as ever; the second reading goes through the batches in an
order of its own and calls no hook. Both go through Keras's own machinery of workers and processes.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import keras
import numpy as np


class OneAtATime(keras.utils.PyDataset):
    """A dataset whose batches are read one at a time, though it is read twice: it needn't be safe for threads.

    Args:
        dataset: the user's, one without workers.
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


class Shuffled(keras.utils.PyDataset):
    """The batches of a finite dataset, pass after pass without end, every pass in another order.

    Args:
        dataset: the user's.
        seed: int, of the orders; no global generator is touched.
        lock: held while a batch is read; None where it is safe not to.
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
        number, place = divmod(index, self.dataset.num_batches)
        order = np.random.default_rng((self.seed, number)).permutation(self.dataset.num_batches)
        with self.lock or contextlib.nullcontext():
            return self.dataset[int(order[place])]


def is_finite(dataset: keras.utils.PyDataset) -> bool:
    """Whether a dataset has a last batch, and says so."""
    try:
        return dataset.num_batches is not None
    except NotImplementedError:
        return False


def has_workers(dataset: keras.utils.PyDataset) -> bool:
    """Whether Keras reads several batches of it at a time."""
    return dataset.workers > 1 or (dataset.workers > 0 and dataset.use_multiprocessing)
