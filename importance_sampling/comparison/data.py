"""Training and test data of a comparison."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from importance_sampling import backend
from importance_sampling.data.lazy_arrays import is_lazy
from importance_sampling.datasets import BaseDataset
from importance_sampling.datasets.rows_as_arrays import lazy_arrays

MAX_BYTES = 2**30  # of x; larger training sets aren't loaded into memory
TEST_ROWS = 20000


class Data(NamedTuple):
    """Arrays of training and test samples. x_train and y_train can be lazily read arrays."""

    x_train: Any
    y_train: Any
    x_test: Any
    y_test: Any

    @classmethod
    def of(cls, dataset: BaseDataset) -> Data:
        """Return the samples of a dataset.

        Training samples are loaded into memory up to 1 GiB of x; a larger training set is read lazily. At most the
        first 20,000 test samples are used.

        Example:
            >>> Data.of(CanevetICML2016(N=64)).x_train.shape
            (2745, 2)
        """
        train = lazy_arrays(dataset.train_data)
        if np.prod(train[0].shape) * train[0].dtype.itemsize <= MAX_BYTES:
            train = dataset.train_data[:]
        return cls(*train, *dataset.test_data[:TEST_ROWS])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample of x."""
        return tuple(self.x_train.shape[1:])

    @property
    def output_size(self) -> int:
        """The number of columns of y."""
        return int(self.y_train.shape[-1])

    @property
    def in_memory(self) -> bool:
        """True if the training samples are in memory."""
        return not is_lazy(self.x_train)

    def as_tensors(self) -> Data:
        """Return the data as tensors, which several models can share. Lazily read arrays are unchanged."""
        return Data(*(part if is_lazy(part) else backend.to_fit_array(part) for part in self))

    def resident(self) -> Data:
        """Deprecated: use `as_tensors`."""
        warnings.warn("`Data.resident` is deprecated: use `Data.as_tensors`.", DeprecationWarning, stacklevel=2)
        return self.as_tensors()

    def first(self, rows: int) -> Data:
        """Return the first `rows` samples of both sets."""
        return Data(*(part[:rows] for part in self))

    def thinned(self, most: Mapping[int, int]) -> Data:
        """Reduce the training samples of some classes. The test set is unchanged.

        Args:
            most: mapping from a class to its maximum number of training samples; the first ones are kept. y must be
                one-hot.
        """
        labels = np.asarray(self.y_train).argmax(axis=1)
        selected = np.ones(len(labels), bool)
        for label, rows in most.items():
            selected[np.flatnonzero(labels == label)[rows:]] = False
        return Data(self.x_train[selected], self.y_train[selected], self.x_test, self.y_test)
