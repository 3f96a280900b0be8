"""A dataset that augments images when it reads them, with the same result for the same index.

The augmentation is a dict of parameters (see `affine`), a Keras layer, or a function. Its random numbers depend only on
the index of the copy. Hence a sample that was scored and then drawn is trained on with the same augmentation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from importance_sampling.datasets.affine import RandomTransform
from importance_sampling.datasets.base import BaseDataset, check_dataset
from importance_sampling.utils.validation import is_int


class OntheflyAugmentedImages(BaseDataset):
    """A dataset of augmented copies. Copy i comes from training sample i % len(dataset.train_data).

    The pixels of copy i depend only on `(random_state, i)`, and not on the order of reading. Labels and test samples
    are returned unchanged.

    Args:
        dataset: `BaseDataset` of images `(height, width, channels)`, float.
        augmentation_params: one of

            - a dict with the parameters of Keras 2's `ImageDataGenerator` for rotation, shift, shear, zoom, flip and
              channel shift, as listed in `affine.RandomTransform`. All images of a batch are transformed at once.
            - a Keras layer or a `Sequential` of layers, such as `keras.layers.RandomRotation(0.1)`. It is called on
              one image at a time with training=True, with its seed set for each image. This is slower. Set
              `value_range` where the layer has this argument.
            - a function `f(image, seed)` -> image, with an array `(height, width, channels)` and an int in [0, 2**31).
        N: int >= 1 or None (default); the number of augmented training samples. None means
            10 * len(dataset.train_data).
        random_state: int >= 0, default 0; the seed of the augmentation.
        cache_size: int >= 0 or None (default); the number of most recently read augmented images to cache. None means
            no cache.

    Raises:
        ValueError: an argument is out of range; or the augmentation of the first image changes its shape, or returns
            different images for the same seed.

    Example:
        >>> x = np.random.default_rng(0).random((4, 8, 8, 1))
        >>> dset = InMemoryImageDataset(x, np.arange(4), x, np.arange(4))
        >>> augmented = OntheflyAugmentedImages(dset, {"rotation_range": 15, "horizontal_flip": True}, N=100)
        >>> first, second = augmented.train_data[[42, 42]][0]
        >>> bool((first == second).all())
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
                f"Received: dataset with samples of shape {dataset.shape}"
            )
        if N is not None and (not is_int(N) or N < 1):
            raise ValueError(f"`N` must be an int of at least 1, or None for 10 copies per sample. Received: N={N!r}")
        if not is_int(random_state) or random_state < 0:
            raise ValueError(f"`random_state` must be an int of at least 0. Received: random_state={random_state!r}")
        if cache_size is not None and (not is_int(cache_size) or cache_size < 0):
            raise ValueError(
                "`cache_size` must be an int of at least 0, in images, or None for no cache. "
                f"Received: cache_size={cache_size!r}"
            )
        self._dataset = dataset
        self._augment = _augmentation(augmentation_params)
        self._num_samples = len(dataset.train_data)
        self._num_copies = 10 * self._num_samples if N is None else int(N)
        self._random_state = int(random_state)
        self._cache_size = int(cache_size or 0)
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        if not self._num_samples:
            raise ValueError("`dataset` must have training samples. Received: dataset with 0 training samples")
        trials = [self._augmented(np.arange(4), np.repeat(dataset.train_data[:1][0], 4, axis=0)) for _ in range(2)]
        if trials[0].shape[1:] != tuple(dataset.shape):
            raise ValueError(
                "`augmentation_params` must keep the shape of an image, because test samples aren't augmented. "
                f"Received: augmentation_params that changes {dataset.shape} to {trials[0].shape[1:]}"
            )
        if not np.array_equal(*trials):
            raise ValueError(
                "`augmentation_params` must return the same image for the same seed: derive all random numbers from "
                f"the seed. Received: augmentation_params={augmentation_params!r}"
            )

    def _train_data(self, idxs: np.ndarray | slice) -> tuple:
        copies = np.arange(self._num_copies)[idxs]
        x, y = self._dataset.train_data[copies % self._num_samples]
        if not len(copies):
            return x, y
        if not self._cache_size:
            return self._augmented(copies, x), y
        images = {int(i): self._cache[i] for i in copies if i in self._cache}
        missing = np.array([position for position, i in enumerate(copies) if i not in images], "int64")
        if len(missing):
            images.update(zip(copies[missing].tolist(), self._augmented(copies[missing], x[missing]), strict=True))
        for i in copies.tolist():
            self._cache[i] = images[i]
            self._cache.move_to_end(i)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return np.stack([images[i] for i in copies.tolist()]), y

    def _augmented(self, copies: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Return augmented images.

        Args:
            copies: int `(n,)`, the indices of the copies.
            images: `(n, height, width, channels)`, the original images.

        Returns:
            `(n, height, width, channels)`.
        """
        generators = [np.random.default_rng((self._random_state, int(i))) for i in copies]
        return np.asarray(self._augment(np.asarray(images), generators))

    def _train_size(self) -> int:
        return self._num_copies

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
    """Augmentation by a Keras layer, called on one image at a time, with its seed set for each image.

    The seeds are the states of the layer's seed generators: int variables of shape (2,) that are in `variables` but not
    in `weights`.

    Args:
        layer: `keras.Layer`.
    """

    def __init__(self, layer: keras.Layer):
        self.layer = layer

    def __call__(self, images: np.ndarray, generators: list[np.random.Generator]) -> np.ndarray:
        return np.stack([self._augment_image(*pair) for pair in zip(images, generators, strict=True)])

    def _augment_image(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        if not self.layer.built:
            self.layer(image[None], training=True)
        weights = {id(weight) for weight in self.layer.weights}
        for variable in self.layer.variables:
            if id(variable) not in weights and "int" in variable.dtype and tuple(variable.shape) == (2,):
                variable.assign(generator.integers(2**31, size=2))
        return ops.convert_to_numpy(self.layer(image[None], training=True))[0]


class FunctionAugmentation:
    """Augmentation by a function `f(image, seed)` -> image."""

    def __init__(self, function: Callable):
        self.function = function

    def __call__(self, images: np.ndarray, generators: list[np.random.Generator]) -> np.ndarray:
        pairs = zip(images, generators, strict=True)
        return np.stack([np.asarray(self.function(image, int(g.integers(2**31)))) for image, g in pairs])


def _augmentation(params: Any) -> Callable:
    if isinstance(params, dict):
        return RandomTransform(**params)
    if isinstance(params, keras.Layer):
        return LayerAugmentation(params)
    if callable(params):
        return FunctionAugmentation(params)
    raise ValueError(
        "`augmentation_params` must be a dict of parameters, a Keras layer, or a function f(image, seed). "
        f"Received: augmentation_params={params!r}"
    )
