"""The artificial dataset of [C16] is compared with its formula, and ZCA whitening with its definition."""

import numpy as np
import pytest

from importance_sampling.datasets import CanevetICML2016, InMemoryDataset, ZCAWhitening
from importance_sampling.datasets.canevet import probability


def all_samples(dset):
    train, test = dset.train_data[:], dset.test_data[:]
    return tuple(np.concatenate(parts) for parts in zip(train, test, strict=True))


def test_label_probabilities_equal_values_computed_by_hand():
    # c(1/2) = sin(4) / 3 + 1/2 = -0.756802 / 3 + 0.5 = 0.247733.
    assert probability(0.5, 0.247733, 40) == pytest.approx(0.5, abs=1e-5)
    # 1/40 above the curve the exponent is 1, so p = 1 / (1 + e) = 0.268941; 1/40 below it, p = e / (1 + e).
    assert probability(0.5, 0.272733, 40) == pytest.approx(0.268941, abs=1e-5)
    assert probability(0.5, 0.222733, 40) == pytest.approx(0.731059, abs=1e-5)
    # c(0) = sin(4 / 32) / 3 + 1/2 = 0.541558.
    assert probability(0.0, 0.541558, 1000) == pytest.approx(0.5, abs=1e-3)
    assert probability(0.5, 1.0, 1e5) == 0 and probability(0.5, 0.0, 1e5) == 1


def test_every_grid_point_is_in_exactly_one_of_training_and_test_set():
    dset = CanevetICML2016(N=12, test_split=0.25)
    assert len(dset.test_data) == 36 and len(dset.train_data) == 108
    assert dset.shape == (2,) and dset.output_size == 2
    x, _ = all_samples(dset)
    assert x.dtype == np.float32
    steps = np.round(x * 11).astype(int)
    np.testing.assert_allclose(x, steps / 11, atol=1e-6)
    assert len({tuple(step) for step in steps}) == 144


def test_label_frequencies_near_the_curve_match_the_formula():
    dset = CanevetICML2016(N=400, smooth=40)
    x, y = all_samples(dset)
    np.testing.assert_array_equal(y.sum(axis=1), 1)
    a, b = x.astype("float64").T
    p = 1 / (1 + np.exp(40 * (b - (np.sin(4 * (a + 0.5) ** 5) / 3 + 0.5))))
    for low in np.arange(0.05, 0.95, 0.1):
        for half in (a < 0.5, a >= 0.5):
            selected = (p >= low) & (p < low + 0.1) & half
            deviation = (y[selected, 1] - p[selected]).sum() / np.sqrt((p * (1 - p))[selected].sum())
            assert selected.sum() > 500
            assert abs(deviation) < 5, f"p in [{low:.2f}, {low + 0.1:.2f}): off by {deviation:.1f} standard errors"


def test_equal_seeds_give_equal_data_and_different_seeds_different_data():
    first, second, other = (CanevetICML2016(N=30, seed=seed).train_data[:] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert (first[0] != other[0]).any()


def test_the_test_set_is_drawn_at_random():
    x, _ = CanevetICML2016(N=100, test_split=0.5).test_data[:]
    # 5000 of 10000 points without replacement: the standard error of a mean is sqrt(1/12 / 5000 / 2) = 0.0029.
    assert np.abs(x.mean(axis=0) - 0.5).max() < 5 * 0.0029


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"N": 1}, "`N` must be an int in"),
        ({"N": 10.0}, "`N` must be an int in"),
        ({"test_split": 1.0}, "`test_split` must be a number in"),
        ({"smooth": "40"}, "`smooth` must be a finite number above 0"),
        ({"smooth": 0}, "`smooth` must be a finite number above 0"),
        ({"seed": -1}, "`seed` must be an int of at least 0"),
    ],
)
def test_invalid_arguments_of_the_artificial_dataset_raise_value_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        CanevetICML2016(**{"N": 10, **arguments})


def correlated(rows=3000, shape=(2, 3)):
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, 6)) @ random.normal(size=(6, 6)) + random.normal(size=6)
    y = np.zeros(rows, int)
    return InMemoryDataset(x.reshape(rows, *shape), y, x[:7].reshape(7, *shape), y[:7])


def test_whitened_training_samples_have_mean_zero_and_identity_covariance():
    white = ZCAWhitening(correlated())
    x, _ = white.train_data[:]
    assert x.shape == (3000, 2, 3) == (len(white.train_data), *white.shape)
    x = x.reshape(-1, 6)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(x, rowvar=False), np.eye(6), atol=1e-4)


def test_the_transform_is_the_symmetric_square_root_of_the_inverse_covariance():
    # By hand: C = [[5, 3], [3, 5]] has eigenvalues 8 and 2 along (1, 1) and (1, -1), so C^(-1/2) has the diagonal
    # entries (1/sqrt(8) + 1/sqrt(2)) / 2 = 0.530330 and the others (1/sqrt(8) - 1/sqrt(2)) / 2 = -0.176777.
    # The four samples +-(a, a), +-(b, -b) have C = 2/3 [[a^2 + b^2, a^2 - b^2], ...]: a^2 = 6, b^2 = 1.5.
    a, b = np.sqrt(6), np.sqrt(1.5)
    x = np.array([[a, a], [-a, -a], [b, -b], [-b, b]]) + [10.0, -3.0]
    test = np.array([[11.0, -3.0], [10.0, -2.0]])
    white = ZCAWhitening(InMemoryDataset(x, np.zeros(4, int), test, np.zeros(2, int)), epsilon=0)
    np.testing.assert_allclose(white.test_data[:][0], [[0.530330, -0.176777], [-0.176777, 0.530330]], atol=1e-5)


def test_test_samples_are_whitened_with_the_statistics_of_the_training_set():
    dset = correlated()
    white = ZCAWhitening(dset)
    np.testing.assert_allclose(white.test_data[:][0], white.train_data[:7][0], atol=1e-5)
    assert len(white.test_data) == 7 and white.output_size == 1


CONSTANT = InMemoryDataset(np.ones((5, 2)), np.zeros(5, int), np.ones((5, 2)), np.zeros(5, int))
ONE_SAMPLE = InMemoryDataset(np.ones((1, 2)), [0], np.ones((5, 2)), np.zeros(5, int))


def test_a_constant_dataset_is_whitened_to_zeros():
    np.testing.assert_array_equal(ZCAWhitening(CONSTANT).train_data[:][0], 0)


@pytest.mark.parametrize(
    "dataset, epsilon, message",
    [
        (CONSTANT, 0, "`epsilon` must be above 0 because some directions of x have no variance"),
        (CONSTANT, -1, "`epsilon` must be a finite number of at least 0"),
        (ONE_SAMPLE, 1e-6, "at least 2 training samples"),
        (np.ones((5, 2)), 1e-6, "`dataset` must be a `BaseDataset`"),
    ],
)
def test_invalid_arguments_of_whitening_raise_value_error(dataset, epsilon, message):
    with pytest.raises(ValueError, match=message):
        ZCAWhitening(dataset, epsilon=epsilon)
