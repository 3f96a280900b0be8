"""MNIST, CIFAR and datasets derived from them.

`keras.datasets` downloads and caches the files; `path` reads a local file instead. Sources: LeCun et al.,
Gradient-based learning applied to document recognition, 1998; Krizhevsky, Learning Multiple Layers of Features from
Tiny Images, 2009; [L15] Le, Jaitly & Hinton, A Simple Way to Initialize Recurrent Networks of Rectified Linear Units,
2015 (arXiv 1504.00941), for pixel-by-pixel MNIST.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from importance_sampling.datasets.in_memory import InMemoryImageDataset, load
from importance_sampling.utils.validation import is_int


class MNIST(InMemoryImageDataset):
    """Handwritten digits: 60000 training and 10000 test images of shape (28, 28, 1), float32 in [0, 1]; 10 classes.

    Args:
        path: None (default) to download the dataset with `keras.datasets.mnist`, or an npz file with x_train, y_train,
            x_test and y_test.

    Raises:
        ValueError: `path` isn't such a file.

    Example:
        >>> dset = MNIST()
        >>> x, y = dset.train_data[[0, 5, 7]]
        >>> x.shape, y.shape
        ((3, 28, 28, 1), (3, 10))
    """

    def __init__(self, *, path: str | Path | None = None):
        super().__init__(*load(keras.datasets.mnist, path))


class CIFAR10(InMemoryImageDataset):
    """Small photographs: 50000 training and 10000 test images of shape (32, 32, 3), float32 in [0, 1]; 10 classes.

    Args:
        path: None (default) to download the dataset with `keras.datasets.cifar10`, or an npz file with x_train,
            y_train, x_test and y_test.

    Raises:
        ValueError: `path` isn't such a file.

    Example:
        >>> CIFAR10().shape
        (32, 32, 3)
    """

    def __init__(self, *, path: str | Path | None = None):
        super().__init__(*load(keras.datasets.cifar10, path))


class CIFAR100(InMemoryImageDataset):
    """Small photographs as in `CIFAR10`, with 100 classes.

    Args:
        path: None (default) to download the dataset with `keras.datasets.cifar100`, or an npz file with x_train,
            y_train, x_test and y_test.

    Raises:
        ValueError: `path` isn't such a file.

    Example:
        >>> CIFAR100().output_size
        100
    """

    def __init__(self, *, path: str | Path | None = None):
        super().__init__(*load(keras.datasets.cifar100, path))


class CIFARSanityCheck(InMemoryImageDataset):
    """Some classes of CIFAR10, with many copies of one training sample, as a sanity check of samplers.

    A working sampler soon draws the repeated sample rarely, because the model fits it early. The `replicate` copies of
    training sample `replicate_idx` follow the other training samples; its image is stored once. Labels are 0, 1, ... in
    the order of `classes`. The test set contains the test samples of these classes.

    Args:
        classes: two or more different ints in [0, 10), default (3, 5), cats and dogs.
        replicate: int >= 0, default 30000; the number of additional copies.
        replicate_idx: int >= 0, default 42; the index of the sample among the training samples of `classes`.
        path: as for `CIFAR10`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> dset = CIFARSanityCheck(replicate=100)
        >>> bool((dset.train_data[-1][0] == dset.train_data[42][0]).all())
        True
    """

    def __init__(
        self,
        classes: Sequence[int] = (3, 5),
        replicate: int = 30000,
        replicate_idx: int = 42,
        *,
        path: str | Path | None = None,
    ):
        if len(set(classes)) != len(classes) or len(classes) < 2 or not all(is_int(c) and 0 <= c < 10 for c in classes):
            raise ValueError(f"`classes` must be two or more different ints in [0, 10). Received: classes={classes!r}")
        if not is_int(replicate) or replicate < 0:
            raise ValueError(f"`replicate` must be an int of at least 0. Received: replicate={replicate!r}")
        if not is_int(replicate_idx) or replicate_idx < 0:
            raise ValueError(f"`replicate_idx` must be an int of at least 0. Received: replicate_idx={replicate_idx!r}")
        x_train, y_train, x_test, y_test = load(keras.datasets.cifar10, path)
        train, test = _of_classes(x_train, y_train, classes), _of_classes(x_test, y_test, classes)
        rows = len(train[0])
        if replicate_idx >= rows:
            raise ValueError(
                f"`replicate_idx` must be below {rows}, the number of training samples of `classes`. "
                f"Received: replicate_idx={replicate_idx!r}"
            )
        super().__init__(*train, *test)
        self._row_indices = np.concatenate([np.arange(rows), np.full(replicate, replicate_idx)])

    def _train_data(self, idxs: np.ndarray | slice) -> tuple:
        return super()._train_data(self._row_indices[idxs])

    def _train_size(self) -> int:
        return len(self._row_indices)


class PixelByPixelMNIST(InMemoryImageDataset):
    """MNIST as sequences of pixels: samples of shape (784, 1), float32 in [0, 1]; 10 classes.

    The pixels of all images are permuted in the same way.

    Args:
        permutation_seed: int >= 0 or None, default 0; the seed of the permutation. None means no permutation: the
            pixels are ordered line by line.
        path: as for `MNIST`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> dset = PixelByPixelMNIST()
        >>> dset.shape
        (784, 1)

    Source: [L15], section 4.2.
    """

    def __init__(self, permutation_seed: int | None = 0, *, path: str | Path | None = None):
        if permutation_seed is not None and (not is_int(permutation_seed) or permutation_seed < 0):
            raise ValueError(
                "`permutation_seed` must be an int of at least 0, or None for no permutation. "
                f"Received: permutation_seed={permutation_seed!r}"
            )
        super().__init__(*load(keras.datasets.mnist, path))
        pixels = int(np.prod(super().shape))
        self._permutation = np.arange(pixels)
        if permutation_seed is not None:
            self._permutation = np.random.default_rng(permutation_seed).permutation(pixels)

    def _permuted(self, data: tuple) -> tuple:
        x, y = data
        return x.reshape(len(x), -1)[:, self._permutation, None], y

    def _train_data(self, idxs: np.ndarray | slice) -> tuple:
        return self._permuted(super()._train_data(idxs))

    def _test_data(self, idxs: np.ndarray | slice) -> tuple:
        return self._permuted(super()._test_data(idxs))

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._permutation), 1)


def _of_classes(x: np.ndarray, y: np.ndarray, classes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Select the samples of some classes and relabel them by their position in `classes`."""
    y = np.asarray(y).ravel()
    new_label = np.full(max(int(y.max()), *classes) + 1, -1)
    new_label[list(classes)] = np.arange(len(classes))
    labels = new_label[y]
    return np.asarray(x)[labels >= 0], labels[labels >= 0]
