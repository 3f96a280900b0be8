"""What is trained on and what is tested on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from importance_sampling import backend
from importance_sampling.datasets import BaseDataset
from importance_sampling.fronts import arrays_of
from importance_sampling.sources.stores import is_store

MOST = 2**30  # bytes of x that are read whole
TEST_ROWS = 20000


class Data(NamedTuple):
    """Arrays whose first axis is the row; x_train and y_train may be such that are read as rows are asked for."""

    x_train: Any
    y_train: Any
    x_test: Any
    y_test: Any

    @classmethod
    def of(cls, dataset: BaseDataset) -> Data:
        """The rows of a data set: of the test rows the first 20,000; training rows whole up to 1 GB, else as asked for.

        Example:
            >>> Data.of(CanevetICML2016(N=64)).x_train.shape
            (2745, 2)
        """
        train = arrays_of(dataset.train_data)
        if np.prod(train[0].shape) * train[0].dtype.itemsize <= MOST:
            train = dataset.train_data[:]
        return cls(*train, *dataset.test_data[:TEST_ROWS])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row of x."""
        return tuple(self.x_train.shape[1:])

    @property
    def output_size(self) -> int:
        """The columns of y."""
        return int(self.y_train.shape[-1])

    @property
    def in_memory(self) -> bool:
        """Whether training rows are in memory."""
        return not is_store(self.x_train)

    def resident(self) -> Data:
        """The same as tensors, so that everybody who trains on them shares one copy; what isn't in memory stays so."""
        return Data(*(part if is_store(part) else backend.resident(part) for part in self))

    def first(self, rows: int) -> Data:
        """The first so many rows of either set."""
        return Data(*(part[:rows] for part in self))

    def thinned(self, most: Mapping[int, int]) -> Data:
        """The same with some classes made rare in training: the test set stays whole.

        Args:
            most: from a class to how many of its training rows stay, the first ones. y must be one-hot.
        """
        labels = np.asarray(self.y_train).argmax(axis=1)
        kept = np.ones(len(labels), bool)
        for label, rows in most.items():
            kept[np.flatnonzero(labels == label)[rows:]] = False
        return Data(self.x_train[kept], self.y_train[kept], self.x_test, self.y_test)
