"""The base class of all datasets, and the views that index their samples.

A subclass of `BaseDataset` implements four methods and two properties. The views `train_data` and `test_data` accept
every index that NumPy accepts on the first axis. They convert it to a forward slice or to an array of non-negative
ints within range, so subclasses handle only these two kinds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import keras
import numpy as np


class Rows:
    """A view that indexes samples: `rows[3]`, `rows[-1]`, `rows[10:20]`, `rows[[4, 4, 1]]`, `rows[mask]`, `len(rows)`.

    An int returns one sample without the batch axis. All other indices return arrays with a batch axis.

    Args:
        read: function of a forward slice or an int array, both within range, that returns `(x, y)`.
        size: function without arguments that returns the number of samples.
    """

    def __init__(self, read: Callable, size: Callable):
        self._read = read
        self._size = size

    def __len__(self) -> int:
        return int(self._size())

    def __getitem__(self, idxs: Any) -> tuple:
        """Return samples as `(x, y)`.

        Args:
            idxs: int, slice, one-dimensional int array, or bool array with one entry per sample. Negative indices
                count from the end.

        Raises:
            IndexError: an index is out of range or of the wrong type.
        """
        size = len(self)
        if isinstance(idxs, slice):
            start, stop, step = idxs.indices(size)
            if step < 0:
                return self._read(np.arange(start, stop, step))
            return self._read(slice(start, max(start, stop), step))
        indices = np.asarray(idxs)
        if indices.dtype == bool and indices.shape == (size,):
            return self._read(np.flatnonzero(indices))
        if indices.ndim == 1 and indices.size == 0:
            return self._read(np.zeros(0, "int64"))
        if indices.ndim > 1 or indices.dtype.kind not in "iu":
            raise IndexError(
                "Index samples with an int, a slice, a one-dimensional int array, or a bool array with one entry per "
                f"sample. Received: idxs of dtype {indices.dtype} and shape {indices.shape}"
            )
        indices = indices.astype("int64")
        if ((indices < -size) | (indices >= size)).any():
            raise IndexError(
                f"Indices must be in [-{size}, {size}). Received: idxs in [{indices.min()}, {indices.max()}]"
            )
        indices = np.where(indices < 0, indices + size, indices)
        if indices.ndim == 0:
            return keras.tree.map_structure(lambda rows: rows[0], self._read(indices[None]))
        return self._read(indices)


class BaseDataset(ABC):
    """The base class of datasets: implement four methods and two properties to get `train_data` and `test_data`.

    Example:
        >>> class Squares(BaseDataset):
        ...     x = np.arange(10.0)[:, None]
        ...     def _train_data(self, idxs): return self.x[:8][idxs], self.x[:8][idxs] ** 2
        ...     def _train_size(self): return 8
        ...     def _test_data(self, idxs): return self.x[8:][idxs], self.x[8:][idxs] ** 2
        ...     def _test_size(self): return 2
        ...     shape, output_size = (1,), 1
        >>> dset = Squares()
        >>> x, y = dset.train_data[[3, -1]]
        >>> y.tolist()
        [[9.0], [49.0]]
        >>> len(dset.train_data), len(dset.test_data)
        (8, 2)
    """

    @abstractmethod
    def _train_data(self, idxs: np.ndarray | slice) -> tuple:
        """Return training samples.

        Args:
            idxs: int array `(n,)` or forward slice, within range and never negative.

        Returns:
            `(x, y)`, each `(n, ...)`.
        """

    @abstractmethod
    def _train_size(self) -> int:
        """Return the number of training samples."""

    @abstractmethod
    def _test_data(self, idxs: np.ndarray | slice) -> tuple:
        """Return test samples; the same interface as `_train_data`."""

    @abstractmethod
    def _test_size(self) -> int:
        """Return the number of test samples."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample of x."""

    @property
    @abstractmethod
    def output_size(self) -> int:
        """The number of outputs that a model needs for this dataset: the number of classes or of columns of y."""

    @property
    def train_data(self) -> Any:
        """The training set, as `Rows`."""
        return Rows(self._train_data, self._train_size)

    @property
    def test_data(self) -> Any:
        """The test set, as `Rows`."""
        return Rows(self._test_data, self._test_size)


def check_dataset(dataset: Any) -> None:
    """Raise a ValueError if `dataset` isn't a `BaseDataset`."""
    if not isinstance(dataset, BaseDataset):
        raise ValueError(f"`dataset` must be a `BaseDataset`. Received: dataset={dataset!r} (of type {type(dataset)})")
