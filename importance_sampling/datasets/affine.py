"""Random image transformations, described by the parameters of Keras 2's `ImageDataGenerator`.

Uniform random numbers in [0, 1) are drawn first and then converted to affine transforms, which
`keras.ops.image.affine_transform` applies with bilinear interpolation. A transform maps the position (x, y) of an
output pixel, relative to the centre of the image, to a position in the input image: rotation, after shear, after zoom,
after shift.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from importance_sampling.utils.validation import is_real

FILL_MODES = ("nearest", "constant", "reflect", "wrap")
# The random numbers of an image, in this order. All are drawn, also those of unused parameters.
RANDOM_NAMES = ("rotation", "width", "height", "shear", "zoom_x", "zoom_y", "channel", "horizontal", "vertical")

# The other parameters of `ImageDataGenerator`, with the values that switch them off.
UNSUPPORTED = {
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


class RandomTransform:
    """A random transformation of images, with the parameters of Keras 2's `ImageDataGenerator`.

    Args:
        rotation_range: float in [0, 180], degrees, default 0. The angle is uniform in +-rotation_range.
        width_shift_range: float >= 0, default 0. The shift is uniform in +-width_shift_range. The unit is the width of
            the image for values below 1, else pixels.
        height_shift_range: float >= 0, default 0. The same for the height.
        shear_range: float in [0, 90), degrees, default 0. The angle of vertical lines is uniform in +-shear_range.
        zoom_range: float in [0, 1) or pair of floats > 0, default 0. A float z is short for (1 - z, 1 + z). The zoom
            factors of width and height are independent and uniform in this range; a factor below 1 enlarges the image.
        channel_shift_range: float >= 0, in units of x, default 0. One number, uniform in +-channel_shift_range, is
            added to all channels; the result is clipped to the range of the image.
        horizontal_flip: bool, default False. If True, half of the images are flipped left to right.
        vertical_flip: bool, default False. If True, half of the images are flipped upside down.
        fill_mode: "nearest" (default), "constant", "reflect" or "wrap"; how to fill pixels outside the image.
        cval: float, in units of x, default 0; the fill value for "constant".
        others: further parameters of `ImageDataGenerator`, accepted only with a value that switches them off.

    Raises:
        ValueError: a parameter is out of range, unknown or unsupported.

    Example:
        >>> RandomTransform(rotation_range=20, width_shift_range=0.1, horizontal_flip=True)
        RandomTransform(horizontal_flip=True, rotation_range=20, width_shift_range=0.1)
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
        params = {name: value for name, value in locals().items() if name not in ("self", "others", "__class__")}
        _check_others(others)
        for name, top in (
            ("rotation_range", 180.0),
            ("width_shift_range", None),
            ("height_shift_range", None),
            ("shear_range", 89.9),
            ("channel_shift_range", None),
        ):
            if not is_real(params[name]) or not 0 <= params[name] <= (np.finfo("float32").max if top is None else top):
                within = "at least 0" if top is None else f"0 to {top:g}, in degrees"
                raise ValueError(f"`{name}` must be a number, {within}. Received: {name}={params[name]!r}")
        if fill_mode not in FILL_MODES:
            raise ValueError(f"`fill_mode` must be one of {', '.join(FILL_MODES)}. Received: fill_mode={fill_mode!r}")
        if not is_real(cval):
            raise ValueError(f"`cval` must be a number. Received: cval={cval!r}")
        self._params = params
        self._zoom = _zoom(zoom_range)
        self._is_affine = any(
            (rotation_range, width_shift_range, height_shift_range, shear_range, self._zoom != (1.0, 1.0))
        )

    def __repr__(self) -> str:
        used = [f"{name}={value!r}" for name, value in sorted(self._params.items()) if value and name != "fill_mode"]
        return f"RandomTransform({', '.join(used)})"

    def __call__(self, images: np.ndarray, generators: list[np.random.Generator]) -> np.ndarray:
        """Transform images at random.

        Args:
            images: float `(n, height, width, channels)`.
            generators: n random generators, one per image.

        Returns:
            float32, of the same shape.
        """
        return self.apply(images, np.stack([generator.random(len(RANDOM_NAMES)) for generator in generators]))

    def apply(self, images: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Transform images by uniform random numbers.

        Args:
            images: float `(n, height, width, channels)`.
            uniforms: float `(n, 9)` in [0, 1), in the order of `RANDOM_NAMES`. 0.5 is the middle of every range, and
                no flip.

        Returns:
            float32, of the same shape.
        """
        images = np.array(images, "float32")
        if self._is_affine:
            transformed = ops.image.affine_transform(
                images,
                self.transforms(uniforms, *images.shape[1:3]),
                interpolation="bilinear",
                fill_mode=self._params["fill_mode"],
                fill_value=self._params["cval"],
                data_format="channels_last",
            )
            images = np.array(ops.convert_to_numpy(transformed))
        if self._params["channel_shift_range"]:
            low, high = images.min(axis=(1, 2, 3), keepdims=True), images.max(axis=(1, 2, 3), keepdims=True)
            shift = self._symmetric("channel_shift_range", uniforms, "channel").astype("float32")
            images = np.clip(images + shift[:, None, None, None], low, high)
        for param, name, axis in (("horizontal_flip", "horizontal", 1), ("vertical_flip", "vertical", 0)):
            if self._params[param]:
                flipped = _uniform(uniforms, name) < 0.5
                images[flipped] = np.flip(images[flipped], axis=axis + 1)
        return images

    def transforms(self, uniforms: np.ndarray, height: int, width: int) -> np.ndarray:
        """Return the transforms from output to input positions, in the format of `affine_transform`.

        Args:
            uniforms: float `(n, 9)` in [0, 1).
            height: int, of the images, in pixels.
            width: int, of the images, in pixels.

        Returns:
            float32 `(n, 8)`; the output pixel (x, y) is read at (m0 x + m1 y + m2, m3 x + m4 y + m5).
        """
        angle = np.radians(self._symmetric("rotation_range", uniforms, "rotation"))
        slant = np.tan(np.radians(self._symmetric("shear_range", uniforms, "shear")))
        across, down = self._params["width_shift_range"], self._params["height_shift_range"]
        shift_x = self._symmetric("width_shift_range", uniforms, "width") * _pixels_per_unit(across, width)
        shift_y = self._symmetric("height_shift_range", uniforms, "height") * _pixels_per_unit(down, height)
        low, high = self._zoom
        zoom_x = low + (high - low) * _uniform(uniforms, "zoom_x")
        zoom_y = low + (high - low) * _uniform(uniforms, "zoom_y")
        cos, sin = np.cos(angle), np.sin(angle)
        # [[cos, -sin], [sin, cos]] [[1, slant], [0, 1]] diag(zoom_x, zoom_y)
        a, b = cos * zoom_x, (cos * slant - sin) * zoom_y
        c, d = sin * zoom_x, (sin * slant + cos) * zoom_y
        middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
        from_x, from_y = middle_x + shift_x, middle_y + shift_y
        zero = np.zeros_like(a)
        coefficients = (a, b, middle_x - a * from_x - b * from_y, c, d, middle_y - c * from_x - d * from_y, zero, zero)
        return np.stack(coefficients, axis=1).astype("float32")

    def _symmetric(self, param: str, uniforms: np.ndarray, name: str) -> np.ndarray:
        """Values `(n,)`, uniform in +-param."""
        return self._params[param] * (2 * _uniform(uniforms, name) - 1)


def _uniform(uniforms: np.ndarray, name: str) -> np.ndarray:
    return uniforms[:, RANDOM_NAMES.index(name)]


def _pixels_per_unit(shift_range: float, size: int) -> int:
    """The unit of a shift in pixels: the size of the image for a fraction, else 1."""
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
        if name not in UNSUPPORTED:
            raise ValueError(f"`augmentation_params` has no argument `{name}`. Received: {name}={value!r}")
        if not any(value is off or (type(value) is type(off) and value == off) for off in UNSUPPORTED[name]):
            raise ValueError(
                f"`{name}` isn't supported in `augmentation_params`. Preprocess the dataset (`ZCAWhitening` whitens "
                f"it), or pass a Keras layer or a function instead. Received: {name}={value!r}"
            )
