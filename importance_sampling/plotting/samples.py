"""Plots of samples as a grid of images with captions, such as the samples that were drawn most often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from importance_sampling.callbacks import SamplingRecorder
from importance_sampling.plotting.style import STYLES, new_figure

MARK_COLOR = STYLES[0]["color"]


class Tile(NamedTuple):
    """An image of a grid."""

    image: np.ndarray  # (height, width) or (height, width, channels), in any range
    caption: str
    marked: bool = False  # with a frame and a bold caption


def plot_most_drawn(
    recorder: SamplingRecorder,
    x: Any,
    y: Any,
    model: keras.Model,
    count: int = 40,
    shape: tuple[int, ...] | None = None,
    names: Sequence[str] | None = None,
) -> Any:
    """Plot the samples that were drawn most often, with label, prediction and number of draws.

    Samples with a wrong prediction are marked.

    Args:
        recorder: `SamplingRecorder` that was passed to `fit` with these data.
        x: array `(rows, ...)`, the training data.
        y: int labels `(rows,)` or one-hot labels `(rows, classes)`, the training labels.
        model: `keras.Model` that predicts class probabilities.
        count: int >= 1, default 40; the number of samples to plot.
        shape: shape of an image, (height, width) or (height, width, channels). None (default) means the shape of a
            row of `x`, or a square if rows have one axis.
        names: names of the classes. None (default) means their indices.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it to a file.

    Raises:
        ValueError: `x` has fewer rows than the recorder, or its rows aren't images.
        ImportError: matplotlib isn't installed.

    Example:
        >>> plot_most_drawn(recorder, x_train, y_train, model).savefig("most_drawn.png")
    """
    if len(x) < len(recorder.draws) or not len(recorder.draws):
        raise ValueError(
            "`x` must be the training data of the `fit` with this recorder. "
            f"Received: x with {len(x)} rows, a recorder of {len(recorder.draws)} rows"
        )
    rows = np.argsort(-recorder.draws, kind="stable")[:count]
    images = np.asarray(x[rows])
    labels, predictions = _classes(np.asarray(y[rows])), _classes(np.asarray(model.predict(images, verbose=0)))
    tiles = []
    for row, image, label, prediction in zip(rows, images, labels, predictions, strict=True):
        label_name, prediction_name = (str(c) if names is None else names[c] for c in (label, prediction))
        caption = f"label {label_name}\nprediction {prediction_name}\n{recorder.draws[row]} draws"
        tiles.append(Tile(as_image(image, shape), caption, bool(label != prediction)))
    columns = min(10, len(tiles))
    figure = new_figure(1.2 * columns, 1.75 * math.ceil(len(tiles) / columns) + 0.5)
    draw_tiles(figure, tiles, columns)
    figure.suptitle(f"The {len(tiles)} samples drawn most often; framed: prediction differs from label", weight="bold")
    return figure


def draw_tiles(figure: Any, tiles: Sequence[Tile], columns: int) -> None:
    """Draw images on a grid, row by row. Images without channels are drawn with an inverted grey scale.

    Args:
        figure: empty matplotlib `Figure` or `SubFigure`.
        tiles: the images.
        columns: int >= 1, the number of images per row.
    """
    grid = figure.subplots(math.ceil(len(tiles) / columns), columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, tile in zip(grid, tiles, strict=False):
        axes.set_axis_on()
        axes.imshow(tile.image, cmap="gray_r", interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color=MARK_COLOR if tile.marked else "0.75", linewidth=2.5 if tile.marked else 0.8)
        axes.set_xlabel(tile.caption, fontsize=9, labelpad=3, weight="bold" if tile.marked else "normal")


def as_image(row: np.ndarray, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Convert a sample to an image for matplotlib.

    Args:
        row: array, one sample.
        shape: shape of the image. None (default) means the shape of the sample, or a square if it has one axis.

    Returns:
        Array `(height, width)`, or `(height, width, channels)` in [0, 1] or of dtype uint8.

    Raises:
        ValueError: the sample can't be reshaped to an image.
    """
    side = math.isqrt(row.size)
    if shape is None:
        shape = (side, side) if row.ndim == 1 else row.shape
    if math.prod(shape) != row.size or len(shape) not in (2, 3):
        raise ValueError(
            "`shape` must be (height, width) or (height, width, channels), and match the size of a row. "
            f"Received: shape={shape!r}, rows of shape {row.shape}"
        )
    image = row.reshape(shape)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.ndim == 3 and image.dtype != np.uint8:
        low, high = image.min(), image.max()
        image = (image - low) / max(high - low, 1e-12)
    return image


def _classes(values: np.ndarray) -> np.ndarray:
    """Return class indices of one-hot labels, probabilities or class indices."""
    if values.ndim > 1 and values.shape[-1] > 1:
        return values.argmax(-1)
    return np.rint(values.reshape(len(values))).astype("int64")
