"""The examples' data: MNIST and CIFAR10 from Keras or from a file, and what there is where they can't be downloaded."""

from __future__ import annotations

import socket
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np

from importance_sampling.comparison import Data
from importance_sampling.datasets import CIFAR10, MNIST, BaseDataset, InMemoryImageDataset

TILE = 32  # pixels


def digits(options: Namespace) -> Data:
    """Images `(rows, 28, 28, 1)` in [0, 1], ten classes; without a file or a network, scikit-learn's 8x8 digits."""
    return Data.of(_or_else(MNIST, options.data, "scikit-learn's 8x8 digits", _small_digits))


def photographs(options: Namespace) -> BaseDataset:
    """CIFAR10, `(rows, 32, 32, 3)` in [0, 1], ten classes; without a file or a network, pieces of two photographs."""
    what = "pieces of scikit-learn's two photographs, to be told apart"
    return _or_else(CIFAR10, options.data, what, _pieces)


def _or_else(kind: type, file: Path | None, what: str, instead: Callable[[], BaseDataset]) -> BaseDataset:
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(15)
    try:
        return kind(path=file)
    except Exception as error:  # Keras raises a plain Exception where it can't download
        if file is not None:
            sys.exit(f"--data: {error}")
        print(f"{kind.__name__} could not be downloaded ({error}).", file=sys.stderr)
        print(f"Training on {what}; --data FILE reads a local npz file.", file=sys.stderr)
        return instead()
    finally:
        socket.setdefaulttimeout(timeout)


def _small_digits() -> BaseDataset:
    """The 1797 digits that come with scikit-learn, a fifth of them to test on."""
    from sklearn.datasets import load_digits

    small = load_digits()
    return _split(small.images / 16.0, small.target)


def _pieces() -> BaseDataset:
    """520 square pieces of the two photographs that come with scikit-learn; the class is the photograph."""
    from sklearn.datasets import load_sample_images

    pieces, labels = [], []
    for label, image in enumerate(load_sample_images().images):
        rows, columns = (size // TILE for size in image.shape[:2])
        cut = image[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2)
        pieces.append(cut.reshape(-1, TILE, TILE, 3))
        labels += [label] * len(pieces[-1])
    return _split(np.concatenate(pieces), np.array(labels))


def _split(x: np.ndarray, y: np.ndarray) -> BaseDataset:
    """A fifth of the rows to test on, drawn at random."""
    test, train = np.split(np.random.default_rng(0).permutation(len(x)), [len(x) // 5])
    return InMemoryImageDataset(x[train], y[train], x[test], y[test])
