"""Augmented datasets: transforms in closed form, reproducible copies, and distributions of the random numbers."""

import keras
import numpy as np
import pytest

from importance_sampling.datasets import InMemoryDataset, InMemoryImageDataset, OntheflyAugmentedImages
from importance_sampling.datasets.affine import RANDOM_NAMES, RandomTransform

# All pixels differ, so that every flip and rotation changes the image.
IMAGE = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]], "float32")


def images(rows=5, size=8, channels=1):
    x = np.random.default_rng(0).random((rows, size, size, channels)).astype("float32")
    return InMemoryImageDataset(x, np.arange(rows), x[:2], np.arange(2))


def transformed(image=IMAGE, uniforms=(), **params):
    """Transform an image by the given uniform numbers; those not given are 0.5."""
    numbers = [[dict(uniforms).get(name, 0.5) for name in RANDOM_NAMES]]
    return RandomTransform(**params).apply(np.asarray(image, "float32")[None, ..., None], np.array(numbers))[0, ..., 0]


ALL_PARAMS = {
    "rotation_range": 30,
    "width_shift_range": 0.3,
    "height_shift_range": 2,
    "shear_range": 20,
    "zoom_range": 0.3,
    "channel_shift_range": 0.2,
    "horizontal_flip": True,
    "vertical_flip": True,
}


def test_the_middle_of_every_range_is_the_identity():
    np.testing.assert_allclose(transformed(**ALL_PARAMS), IMAGE, atol=1e-5)


@pytest.mark.parametrize("uniform, turns", [(1.0, 1), (0.0, -1)])
def test_a_rotation_by_90_degrees_equals_rot90(uniform, turns):
    # At +90 degrees the output pixel (x, y) is read at (-y, x), relative to the centre: counter-clockwise, as in rot90.
    rotated = transformed(rotation_range=90, uniforms={"rotation": uniform})
    np.testing.assert_allclose(rotated, np.rot90(IMAGE, turns), atol=1e-4)


def test_a_shift_below_one_is_a_fraction_of_the_size_and_otherwise_in_pixels():
    line = np.tile(np.array([1.0, 2.0, 3.0, 4.0]), (4, 1))
    right = [1, 1, 2, 3]
    np.testing.assert_allclose(transformed(line, width_shift_range=1, uniforms={"width": 1.0})[0], right, atol=1e-5)
    np.testing.assert_allclose(transformed(line, width_shift_range=0.25, uniforms={"width": 1.0})[0], right, atol=1e-5)
    np.testing.assert_allclose(
        transformed(line, width_shift_range=2, uniforms={"width": 0.0})[0], [3, 4, 4, 4], atol=1e-5
    )
    down = transformed(line.T, height_shift_range=0.25, uniforms={"height": 1.0})[:, 0]
    np.testing.assert_allclose(down, right, atol=1e-5)
    # Half a pixel to the right is the mean of two neighbours.
    half = transformed(line, width_shift_range=1, uniforms={"width": 0.75})[0]
    np.testing.assert_allclose(half, [1, 1.5, 2.5, 3.5], atol=1e-5)


@pytest.mark.parametrize(
    "mode, wanted", [("nearest", [1, 1, 1, 2]), ("constant", [7, 7, 1, 2]), ("reflect", [2, 1, 1, 2])]
)
def test_fill_mode_determines_the_pixels_outside_the_image(mode, wanted):
    line = np.tile(np.array([1.0, 2.0, 3.0, 4.0]), (4, 1))
    out = transformed(line, width_shift_range=2, fill_mode=mode, cval=7.0, uniforms={"width": 1.0})
    np.testing.assert_allclose(out[0], wanted, atol=1e-5)


def test_width_and_height_have_independent_zoom_factors():
    out = transformed(zoom_range=(2.0, 2.0), fill_mode="constant", cval=-1.0)
    wanted = np.full((3, 3), -1.0)
    wanted[1, 1] = 5.0
    np.testing.assert_allclose(out, wanted, atol=1e-5)
    # Along x by 2, along y by 1: the middle column stays.
    out = transformed(zoom_range=(1.0, 2.0), fill_mode="constant", cval=-1.0, uniforms={"zoom_x": 1.0, "zoom_y": 0.0})
    np.testing.assert_allclose(out[:, 1], [2, 5, 8], atol=1e-5)
    np.testing.assert_allclose(out[:, [0, 2]], -1.0, atol=1e-5)


def test_a_shear_of_45_degrees_shifts_each_line_by_its_distance_from_the_centre():
    # x is read at x + y, relative to the centre: the upper line moves right, the lower line left.
    out = transformed(shear_range=45, uniforms={"shear": 1.0})
    np.testing.assert_allclose(out, [[1, 1, 2], [4, 5, 6], [8, 9, 9]], atol=1e-4)


def test_flips_reverse_one_axis_exactly():
    np.testing.assert_array_equal(transformed(horizontal_flip=True, uniforms={"horizontal": 0.49}), IMAGE[:, ::-1])
    np.testing.assert_array_equal(transformed(vertical_flip=True, uniforms={"vertical": 0.0}), IMAGE[::-1])
    np.testing.assert_array_equal(transformed(vertical_flip=True, uniforms={"horizontal": 0.0}), IMAGE)


def test_a_channel_shift_is_clipped_to_the_range_of_the_image():
    # 2 (2 * 0.75 - 1) = 1 is added; the maximum of the image is 9.
    out = transformed(channel_shift_range=2, uniforms={"channel": 0.75})
    np.testing.assert_allclose(out, [[2, 3, 4], [5, 6, 7], [8, 9, 9]])


LAYERS = keras.Sequential([keras.layers.RandomFlip(), keras.layers.RandomTranslation(0.3, 0.3)])


def noisy(image, seed):
    return image + np.random.default_rng(seed).normal(size=image.shape)


@pytest.mark.parametrize("params", [ALL_PARAMS, LAYERS, noisy], ids=["ranges", "layers", "function"])
def test_a_copy_depends_only_on_its_index_and_the_seed(params):
    dset = images()
    first = OntheflyAugmentedImages(dset, params, N=23)
    x, y = first.train_data[:]
    assert x.shape == (23, 8, 8, 1)
    backwards = np.stack([first.train_data[i][0] for i in range(22, -1, -1)])[::-1]
    np.testing.assert_array_equal(backwards, x)
    np.testing.assert_array_equal(OntheflyAugmentedImages(dset, params, N=10).train_data[[3, 9, 3]][0], x[[3, 9, 3]])
    # Copy i comes from sample i % 5, as its label shows. Copies of a sample differ, and so do copies of another seed.
    np.testing.assert_array_equal(y, dset.train_data[np.arange(23) % 5][1])
    assert all(np.abs(x[i] - x[i + 5]).max() > 0.01 for i in range(18))
    other = OntheflyAugmentedImages(dset, params, N=23, random_state=1).train_data[:][0]
    assert all(np.abs(a - b).max() > 0.01 for a, b in zip(x, other, strict=True))


def test_copy_i_comes_from_sample_i_modulo_the_number_of_samples():
    dset = images()
    copies = OntheflyAugmentedImages(dset, lambda image, seed: image + 1)
    assert len(copies.train_data) == 50
    np.testing.assert_array_equal(copies.train_data[[7, 49]][0], dset.train_data[[2, 4]][0] + 1)


def test_test_samples_and_sizes_are_unchanged():
    dset = images()
    copies = OntheflyAugmentedImages(dset, ALL_PARAMS, N=3)
    np.testing.assert_array_equal(copies.test_data[:][0], dset.test_data[:][0])
    assert len(copies.test_data) == 2 and copies.shape == dset.shape and copies.output_size == dset.output_size


def test_the_cache_keeps_the_most_recently_read_copies():
    calls = []

    def counted(image, seed):
        calls.append(seed)
        return image

    copies = OntheflyAugmentedImages(images(), counted, N=10, cache_size=3)
    uncached = OntheflyAugmentedImages(images(), counted, N=10)
    calls.clear()
    x = copies.train_data[[0, 1, 2, 1]][0]
    assert len(calls) == 4
    np.testing.assert_array_equal(x, uncached.train_data[[0, 1, 2, 1]][0])
    calls.clear()
    copies.train_data[[0, 1, 2]]
    copies.train_data[0]
    assert not calls
    copies.train_data[3]  # replaces copy 1, the least recently read
    copies.train_data[[0, 2, 3]]
    assert len(calls) == 1
    copies.train_data[1]
    assert len(calls) == 2


def test_half_of_the_copies_are_flipped_and_shifts_are_uniformly_distributed():
    x = np.zeros((1, 1, 101, 1), "float32")
    x[0, 0, 50] = 1.0
    x[0, 0, 51] = 0.5
    dset = InMemoryDataset(x, np.zeros(1, int), x, np.zeros(1, int))
    copies = OntheflyAugmentedImages(dset, {"horizontal_flip": True}, N=2000).train_data[:][0][:, 0, :, 0]
    # Binomial(2000, 1/2): standard error sqrt(500) = 22.4.
    flipped = (copies[:, 49] == 0.5).sum()
    assert abs(flipped - 1000) < 5 * 22.4, f"{flipped} of 2000 are flipped; 1000 +- 22.4 are expected"
    copies = OntheflyAugmentedImages(dset, {"width_shift_range": 40}, N=2000).train_data[:][0][:, 0, :, 0]
    # The centre of mass of the two pixels is at 50 + 1/3. A uniform shift in +-40 has mean 0 and variance 40^2 / 3.
    shifts = copies @ np.arange(101) / 1.5 - 50 - 1 / 3
    assert abs(shifts.mean()) < 5 * 40 / np.sqrt(3 * 2000), shifts.mean()
    # The variance of the square of a uniform number in +-a is a^4 (1/5 - 1/9).
    assert abs((shifts**2).mean() - 1600 / 3) < 5 * 1600 * np.sqrt((1 / 5 - 1 / 9) / 2000), (shifts**2).mean()


@pytest.mark.parametrize(
    "params, message",
    [
        ({"rotation_range": 200}, "`rotation_range` must be a number, 0 to 180"),
        ({"width_shift_range": -1}, "`width_shift_range` must be a number, at least 0"),
        ({"height_shift_range": [1, 2]}, "`height_shift_range` must be a number"),
        ({"shear_range": 90}, "`shear_range` must be a number, 0 to 89.9"),
        ({"zoom_range": 1.0}, "`zoom_range` must be a number in"),
        ({"zoom_range": (1.2, 0.8)}, "`zoom_range` must be a number in"),
        ({"channel_shift_range": float("nan")}, "`channel_shift_range` must be a number"),
        ({"fill_mode": "mirror"}, "`fill_mode` must be one of nearest"),
        ({"cval": None}, "`cval` must be a number"),
        ({"featurewise_center": True}, "`featurewise_center` isn't supported"),
        ({"samplewise_std_normalization": True}, "`samplewise_std_normalization` isn't supported"),
        ({"zca_whitening": True}, "`zca_whitening` isn't supported.*ZCAWhitening"),
        ({"brightness_range": (0.5, 1.5)}, "`brightness_range` isn't supported"),
        ({"rescale": 1 / 255}, "`rescale` isn't supported"),
        ({"rotate": 3}, "has no argument `rotate`"),
        (3, "`augmentation_params` must be a dict of parameters, a Keras layer, or a function"),
        (keras.layers.Resizing(4, 4), r"must keep the shape of an image.*changes \(8, 8, 1\) to \(4, 4, 1\)"),
        (lambda image, seed: np.random.default_rng().random(image.shape), "the same image for the same seed"),
    ],
)
def test_an_invalid_augmentation_raises_value_error(params, message):
    with pytest.raises(ValueError, match=message):
        OntheflyAugmentedImages(images(), params)


def test_unsupported_parameters_are_accepted_with_values_that_switch_them_off():
    off = {"featurewise_center": False, "zca_whitening": False, "zca_epsilon": 1e-6, "rescale": None, "dtype": None}
    assert repr(RandomTransform(rotation_range=5, **off)) == "RandomTransform(rotation_range=5)"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"N": 0}, "`N` must be an int of at least 1"),
        ({"random_state": -1}, "`random_state` must be an int of at least 0"),
        ({"cache_size": 1.5}, "`cache_size` must be an int of at least 0"),
        ({"dataset": None}, "`dataset` must be a `BaseDataset`"),
        (
            {"dataset": InMemoryDataset(np.ones((2, 3)), np.zeros(2, int), np.ones((2, 3)), np.zeros(2, int))},
            r"must have images of shape \(height, width, channels\)",
        ),
    ],
)
def test_invalid_arguments_of_an_augmented_dataset_raise_value_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        OntheflyAugmentedImages(**{"dataset": images(), "augmentation_params": {}, **arguments})
