"""Images that are augmented as they are read, each copy always the same.

Here is which copy is of which row, what is kept, and what an augmentation may be: a dict of ranges (drawn and applied
in `affine`), a Keras layer, or a function. All are handed their randomness by the number of the copy, so that a row
which was scored is the row that is trained on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from importance_sampling.datasets.affine import Ranges
from importance_sampling.datasets.base import BaseDataset, check_dataset, is_int


class OntheflyAugmentedImages(BaseDataset):
    """A dataset of augmented copies: copy i is of row i % len(dataset), and the same whenever it is read.

    What copy i looks like depends on `(random_state, i)` alone, not on what was read before. Test rows and labels pass
    as they are.

    Args:
        dataset: `BaseDataset` of images `(height, width, channels)`, float.
        augmentation_params: one of

            - a dict, by the names that `ImageDataGenerator` had; see `affine.Ranges` for those there are: rotation,
              shifts, shear, zoom, flips, a shift of the channels. Applied to many rows at once.
            - a Keras layer or `Sequential` of them, such as `keras.layers.RandomRotation(0.1)`: called on one image at
              a time with training=True, its random states set anew for each. Slower; mind its `value_range`.
            - a function `f(image, seed)` -> image, with the image an array `(height, width, channels)` and the seed an
              int in [0, 2**31).
        N: int >= 1 or None (default); how many augmented training rows there are. None: 10 * len(dataset.train_data).
        random_state: int >= 0, default 0.
        cache_size: int >= 0 or None (default); how many augmented images to keep, those last read. None keeps none.

    Raises:
        ValueError: an argument is out of its range, or the augmentation, tried on the first row, changes the shape of
            an image or doesn't give the same one twice.

    Example:
        >>> x = np.random.default_rng(0).random((4, 8, 8, 1))
        >>> dset = InMemoryImageDataset(x, np.arange(4), x, np.arange(4))
        >>> augmented = OntheflyAugmentedImages(dset, {"rotation_range": 15, "horizontal_flip": True}, N=100)
        >>> one, again = augmented.train_data[[42, 42]][0]
        >>> bool((one == again).all())
        True
        >>> augmented = OntheflyAugmentedImages(dset, keras.layers.RandomTranslation(0.2, 0.2))
        >>> len(augmented.train_data)
        40
    """

    def __init__(
        self,
        dataset: BaseDataset,
        augmentation_params: dict | keras.Layer | Callable,
        N: int | None = None,
        random_state: int = 0,
        cache_size: int | None = None,
    ):
        check_dataset(dataset)
        if len(dataset.shape) != 3:
            raise ValueError(
                "`dataset` must have images of shape (height, width, channels). "
                f"Received: dataset with rows of shape {dataset.shape}"
            )
        if N is not None and (not is_int(N) or N < 1):
            raise ValueError(f"`N` must be an int of at least 1, or None for 10 copies a row. Received: N={N!r}")
        if not is_int(random_state) or random_state < 0:
            raise ValueError(f"`random_state` must be an int of at least 0. Received: random_state={random_state!r}")
        if cache_size is not None and (not is_int(cache_size) or cache_size < 0):
            raise ValueError(
                "`cache_size` must be an int of at least 0, the images to keep, or None for none. "
                f"Received: cache_size={cache_size!r}"
            )
        self._dataset = dataset
        self._augment = _augmentation(augmentation_params)
        self._rows = len(dataset.train_data)
        self._copies = 10 * self._rows if N is None else int(N)
        self._random_state = int(random_state)
        self._cache_size = int(cache_size or 0)
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        if not self._rows:
            raise ValueError("`dataset` must have training rows. Received: dataset with none")
        trial = [self._copies_of(np.arange(4), np.repeat(dataset.train_data[:1][0], 4, axis=0)) for _ in range(2)]
        if trial[0].shape[1:] != tuple(dataset.shape):
            raise ValueError(
                "`augmentation_params` must keep the shape of an image, as test rows aren't augmented. "
                f"Received: augmentation_params that makes {trial[0].shape[1:]} of {dataset.shape}"
            )
        if not np.array_equal(*trial):
            raise ValueError(
                "`augmentation_params` must make the same image of the same seed: draw all that is random from it. "
                f"Received: augmentation_params={augmentation_params!r}"
            )

    def _train_data(self, idxs: np.ndarray | slice) -> tuple:
        copies = np.arange(self._copies)[idxs]
        x, y = self._dataset.train_data[copies % self._rows]
        if not len(copies):
            return x, y
        if not self._cache_size:
            return self._copies_of(copies, x), y
        images = {int(i): self._cache[i] for i in copies if i in self._cache}
        fresh = np.array([place for place, i in enumerate(copies) if i not in images], "int64")
        if len(fresh):
            images.update(zip(copies[fresh].tolist(), self._copies_of(copies[fresh], x[fresh]), strict=True))
        for i in copies.tolist():
            self._cache[i] = images[i]
            self._cache.move_to_end(i)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return np.stack([images[i] for i in copies.tolist()]), y

    def _copies_of(self, copies: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Augmented images `(n, height, width, channels)`, of the copies by number and the images they are of."""
        generators = [np.random.default_rng((self._random_state, int(i))) for i in copies]
        return np.asarray(self._augment(np.asarray(images), generators))

    def _train_size(self) -> int:
        return self._copies

    def _test_data(self, idxs: np.ndarray | slice) -> tuple:
        return self._dataset.test_data[idxs]

    def _test_size(self) -> int:
        return len(self._dataset.test_data)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._dataset.shape

    @property
    def output_size(self) -> int:
        return self._dataset.output_size


class LayerAugmentation:
    """A Keras layer, called on one image at a time with random states of our own.

    The states are those of its `variables` that aren't among its `weights`: ints, two each.

    Args:
        layer: `keras.Layer`.
    """

    def __init__(self, layer: keras.Layer):
        self.layer = layer

    def __call__(self, images: np.ndarray, generators: list[np.random.Generator]) -> np.ndarray:
        return np.stack([self._one(*pair) for pair in zip(images, generators, strict=True)])

    def _one(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        if not self.layer.built:
            self.layer(image[None], training=True)
        weights = {id(weight) for weight in self.layer.weights}
        for variable in self.layer.variables:
            if id(variable) not in weights and "int" in variable.dtype and tuple(variable.shape) == (2,):
                variable.assign(generator.integers(2**31, size=2))
        return ops.convert_to_numpy(self.layer(image[None], training=True))[0]


class FunctionAugmentation:
    """A function `f(image, seed)` -> image."""

    def __init__(self, function: Callable):
        self.function = function

    def __call__(self, images: np.ndarray, generators: list[np.random.Generator]) -> np.ndarray:
        pairs = zip(images, generators, strict=True)
        return np.stack([np.asarray(self.function(image, int(g.integers(2**31)))) for image, g in pairs])


def _augmentation(params: Any) -> Callable:
    if isinstance(params, dict):
        return Ranges(**params)
    if isinstance(params, keras.Layer):
        return LayerAugmentation(params)
    if callable(params):
        return FunctionAugmentation(params)
    raise ValueError(
        "`augmentation_params` must be a dict of ranges, a Keras layer, or a function f(image, seed). "
        f"Received: augmentation_params={params!r}"
    )
