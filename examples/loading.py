"""The data of the examples: MNIST and CIFAR10, with datasets of scikit-learn as replacements if a download fails."""

from __future__ import annotations

import socket
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np

from importance_sampling.comparison import Data
from importance_sampling.datasets import CIFAR10, MNIST, BaseDataset, InMemoryImageDataset

TILE = 32  # pixels


class Unavailable(Exception):
    """A dataset couldn't be downloaded."""


def mnist(options: Namespace) -> Data:
    """Return MNIST, `(rows, 28, 28, 1)` in [0, 1].

    Raises:
        Unavailable: the download failed.
    """
    return Data.of(_load(MNIST, options.data))


def digits(options: Namespace) -> Data:
    """Return MNIST, `(rows, 28, 28, 1)` in [0, 1]; if the download fails, the 8x8 digits of scikit-learn."""
    try:
        return mnist(options)
    except Unavailable as error:
        print(f"{error}\nTraining on the 8x8 digits of scikit-learn.", file=sys.stderr)
        return Data.of(_small_digits())


def photographs(options: Namespace) -> BaseDataset:
    """Return CIFAR10, `(rows, 32, 32, 3)` in [0, 1]; if the download fails, parts of two photographs."""
    try:
        return _load(CIFAR10, options.data)
    except Unavailable as error:
        print(f"{error}\nTraining on tiles of the two photographs of scikit-learn.", file=sys.stderr)
        return _photograph_tiles()


def _load(cls: type, file: Path | None) -> BaseDataset:
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(15)
    try:
        return cls(path=file)
    except Exception as error:  # Keras raises an Exception, and not a subclass, if a download fails
        if file is not None:
            sys.exit(f"--data: {error}")
        message = f"{cls.__name__} could not be downloaded ({error}). Use --data FILE to read a local npz file."
        raise Unavailable(message) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _small_digits() -> BaseDataset:
    """Return the 1797 digits of scikit-learn."""
    from sklearn.datasets import load_digits

    small = load_digits()
    return _split(small.images / 16.0, small.target)


def _photograph_tiles() -> BaseDataset:
    """Return 520 square tiles of the two photographs of scikit-learn; the class is the photograph."""
    from sklearn.datasets import load_sample_images

    tiles, labels = [], []
    for label, image in enumerate(load_sample_images().images):
        rows, columns = (size // TILE for size in image.shape[:2])
        grid = image[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2)
        tiles.append(grid.reshape(-1, TILE, TILE, 3))
        labels += [label] * len(tiles[-1])
    return _split(np.concatenate(tiles), np.array(labels))


def _split(x: np.ndarray, y: np.ndarray) -> BaseDataset:
    """Split off a random 20 % as the test set."""
    test, train = np.split(np.random.default_rng(0).permutation(len(x)), [len(x) // 5])
    return InMemoryImageDataset(x[train], y[train], x[test], y[test])
