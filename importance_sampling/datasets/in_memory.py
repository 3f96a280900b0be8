"""Datasets of in-memory arrays.

Labels are converted to one-hot vectors on construction. Images keep their dtype and are converted to floats when they
are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from importance_sampling.datasets.base import BaseDataset


class Loadable(Protocol):
    """The argument type of `from_loadable`: a module or object with `load_data()`, such as `keras.datasets.mnist`."""

    def load_data(self) -> tuple: ...


class InMemoryDataset(BaseDataset):
    """A dataset of in-memory arrays.

    Args:
        X_train: array `(rows, ...)`.
        y_train: array `(rows, ...)`; with `categorical=True`, int labels >= 0, `(rows,)` or `(rows, 1)`.
        X_test: array `(test rows, ...)`, with the same sample shape as `X_train`.
        y_test: array, as `y_train`.
        categorical: bool, default True. If True, labels are converted to one-hot float32 `(rows, classes)`, where
            `classes` is one more than the largest label of both sets, and `output_size` is `classes`. If False, y is
            unchanged, and `output_size` is the size of its last axis, or 1 if it has one axis.

    Raises:
        ValueError: the numbers of rows or the shapes don't match, or the labels are invalid.

    Example:
        >>> x, y = np.eye(4), np.array([0, 1, 2, 1])
        >>> dset = InMemoryDataset(x, y, x[:2], y[:2])
        >>> dset.output_size
        3
        >>> dset.train_data[-1][1].tolist()
        [0.0, 1.0, 0.0]
    """

    def __init__(self, X_train: Any, y_train: Any, X_test: Any, y_test: Any, categorical: bool = True):
        self._train = (np.asarray(X_train), np.asarray(y_train))
        self._test = (np.asarray(X_test), np.asarray(y_test))
        for name, (x, y) in (("train", self._train), ("test", self._test)):
            if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
                raise ValueError(
                    f"`X_{name}` and `y_{name}` must have the same number of rows. "
                    f"Received: X_{name} of shape {x.shape}, y_{name} of shape {y.shape}"
                )
        if self._train[0].shape[1:] != self._test[0].shape[1:]:
            raise ValueError(
                "`X_train` and `X_test` must have the same sample shape. "
                f"Received: X_train of shape {self._train[0].shape}, X_test of shape {self._test[0].shape}"
            )
        if categorical:
            labels = [_labels(name, y) for name, (_, y) in (("y_train", self._train), ("y_test", self._test))]
            classes = 1 + max((int(part.max()) for part in labels if len(part)), default=0)
            self._train = (self._train[0], one_hot(labels[0], classes))
            self._test = (self._test[0], one_hot(labels[1], classes))

    @classmethod
    def from_loadable(cls, loadable: Loadable, **kw: Any) -> InMemoryDataset:
        """Create a dataset from the result of `loadable.load_data()`.

        Args:
            loadable: module or object with `load_data()` that returns `((x_train, y_train), (x_test, y_test))`.
            **kw: further arguments of the class.

        Raises:
            ValueError: `loadable` has no `load_data`.
        """
        return cls(*load(loadable), **kw)

    def _train_data(self, idxs: np.ndarray | slice) -> tuple:
        return self._train[0][idxs], self._train[1][idxs]

    def _train_size(self) -> int:
        return len(self._train[0])

    def _test_data(self, idxs: np.ndarray | slice) -> tuple:
        return self._test[0][idxs], self._test[1][idxs]

    def _test_size(self) -> int:
        return len(self._test[0])

    @property
    def shape(self) -> tuple[int, ...]:
        return self._train[0].shape[1:]

    @property
    def output_size(self) -> int:
        y = self._train[1]
        return int(y.shape[-1]) if y.ndim > 1 else 1


class InMemoryImageDataset(InMemoryDataset):
    """A dataset of images that are returned as float32 in [0, 1], channels last.

    Images are stored in their original dtype: uint8 images take a quarter of the memory of float32 images.

    Args:
        X_train: array `(rows, height, width)` or `(rows, height, width, channels)`; ints in [0, 255] or floats in
            [0, 1]. A missing channel axis is added.
        y_train: as for `InMemoryDataset`.
        X_test: as `X_train`.
        y_test: as `y_train`.
        categorical: bool, default True; as for `InMemoryDataset`.

    Raises:
        ValueError: as for `InMemoryDataset`, or the arrays aren't images, or their values are out of range.

    Example:
        >>> x = np.full((3, 2, 2), 51, "uint8")
        >>> dset = InMemoryImageDataset(x, np.array([0, 1, 1]), x[:1], np.array([0]))
        >>> dset.shape
        (2, 2, 1)
        >>> round(float(dset.train_data[0][0].max()), 3)
        0.2
    """

    def __init__(self, X_train: Any, y_train: Any, X_test: Any, y_test: Any, categorical: bool = True):
        super().__init__(
            _images("X_train", X_train), y_train, _images("X_test", X_test), y_test, categorical=categorical
        )

    def _train_data(self, idxs: np.ndarray | slice) -> tuple:
        x, y = super()._train_data(idxs)
        return _unit_floats(x), y

    def _test_data(self, idxs: np.ndarray | slice) -> tuple:
        x, y = super()._test_data(idxs)
        return _unit_floats(x), y


def load(loadable: Loadable, path: str | Path | None = None) -> tuple:
    """Load the four arrays of a dataset from a loadable or from an npz file.

    Args:
        loadable: module or object with `load_data()`; used if `path` is None.
        path: None (default), or an npz file with x_train, y_train, x_test and y_test.

    Returns:
        `(x_train, y_train, x_test, y_test)`.

    Raises:
        ValueError: `path` isn't such a file, or `loadable` has no `load_data`.
    """
    if path is not None:
        if not Path(path).is_file():
            raise ValueError(
                "`path` must be an npz file with x_train, y_train, x_test and y_test, or None to download the dataset "
                f"with Keras. Received: path={str(path)!r}, which isn't a file"
            )
        with np.load(path) as data:
            names = ("x_train", "y_train", "x_test", "y_test")
            if missing := [name for name in names if name not in data]:
                raise ValueError(
                    f"`path` must be an npz file with {', '.join(names)}; {', '.join(missing)} missing. "
                    f"Received: path={str(path)!r}"
                )
            return tuple(data[name] for name in names)
    if not callable(getattr(loadable, "load_data", None)):
        raise ValueError(
            "`loadable` must have `load_data()` that returns ((x_train, y_train), (x_test, y_test)), such as "
            "`keras.datasets.mnist`. "
            f"Received: loadable={loadable!r}"
        )
    (x_train, y_train), (x_test, y_test) = loadable.load_data()
    return x_train, y_train, x_test, y_test


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Convert int labels `(rows,)` to one-hot float32 `(rows, classes)`."""
    encoded = np.zeros((len(labels), classes), "float32")
    encoded[np.arange(len(labels)), labels] = 1.0
    return encoded


def _labels(name: str, y: np.ndarray) -> np.ndarray:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iub" or (len(y) and y.min() < 0):
        raise ValueError(
            f"`{name}` must be ints of at least 0, one per row, to be converted to one-hot vectors. Pass "
            f"categorical=False to use other targets. Received: {name} of dtype {y.dtype} and shape {y.shape}"
        )
    return y.astype("int64")


def _images(name: str, x: Any) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim not in (3, 4) or x.dtype.kind not in "iuf":
        raise ValueError(
            f"`{name}` must be images of shape (rows, height, width) or (rows, height, width, channels). "
            f"Received: {name} of dtype {x.dtype} and shape {x.shape}"
        )
    top = 1 if x.dtype.kind == "f" else 255
    if x.dtype != np.uint8 and x.size and not (x.min() >= 0 and x.max() <= top):
        raise ValueError(
            f"`{name}` must be ints in [0, 255] or floats in [0, 1]; rescale it. "
            f"Received: {name} of dtype {x.dtype} in [{x.min()}, {x.max()}]"
        )
    return x[..., None] if x.ndim == 3 else x


def _unit_floats(x: np.ndarray) -> np.ndarray:
    return x.astype("float32") if x.dtype.kind == "f" else x.astype("float32") / np.float32(255)
