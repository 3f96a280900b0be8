"""What a dataset is: six things to fill in, and two views that turn any index into one of two kinds.

A dataset reads rows; it doesn't shuffle, batch or draw. Views take what NumPy takes on the first axis, so that a
dataset itself is only ever asked for a forward slice or an array of non-negative ints, both within range.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import keras
import numpy as np


class Rows:
    """Rows of a dataset by index: `rows[3]`, `rows[-1]`, `rows[10:20]`, `rows[[4, 4, 1]]`, `rows[mask]`, `len(rows)`.

    An int gives one row without the axis of rows; everything else gives arrays with it.

    Args:
        read: from a forward slice or an int array, within range, to `(x, y)`.
        size: from nothing to the number of rows.
    """

    def __init__(self, read: Callable, size: Callable):
        self._read = read
        self._size = size

    def __len__(self) -> int:
        return int(self._size())

    def __getitem__(self, idxs: Any) -> tuple:
        """Rows as `(x, y)`.

        Args:
            idxs: int, slice, array of ints of one axis, or bool array with one entry a row. Negative: from the end.

        Raises:
            IndexError: an index is out of range, or isn't one.
        """
        size = len(self)
        if isinstance(idxs, slice):
            start, stop, step = idxs.indices(size)
            if step < 0:
                return self._read(np.arange(start, stop, step))
            return self._read(slice(start, max(start, stop), step))
        places = np.asarray(idxs)
        if places.dtype == bool and places.shape == (size,):
            return self._read(np.flatnonzero(places))
        if places.ndim == 1 and places.size == 0:
            return self._read(np.zeros(0, "int64"))
        if places.ndim > 1 or places.dtype.kind not in "iu":
            raise IndexError(
                "Rows are asked for by an int, a slice, ints of one axis, or a bool for each row. "
                f"Received: idxs of dtype {places.dtype} and shape {places.shape}"
            )
        places = places.astype("int64")
        if ((places < -size) | (places >= size)).any():
            raise IndexError(
                f"Indices must be in [-{size}, {size}). Received: idxs in [{places.min()}, {places.max()}]"
            )
        places = np.where(places < 0, places + size, places)
        if places.ndim == 0:
            return keras.tree.map_structure(lambda rows: rows[0], self._read(places[None]))
        return self._read(places)


class BaseDataset(ABC):
    """A dataset to fill in: four methods and two properties; `train_data` and `test_data` come of them.

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
        """Training rows.

        Args:
            idxs: int array `(n,)` or a forward slice; within range, never negative.

        Returns:
            `(x, y)`, each `(n, ...)`.
        """

    @abstractmethod
    def _train_size(self) -> int:
        """Number of training rows."""

    @abstractmethod
    def _test_data(self, idxs: np.ndarray | slice) -> tuple:
        """Test rows; as `_train_data`."""

    @abstractmethod
    def _test_size(self) -> int:
        """Number of test rows."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of one row of x."""

    @property
    @abstractmethod
    def output_size(self) -> int:
        """How many outputs a model of these data has: the number of classes, or of columns of y."""

    @property
    def train_data(self) -> Any:
        """`Rows` of the training set."""
        return Rows(self._train_data, self._train_size)

    @property
    def test_data(self) -> Any:
        """`Rows` of the test set."""
        return Rows(self._test_data, self._test_size)


def check_dataset(dataset: Any) -> None:
    """Raise unless it is a `BaseDataset`."""
    if not isinstance(dataset, BaseDataset):
        raise ValueError(f"`dataset` must be a `BaseDataset`. Received: dataset={dataset!r} (of type {type(dataset)})")


def is_int(value: Any) -> bool:
    """Whether a value is a whole number and not a bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    """Whether a value is a number, and neither a bool nor NaN."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) and value == value
