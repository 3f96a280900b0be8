"""Draws samples as a grid of images with a caption each: the most drawn ones, or whichever are handed over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from importance_sampling.callbacks import SamplingRecorder
from importance_sampling.plotting.style import STYLES, new_figure

MARK = STYLES[0]["color"]


class Tile(NamedTuple):
    """One image of a grid."""

    image: np.ndarray  # (height, width) or (height, width, channels), of any range
    caption: str
    marked: bool = False  # framed and captioned in bold


def plot_most_drawn(
    recorder: SamplingRecorder,
    x: Any,
    y: Any,
    model: keras.Model,
    count: int = 40,
    shape: tuple[int, ...] | None = None,
    names: Sequence[str] | None = None,
) -> Any:
    """Draw the samples that were drawn most often, with label, prediction and how often that was.

    Marked are those that the model still gets wrong.

    Args:
        recorder: of a `fit` on these data.
        x: `(rows, ...)`, what was trained on.
        y: class numbers `(rows,)` or one-hot `(rows, classes)`, what was trained on.
        model: predicts the classes.
        count: int >= 1, default 40; how many to draw.
        shape: of an image, (height, width) or (height, width, channels); None (default): as rows of `x` are, or a
            square where they are flat.
        names: of the classes; None (default): their numbers.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it.

    Raises:
        ValueError: `x` has fewer rows than were recorded, or rows that aren't images.
        ImportError: matplotlib isn't installed.

    Example:
        >>> plot_most_drawn(recorder, x_train, y_train, model).savefig("most_drawn.png")
    """
    if len(x) < len(recorder.draws) or not len(recorder.draws):
        raise ValueError(
            "`x` must be the data that the recorder recorded. "
            f"Received: x with {len(x)} rows, a recorder of {len(recorder.draws)} rows"
        )
    rows = np.argsort(-recorder.draws, kind="stable")[:count]
    chosen = np.asarray(x[rows])
    labels, predicted = _classes(np.asarray(y[rows])), _classes(np.asarray(model.predict(chosen, verbose=0)))
    tiles = []
    for row, image, label, guess in zip(rows, chosen, labels, predicted, strict=True):
        said, thought = (str(c) if names is None else names[c] for c in (label, guess))
        caption = f"label {said}\nprediction {thought}\n{recorder.draws[row]} draws"
        tiles.append(Tile(as_image(image, shape), caption, bool(label != guess)))
    columns = min(10, len(tiles))
    figure = new_figure(1.2 * columns, 1.75 * math.ceil(len(tiles) / columns) + 0.5)
    draw_tiles(figure, tiles, columns)
    figure.suptitle(f"The {len(tiles)} samples drawn most often; framed: prediction differs from label", weight="bold")
    return figure


def draw_tiles(figure: Any, tiles: Sequence[Tile], columns: int) -> None:
    """Draw images row by row, dark on light if they have no channels.

    Args:
        figure: a matplotlib `Figure` or `SubFigure`, empty.
        columns: int >= 1, images a row.
    """
    grid = figure.subplots(math.ceil(len(tiles) / columns), columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, tile in zip(grid, tiles, strict=False):
        axes.set_axis_on()
        axes.imshow(tile.image, cmap="gray_r", interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color=MARK if tile.marked else "0.75", linewidth=2.5 if tile.marked else 0.8)
        axes.set_xlabel(tile.caption, fontsize=9, labelpad=3, weight="bold" if tile.marked else "normal")


def as_image(row: np.ndarray, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A row of data as an image that matplotlib takes.

    Args:
        shape: of the image; None: as it is, or a square where the row is flat.

    Raises:
        ValueError: it is none.
    """
    side = math.isqrt(row.size)
    if shape is None:
        shape = (side, side) if row.ndim == 1 else row.shape
    if math.prod(shape) != row.size or len(shape) not in (2, 3):
        raise ValueError(
            "`shape` must be (height, width) or (height, width, channels), of as many numbers as a row has. "
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
    """Class numbers of labels or predictions, one-hot, probabilities, or numbers already."""
    if values.ndim > 1 and values.shape[-1] > 1:
        return values.argmax(-1)
    return np.rint(values.reshape(len(values))).astype("int64")
