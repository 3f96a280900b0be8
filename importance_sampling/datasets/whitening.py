"""ZCA whitening: the linear map, nearest to the identity, after which the training rows are uncorrelated.

Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009, appendix A.
"""

from __future__ import annotations

import numpy as np

from importance_sampling.datasets.base import BaseDataset, check_dataset, is_real

SLICE = 1024


class ZCAWhitening(BaseDataset):
    """A dataset whose x is whitened: (x - mean) C^(-1/2), mean and covariance C those of its training rows.

    Training rows are read twice, in slices, when it is made; rows are whitened as they are read. What costs is the
    eigendecomposition, cubic in the size of a row: some seconds for 3072, the size of a CIFAR image.

    A direction that doesn't vary in the training rows is blown up by 1/sqrt(epsilon) in test rows that vary along it.

    Args:
        dataset: `BaseDataset` with float or int x; its rows are flattened for the map and given their shape back.
        epsilon: float >= 0, default 1e-6; added to the variances before they are divided by, in squared units of x.

    Raises:
        ValueError: `dataset` isn't one or has under two training rows, or `epsilon` is out of range or 0 where a
            direction doesn't vary.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(500, 3)) @ [[2.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 3.0]]
        >>> white = ZCAWhitening(InMemoryDataset(x, np.zeros(500, int), x, np.zeros(500, int)))
        >>> covariance = np.cov(white.train_data[:][0], rowvar=False)
        >>> bool(np.allclose(covariance, np.eye(3), atol=1e-4))
        True
    """

    def __init__(self, dataset: BaseDataset, *, epsilon: float = 1e-6):
        check_dataset(dataset)
        if not is_real(epsilon) or not 0 <= epsilon < float("inf"):
            raise ValueError(f"`epsilon` must be a finite number of at least 0. Received: epsilon={epsilon!r}")
        rows = len(dataset.train_data)
        if rows < 2:
            raise ValueError(
                f"`dataset` must have at least 2 training rows to be whitened. Received: dataset with {rows}"
            )
        self._dataset = dataset
        self._mean, covariance = _moments(dataset, rows)
        variances, directions = np.linalg.eigh(covariance)
        variances = np.maximum(variances, 0.0) + epsilon
        if variances.min() <= np.finfo("float64").eps * variances.max():
            raise ValueError(
                "`epsilon` must be above 0 where x doesn't vary in every direction, as here. "
                f"Received: epsilon={epsilon!r}"
            )
        self._map = ((directions / np.sqrt(variances)) @ directions.T).astype("float32")

    def _whiten(self, data: tuple) -> tuple:
        x, y = data
        flat = np.asarray(x, "float64").reshape(len(x), -1) - self._mean
        return (flat.astype("float32") @ self._map).reshape(len(x), *self.shape), y

    def _train_data(self, idxs: np.ndarray | slice) -> tuple:
        return self._whiten(self._dataset.train_data[idxs])

    def _train_size(self) -> int:
        return len(self._dataset.train_data)

    def _test_data(self, idxs: np.ndarray | slice) -> tuple:
        return self._whiten(self._dataset.test_data[idxs])

    def _test_size(self) -> int:
        return len(self._dataset.test_data)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._dataset.shape

    @property
    def output_size(self) -> int:
        return self._dataset.output_size


def _moments(dataset: BaseDataset, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean `(d,)` and unbiased covariance `(d, d)` of the flattened training rows, float64."""

    def slices():
        for start in range(0, rows, SLICE):
            x = np.asarray(dataset.train_data[start : start + SLICE][0], "float64")
            yield x.reshape(len(x), -1)

    mean = sum(x.sum(axis=0) for x in slices()) / rows
    covariance = sum((x - mean).T @ (x - mean) for x in slices()) / (rows - 1)
    return mean, covariance
