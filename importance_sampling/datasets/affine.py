"""The augmentations that a dict of ranges describes: drawn in numbers of [0, 1), made into maps, then applied.

A map goes from where a pixel is to be to where it is taken from, in (x, y) about the centre of the image: rotation,
after shear, after zoom, after the shift. `keras.ops.image.affine_transform` reads the pixels, bilinearly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from importance_sampling.datasets.base import is_real

FILL_MODES = ("nearest", "constant", "reflect", "wrap")
# What numbers of [0, 1) are drawn for, in this order, whichever are used.
DRAWN = ("rotation", "width", "height", "shear", "zoom_x", "zoom_y", "channel", "horizontal", "vertical")

# What `ImageDataGenerator` had besides, and the values by which it does nothing.
OFF = {
    "featurewise_center": (False, None),
    "samplewise_center": (False, None),
    "featurewise_std_normalization": (False, None),
    "samplewise_std_normalization": (False, None),
    "zca_whitening": (False, None),
    "zca_epsilon": (None, 1e-6),
    "brightness_range": (None,),
    "rescale": (None, 0, 1, 1.0),
    "preprocessing_function": (None,),
    "data_format": (None, "channels_last"),
    "validation_split": (None, 0, 0.0),
    "interpolation_order": (1,),
    "dtype": (None, "float32"),
}


class Ranges:
    """Random maps of images, by the names that `ImageDataGenerator` had.

    Args:
        rotation_range: float in [0, 180], degrees, default 0; angles are uniform in +-.
        width_shift_range: float >= 0, default 0; uniform in +-, a share of the width, or pixels if at least 1.
        height_shift_range: float >= 0, default 0; likewise of the height.
        shear_range: float in [0, 90), degrees, default 0; the slant of vertical lines is uniform in +-.
        zoom_range: float in [0, 1) or a pair of floats > 0, default 0; z stands for (1 - z, 1 + z). Width and
            height are each scaled by one over a uniform number of that range: less than 1 makes larger.
        channel_shift_range: float >= 0, in units of x, default 0; one number, uniform in +-, is added to all channels,
            which then are clipped to the range of the image.
        horizontal_flip: bool, default False; whether half of the copies are mirrored left to right.
        vertical_flip: bool, default False; likewise upside down.
        fill_mode: "nearest" (default), "constant", "reflect" or "wrap"; what stands outside the image.
        cval: float, in units of x, default 0; with "constant".
        others: what `ImageDataGenerator` had besides; only as a value that switches it off.

    Raises:
        ValueError: an argument is out of its range, unknown, or can't be done.

    Example:
        >>> Ranges(rotation_range=20, width_shift_range=0.1, horizontal_flip=True)
        Ranges(horizontal_flip=True, rotation_range=20, width_shift_range=0.1)
    """

    def __init__(
        self,
        rotation_range: float = 0.0,
        width_shift_range: float = 0.0,
        height_shift_range: float = 0.0,
        shear_range: float = 0.0,
        zoom_range: float | tuple[float, float] = 0.0,
        channel_shift_range: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        fill_mode: str = "nearest",
        cval: float = 0.0,
        **others: Any,
    ):
        given = {name: value for name, value in locals().items() if name not in ("self", "others", "__class__")}
        _check_others(others)
        for name, top in (
            ("rotation_range", 180.0),
            ("width_shift_range", None),
            ("height_shift_range", None),
            ("shear_range", 89.9),
            ("channel_shift_range", None),
        ):
            if not is_real(given[name]) or not 0 <= given[name] <= (np.finfo("float32").max if top is None else top):
                within = "at least 0" if top is None else f"0 to {top:g}, in degrees"
                raise ValueError(f"`{name}` must be a number, {within}. Received: {name}={given[name]!r}")
        if fill_mode not in FILL_MODES:
            raise ValueError(f"`fill_mode` must be one of {', '.join(FILL_MODES)}. Received: fill_mode={fill_mode!r}")
        if not is_real(cval):
            raise ValueError(f"`cval` must be a number. Received: cval={cval!r}")
        self._given = given
        self._zoom = _zoom(zoom_range)
        self._moves = any(
            (rotation_range, width_shift_range, height_shift_range, shear_range, self._zoom != (1.0, 1.0))
        )

    def __repr__(self) -> str:
        given = [f"{name}={value!r}" for name, value in sorted(self._given.items()) if value and name != "fill_mode"]
        return f"Ranges({', '.join(given)})"

    def __call__(self, images: np.ndarray, generators: list[np.random.Generator]) -> np.ndarray:
        """Augment images.

        Args:
            images: float `(n, height, width, channels)`.
            generators: n of them.

        Returns:
            float32, of the same shape.
        """
        return self.apply(images, np.stack([generator.random(len(DRAWN)) for generator in generators]))

    def apply(self, images: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Augment images by numbers drawn.

        Args:
            images: float `(n, height, width, channels)`.
            drawn: float `(n, 9)` in [0, 1), in the order of `DRAWN`; 0.5 is the middle of every range, and no flip.

        Returns:
            float32, of the same shape.
        """
        images = np.array(images, "float32")
        if self._moves:
            moved = ops.image.affine_transform(
                images,
                self.maps(drawn, *images.shape[1:3]),
                interpolation="bilinear",
                fill_mode=self._given["fill_mode"],
                fill_value=self._given["cval"],
                data_format="channels_last",
            )
            images = np.array(ops.convert_to_numpy(moved))
        if self._given["channel_shift_range"]:
            low, high = images.min(axis=(1, 2, 3), keepdims=True), images.max(axis=(1, 2, 3), keepdims=True)
            by = self._centred("channel_shift_range", drawn, "channel").astype("float32")
            images = np.clip(images + by[:, None, None, None], low, high)
        for name, column, axis in (("horizontal_flip", "horizontal", 1), ("vertical_flip", "vertical", 0)):
            if self._given[name]:
                flipped = _column(drawn, column) < 0.5
                images[flipped] = np.flip(images[flipped], axis=axis + 1)
        return images

    def maps(self, drawn: np.ndarray, height: int, width: int) -> np.ndarray:
        """The maps from output to input, as `affine_transform` takes them.

        Args:
            drawn: float `(n, 9)` in [0, 1).
            height: int, of the images, in pixels.
            width: int.

        Returns:
            float32 `(n, 8)`; the pixel (x, y) is taken from (m0 x + m1 y + m2, m3 x + m4 y + m5).
        """
        angle = np.radians(self._centred("rotation_range", drawn, "rotation"))
        slant = np.tan(np.radians(self._centred("shear_range", drawn, "shear")))
        across, down = self._given["width_shift_range"], self._given["height_shift_range"]
        shift_x = self._centred("width_shift_range", drawn, "width") * _unit(across, width)
        shift_y = self._centred("height_shift_range", drawn, "height") * _unit(down, height)
        low, high = self._zoom
        zoom_x = low + (high - low) * _column(drawn, "zoom_x")
        zoom_y = low + (high - low) * _column(drawn, "zoom_y")
        cos, sin = np.cos(angle), np.sin(angle)
        # [[cos, -sin], [sin, cos]] [[1, slant], [0, 1]] diag(zoom_x, zoom_y)
        a, b = cos * zoom_x, (cos * slant - sin) * zoom_y
        c, d = sin * zoom_x, (sin * slant + cos) * zoom_y
        middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
        from_x, from_y = middle_x + shift_x, middle_y + shift_y
        zero = np.zeros_like(a)
        columns = (a, b, middle_x - a * from_x - b * from_y, c, d, middle_y - c * from_x - d * from_y, zero, zero)
        return np.stack(columns, axis=1).astype("float32")

    def _centred(self, name: str, drawn: np.ndarray, column: str) -> np.ndarray:
        return self._given[name] * (2 * _column(drawn, column) - 1)


def _column(drawn: np.ndarray, name: str) -> np.ndarray:
    return drawn[:, DRAWN.index(name)]


def _unit(shift_range: float, size: int) -> int:
    """Pixels in one of the units of a shift."""
    return size if shift_range < 1 else 1


def _zoom(zoom_range: Any) -> tuple[float, float]:
    pair = zoom_range if isinstance(zoom_range, (tuple, list)) else None
    if pair is None and is_real(zoom_range) and 0 <= zoom_range < 1:
        pair = (1 - zoom_range, 1 + zoom_range)
    if pair is None or len(pair) != 2 or not all(map(is_real, pair)) or not 0 < pair[0] <= pair[1] < float("inf"):
        raise ValueError(
            "`zoom_range` must be a number in [0, 1), or a pair of numbers above 0, the lower first. "
            f"Received: zoom_range={zoom_range!r}"
        )
    return float(pair[0]), float(pair[1])


def _check_others(others: dict) -> None:
    for name, value in others.items():
        if name not in OFF:
            raise ValueError(f"`augmentation_params` has no argument `{name}`. Received: {name}={value!r}")
        if not any(value is off or (type(value) is type(off) and value == off) for off in OFF[name]):
            raise ValueError(
                f"`{name}` isn't supported in `augmentation_params`. Prepare the dataset itself (`ZCAWhitening` "
                f"whitens it), or pass a Keras layer or a function instead. Received: {name}={value!r}"
            )
