"""A wide residual network on images, for `importance-sampling compare wide_resnet:build --data wide_resnet:load`.

`KIS_MNIST` is the path of a file in the format of Keras's mnist.npz; without it, the images are random shapes that are
drawn here: filled ellipses and rectangles of any size and contrast, in noise.
"""

from __future__ import annotations

import os

import keras
import numpy as np

from importance_sampling.models import wide_resnet

SIZE, CLASSES = 28, 10


def build() -> keras.Model:
    """Return the compiled network, with 16 layers of four times the usual width."""
    return wide_resnet(16, 4)((SIZE, SIZE, 1), CLASSES)


def load() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return `(x, y), (x_validation, y_validation)`, images in [0, 1] and one-hot classes."""
    path = os.environ.get("KIS_MNIST")
    if path is None:
        return shapes(20_000, seed=0), shapes(4_000, seed=1)
    with np.load(path) as data:
        parts = [(data[f"x_{name}"], data[f"y_{name}"]) for name in ("train", "test")]
    return tuple((x[..., None].astype("float32") / 255, one_hot(y)) for x, y in parts)


def shapes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw images of shapes in noise; the class is the kind of shape and one of five ratios of its sides."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, count)
    radius = rng.uniform(4, 10, (count, 1, 1))
    ratio = (0.4 + 0.15 * (y % 5))[:, None, None]
    center = rng.uniform(10, 18, (2, count, 1, 1))
    rows, columns = np.mgrid[:SIZE, :SIZE][:, None]
    dy, dx = np.abs(rows - center[0]) / radius, np.abs(columns - center[1]) / (radius * ratio)
    inside = np.where((y >= 5)[:, None, None], np.maximum(dy, dx), np.hypot(dy, dx)) <= 1
    images = rng.uniform(0.2, 0.8, (count, 1, 1)) * inside + rng.normal(0, 0.15, (count, SIZE, SIZE))
    return np.clip(images, 0, 1).astype("float32")[..., None], one_hot(y)


def one_hot(y: np.ndarray) -> np.ndarray:
    """Return classes as one-hot rows."""
    return np.eye(CLASSES, dtype="float32")[y]
