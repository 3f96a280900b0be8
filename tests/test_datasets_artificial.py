"""The artificial data of [C16] against its formula, and whitening against its definition."""

import numpy as np
import pytest

from importance_sampling.datasets import CanevetICML2016, InMemoryDataset, ZCAWhitening
from importance_sampling.datasets.canevet import probability


def everything(dset):
    train, test = dset.train_data[:], dset.test_data[:]
    return tuple(np.concatenate(parts) for parts in zip(train, test, strict=True))


def test_the_probability_of_a_label_by_hand():
    # c(1/2) = sin(4) / 3 + 1/2 = -0.756802 / 3 + 0.5 = 0.247733.
    assert probability(0.5, 0.247733, 40) == pytest.approx(0.5, abs=1e-5)
    # 1/40 above the curve the exponent is 1: 1 / (1 + e) = 0.268941; as far below it, e / (1 + e).
    assert probability(0.5, 0.272733, 40) == pytest.approx(0.268941, abs=1e-5)
    assert probability(0.5, 0.222733, 40) == pytest.approx(0.731059, abs=1e-5)
    # c(0) = sin(4 / 32) / 3 + 1/2 = 0.541558.
    assert probability(0.0, 0.541558, 1000) == pytest.approx(0.5, abs=1e-3)
    assert probability(0.5, 1.0, 1e5) == 0 and probability(0.5, 0.0, 1e5) == 1


def test_every_point_of_the_grid_is_in_one_of_the_two_sets_once():
    dset = CanevetICML2016(N=12, test_split=0.25)
    assert len(dset.test_data) == 36 and len(dset.train_data) == 108
    assert dset.shape == (2,) and dset.output_size == 2
    x, _ = everything(dset)
    assert x.dtype == np.float32
    steps = np.round(x * 11).astype(int)
    np.testing.assert_allclose(x, steps / 11, atol=1e-6)
    assert len({tuple(step) for step in steps}) == 144


def test_labels_near_the_boundary_are_as_frequent_as_the_formula_says():
    dset = CanevetICML2016(N=400, smooth=40)
    x, y = everything(dset)
    np.testing.assert_array_equal(y.sum(axis=1), 1)
    a, b = x.astype("float64").T
    p = 1 / (1 + np.exp(40 * (b - (np.sin(4 * (a + 0.5) ** 5) / 3 + 0.5))))
    for low in np.arange(0.05, 0.95, 0.1):
        for half in (a < 0.5, a >= 0.5):
            among = (p >= low) & (p < low + 0.1) & half
            off = (y[among, 1] - p[among]).sum() / np.sqrt((p * (1 - p))[among].sum())
            assert among.sum() > 500
            assert abs(off) < 5, f"p in [{low:.2f}, {low + 0.1:.2f}): {off:.1f} standard errors off"


def test_a_seed_makes_the_same_data_and_another_seed_others():
    first, again, other = (CanevetICML2016(N=30, seed=seed).train_data[:] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()


def test_the_test_set_is_drawn_at_random():
    x, _ = CanevetICML2016(N=100, test_split=0.5).test_data[:]
    # 5000 of 10000 without replacement: the mean of a coordinate has the error sqrt(1/12 / 5000 / 2) = 0.0029.
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
def test_arguments_of_the_artificial_data_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        CanevetICML2016(**{"N": 10, **arguments})


def mixed(rows=3000, shape=(2, 3)):
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, 6)) @ random.normal(size=(6, 6)) + random.normal(size=6)
    y = np.zeros(rows, int)
    return InMemoryDataset(x.reshape(rows, *shape), y, x[:7].reshape(7, *shape), y[:7])


def test_whitened_training_rows_have_mean_zero_and_identity_covariance():
    white = ZCAWhitening(mixed())
    x, _ = white.train_data[:]
    assert x.shape == (3000, 2, 3) == (len(white.train_data), *white.shape)
    x = x.reshape(-1, 6)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(x, rowvar=False), np.eye(6), atol=1e-4)


def test_the_map_is_symmetric_the_root_of_the_inverse_covariance():
    # By hand: C = [[5, 3], [3, 5]] has eigenvalues 8 and 2 along (1, 1) and (1, -1), so that C^(-1/2) has
    # (1/sqrt(8) + 1/sqrt(2)) / 2 = 0.530330 on the diagonal and (1/sqrt(8) - 1/sqrt(2)) / 2 = -0.176777 beside it.
    # Four rows +-(a, a), +-(b, -b) have C = 2/3 [[a^2 + b^2, a^2 - b^2], ...]: a^2 = 6, b^2 = 1.5.
    a, b = np.sqrt(6), np.sqrt(1.5)
    x = np.array([[a, a], [-a, -a], [b, -b], [-b, b]]) + [10.0, -3.0]
    test = np.array([[11.0, -3.0], [10.0, -2.0]])
    white = ZCAWhitening(InMemoryDataset(x, np.zeros(4, int), test, np.zeros(2, int)), epsilon=0)
    np.testing.assert_allclose(white.test_data[:][0], [[0.530330, -0.176777], [-0.176777, 0.530330]], atol=1e-5)


def test_test_rows_are_whitened_by_what_was_fitted_on_training_rows():
    dset = mixed()
    white = ZCAWhitening(dset)
    np.testing.assert_allclose(white.test_data[:][0], white.train_data[:7][0], atol=1e-5)
    assert len(white.test_data) == 7 and white.output_size == 1


def test_whitening_needs_rows_that_vary():
    x = np.ones((5, 2))
    flat = InMemoryDataset(x, np.zeros(5, int), x, np.zeros(5, int))
    np.testing.assert_array_equal(ZCAWhitening(flat).train_data[:][0], 0)
    with pytest.raises(ValueError, match="`epsilon` must be above 0 where x doesn't vary"):
        ZCAWhitening(flat, epsilon=0)
    with pytest.raises(ValueError, match="`epsilon` must be a finite number of at least 0"):
        ZCAWhitening(flat, epsilon=-1)
    with pytest.raises(ValueError, match="at least 2 training rows"):
        ZCAWhitening(InMemoryDataset(x[:1], [0], x, np.zeros(5, int)))
    with pytest.raises(ValueError, match="`dataset` must be a `BaseDataset`"):
        ZCAWhitening(x)
