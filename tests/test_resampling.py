"""Draws from given random numbers, and the first two moments of the number of draws of a candidate."""

import keras
import numpy as np
import pytest
from frameworks import compile_function

from importance_sampling.samplers import resampling

pytestmark = pytest.mark.usefixtures("host_and_device")
SYSTEMATIC, MULTINOMIAL = resampling.get("systematic"), resampling.get("multinomial")
by_scheme = pytest.mark.parametrize("scheme", [SYSTEMATIC, MULTINOMIAL], ids=lambda scheme: scheme.name)
ALMOST_ONE = float(np.nextafter(np.float32(1), np.float32(0)))
# Cumulative: 0.1, 0.7, 0.7, 1.
P = np.array([0.1, 0.6, 0.0, 0.3], "float32")


def positions(scheme, p, uniforms, n):
    drawn = scheme.positions(np.asarray(p, "float32"), np.asarray(uniforms, "float32"), n)
    return keras.ops.convert_to_numpy(drawn)


@pytest.mark.parametrize(
    ("u", "expected"),
    [
        (0.0, [0, 1, 1, 3]),  # quantiles 0, .25, .5, .75
        (0.5, [1, 1, 1, 3]),  # .125, .375, .625, .875
        (0.9, [1, 1, 3, 3]),  # .225, .475, .725, .975
        (ALMOST_ONE, [1, 1, 3, 3]),  # just below .25, .5, .75, 1
    ],
)
def test_systematic_draws_are_at_equally_spaced_quantiles(u, expected):
    np.testing.assert_array_equal(positions(SYSTEMATIC, P, [u], 4), expected)


def test_multinomial_draws_are_at_the_quantiles_of_the_random_numbers():
    # 0 is in [0, .1), .05 too; .1 and .65 in [.1, .7), .75 and the last in [.7, 1).
    drawn = positions(MULTINOMIAL, P, [0.95, 0.05, 0.75, 0.0, 0.65, ALMOST_ONE], 6)
    np.testing.assert_array_equal(drawn, [3, 0, 3, 0, 1, 3])


def test_systematic_draws_need_one_random_number_and_multinomial_draws_one_per_position():
    assert SYSTEMATIC.num_uniforms(7) == 1
    assert MULTINOMIAL.num_uniforms(7) == 7


@by_scheme
@pytest.mark.parametrize("p", [[0, 0.5, 0, 0.5, 0], [0, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 1e-6, 1 - 1e-6]])
@pytest.mark.parametrize("u", [0.0, 0.25, 0.5, ALMOST_ONE])
def test_a_candidate_with_probability_zero_is_never_drawn(scheme, p, u):
    drawn = positions(scheme, p, np.full(scheme.num_uniforms(8), u), 8)
    assert drawn.shape == (8,)
    assert set(drawn) <= set(np.flatnonzero(p))


@by_scheme
def test_positions_are_in_range_if_rounded_probabilities_do_not_sum_to_one(scheme):
    # A thousand equal probabilities don't sum to 1 in float32.
    p = np.full(1000, 0.001, "float32")
    assert np.cumsum(p)[-1] != 1
    assert positions(scheme, p, np.full(scheme.num_uniforms(4), ALMOST_ONE), 4).max() == 999
    p[-3:] = 0
    assert positions(scheme, p, np.full(scheme.num_uniforms(4), ALMOST_ONE), 4).max() == 996


def test_systematic_counts_are_the_expected_counts_rounded_down_or_up():
    rng = np.random.default_rng(3)
    p = rng.lognormal(sigma=1.5, size=50)
    p[7] = 0
    p /= p.sum()
    for u in (0.0, 0.3, 0.77, ALMOST_ONE):
        counts = np.bincount(positions(SYSTEMATIC, p, [u], 20), minlength=50)
        assert ((counts == np.floor(20 * p)) | (counts == np.ceil(20 * p))).all()
    assert np.ceil(20 * p).max() >= 3


@by_scheme
def test_counts_have_the_expected_mean_and_the_stated_second_moment(scheme):
    draws, n, rng = 2000, 16, np.random.default_rng(1)
    p = rng.lognormal(sigma=1.2, size=40).astype("float32")
    p /= p.sum()
    q = n * p
    counts = np.empty((draws, 40))
    draw = compile_function(lambda uniforms: scheme.positions(keras.ops.convert_to_tensor(p), uniforms, n))
    for i in range(draws):
        uniforms = rng.random(scheme.num_uniforms(n), dtype="float32")
        counts[i] = np.bincount(keras.ops.convert_to_numpy(draw(keras.ops.convert_to_tensor(uniforms))), minlength=40)
    squares = counts**2
    stated = keras.ops.convert_to_numpy(scheme.second_moment(q)) * q**2
    if scheme is MULTINOMIAL:
        stated -= q * p  # the formula is the Poisson limit; n draws have n (n - 1) p^2 instead of n^2 p^2
    for measured, expected in ((counts, q), (squares, stated)):
        error = measured.std(axis=0) / np.sqrt(draws)
        assert (np.abs(measured.mean(axis=0) - expected) < 5 * error + 1e-5).all()
    assert q.max() > 1.5 and q.min() < 0.1


def test_second_moments_at_four_expected_counts_are_those_computed_by_hand():
    # Systematic: counts 0 or 1: E[c^2] = .25; 1 always: 1; 1 or 2 with 1/2: (1 + 4)/2 = 2.5; 3 always: 9.
    q = np.array([0.25, 1.0, 1.5, 3.0], "float32")
    systematic = keras.ops.convert_to_numpy(SYSTEMATIC.second_moment(q))
    np.testing.assert_allclose(systematic, [0.25 / 0.0625, 1, 2.5 / 2.25, 1], rtol=1e-6)
    # Poisson: E[c^2] = q^2 + q.
    multinomial = keras.ops.convert_to_numpy(MULTINOMIAL.second_moment(q))
    np.testing.assert_allclose(multinomial, [5, 2, 5 / 3, 4 / 3], rtol=1e-6)


def test_unknown_resampling_schemes_are_refused():
    message = r"`resampling` must be one of \['multinomial', 'systematic'\].*Received: resampling='stratified'"
    with pytest.raises(ValueError, match=message):
        resampling.get("stratified")
