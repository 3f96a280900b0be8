"""ZCA whitening: the whitening transform of the training set that is closest to the identity.

Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009, appendix A.
"""

from __future__ import annotations

import numpy as np

from importance_sampling.datasets.base import BaseDataset, check_dataset
from importance_sampling.utils.validation import is_real

CHUNK = 1024  # samples to read at a time


class ZCAWhitening(BaseDataset):
    """A dataset with whitened x: (x - mean) C^(-1/2), with mean and covariance C of the training set.

    The constructor reads the training set twice, in chunks. Samples are whitened when they are read. The
    eigendecomposition is cubic in the size of a sample: some seconds for 3072, the size of a CIFAR image.

    A direction without variance in the training set is multiplied by 1/sqrt(epsilon) in the test set.

    Args:
        dataset: `BaseDataset` with float or int x. Samples are flattened for whitening and keep their shape.
        epsilon: float >= 0, default 1e-6, in squared units of x; added to the eigenvalues of C.

    Raises:
        ValueError: `dataset` isn't a `BaseDataset` or has fewer than two training samples; or `epsilon` is out of
            range, or 0 where a direction has no variance.

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
                f"`dataset` must have at least 2 training samples. Received: dataset with {rows} training samples"
            )
        self._dataset = dataset
        self._mean, covariance = _mean_and_covariance(dataset, rows)
        variances, directions = np.linalg.eigh(covariance)
        variances = np.maximum(variances, 0.0) + epsilon
        if variances.min() <= np.finfo("float64").eps * variances.max():
            raise ValueError(
                "`epsilon` must be above 0 because some directions of x have no variance. "
                f"Received: epsilon={epsilon!r}"
            )
        self._transform = ((directions / np.sqrt(variances)) @ directions.T).astype("float32")

    def _whiten(self, data: tuple) -> tuple:
        x, y = data
        flat = np.asarray(x, "float64").reshape(len(x), -1) - self._mean
        return (flat.astype("float32") @ self._transform).reshape(len(x), *self.shape), y

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


def _mean_and_covariance(dataset: BaseDataset, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean `(d,)` and unbiased covariance `(d, d)` of the flattened training samples, float64."""

    def chunks():
        for start in range(0, rows, CHUNK):
            x = np.asarray(dataset.train_data[start : start + CHUNK][0], "float64")
            yield x.reshape(len(x), -1)

    mean = sum(x.sum(axis=0) for x in chunks()) / rows
    covariance = sum((x - mean).T @ (x - mean) for x in chunks()) / (rows - 1)
    return mean, covariance
