"""The uncertainty set of old scores: its fits, the probabilities that minimise its worst variance, and the sampler."""

import numpy as np
import pytest
from toys import SCORES, SIZE, Toy

from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import RobustSampler
from importance_sampling.samplers.calibration import DECAY, NUM_AGES, cells
from importance_sampling.samplers.uncertainty_set import UncertaintySet, fit_deviation, fit_expected

FEATURES = np.array([[0.1, 1.0, 5.0], [2.0, 2.0, 2.0]])  # three magnitudes of the last score, and a constant
COUNTS = np.array([[3.0, 7.0, 2.0], [0.0, 4.0, 0.0], [0.0, 0.0, 0.0]])  # three ages


def sums(mean, deviation):
    """Return the sums of u and of u^2 over observations with this mean and this standard deviation."""
    return COUNTS * mean, COUNTS * (np.square(mean) + np.square(deviation))


def test_expected_squares_are_linear_in_the_features_if_the_observations_are():
    linear = np.array([[0.75, 0.125]]) @ FEATURES
    fitted = fit_expected(FEATURES, COUNTS[:1], COUNTS[:1] * linear) @ FEATURES
    np.testing.assert_allclose(fitted, linear, rtol=1e-3)


def test_the_expected_square_of_a_single_magnitude_is_the_mean_and_its_deviation_the_standard_deviation():
    squares, fourths = sums(3.5, 0.5)
    expected = fit_expected(FEATURES, COUNTS, squares) @ FEATURES
    deviation = fit_deviation(FEATURES, COUNTS, squares, fourths, expected) @ FEATURES
    assert expected[1, 1] == pytest.approx(3.5) and deviation[1, 1] == pytest.approx(0.5)


def test_the_expected_squares_are_fitted_by_relative_errors():
    # sum(u / (a s) + log(a s)) over u = 1, s = 1 and u = 300, s = 100: a is the mean of u / s. Least squares give 3.
    features = np.array([[1.0, 100.0]])
    fitted = fit_expected(features, np.ones((1, 2)), np.array([[1.0, 300.0]]))
    assert fitted[0, 0] == pytest.approx(2.0)


def test_an_age_without_observations_trusts_the_last_score_and_the_mean_equally():
    c = fit_expected(FEATURES, COUNTS, COUNTS)
    np.testing.assert_array_equal(c[2], [0.5, 0.5])
    np.testing.assert_array_equal(fit_deviation(FEATURES, COUNTS, COUNTS, COUNTS, c @ FEATURES)[2], [0.0, 0.0])


def test_the_observed_deviations_lie_on_the_border_of_the_uncertainty_set():
    mean, deviation = np.array([1.0, 1.5, 8.0]), np.array([0.3, 1.4, 2.0])
    squares, fourths = sums(mean, deviation)
    c = fit_expected(FEATURES, COUNTS, squares) @ FEATURES
    d = fit_deviation(FEATURES, COUNTS, squares, fourths, c) @ FEATURES
    observed = COUNTS * (np.square(mean - c) + np.square(deviation))  # sums of (u - c)^2
    np.testing.assert_allclose((observed[:2] / (d * c)[:2]).sum(1), (COUNTS * d / c)[:2].sum(1), rtol=1e-3)


def test_the_probabilities_minimise_the_largest_variance_of_the_set():
    c, d, width = np.array([4.0, 1.0, 0.25, 0.01]), np.array([1.0, 2.0, 0.1, 0.3]), 1.5
    random = np.random.default_rng(0)

    def largest(p):
        """Return the largest sum(u / p) of many squares on the border of the set for the probabilities p."""
        directions = np.concatenate([d[None], random.normal(size=(4000, 4)) * np.sqrt(d * p)])
        lengths = np.sqrt((np.square(directions) / (d * p)).sum(1) / (width**2 * (d / p).sum()))
        return ((c + directions / lengths[:, None]) / p).sum(1)

    best = np.sqrt(c + width * d)
    best /= best.sum()
    values = largest(best)
    assert values[0] == pytest.approx(((c + width * d) / best).sum())
    assert values.max() == values[0] > values[1:].max() > 0.95 * values[0]
    for other in (c, c + width * d, np.sqrt(c), np.ones(4), best + 0.01):
        assert largest(other / other.sum())[0] > values[0]


def measured(width=1.0, batches=40):
    """Return a set with scores that repeat after a short time, and are independent of the last score after a long."""
    random, one = np.random.default_rng(1), UncertaintySet(width)
    for _ in range(batches):
        last = random.choice([0.25, 1.0, 4.0], 128)
        old = np.arange(128) % 2 == 0
        one.update(cells(last, np.where(old, 8.0, 0.1)), np.where(old, random.choice([0.25, 1.0, 4.0], 128), last))
    return one


def test_old_scores_are_trusted_as_far_as_they_predicted_the_next_ones():
    low_young, high_young, low_old, high_old = measured(0.0).expected_scores()[
        cells(np.array([0.25, 4.0] * 2), np.array([0.1, 0.1, 8.0, 8.0]))
    ]
    assert high_young / low_young > 8  # of 16
    assert high_old / low_old < 1.5
    mean_square = np.mean([0.25**2, 1.0, 4.0**2])
    assert high_old == pytest.approx(np.sqrt(mean_square), rel=0.2)


def test_a_wider_set_draws_scores_that_say_little_more_uniformly_by_their_deviation():
    narrow, wide = (measured(width).expected_scores() for width in (0.0, 2.0))
    young, old = cells(np.array([4.0, 4.0]), np.array([0.1, 8.0]))
    assert wide[old] / narrow[old] > 1.3 > 1.1 > wide[young] / narrow[young] > 1.0


def test_samples_without_a_score_have_the_squares_of_first_scores():
    unseen = cells(np.array([np.nan]), np.zeros(1))[0]
    one = UncertaintySet(width=2.0)
    one.update(np.full(2, unseen), np.array([1.0, 3.0]))  # squares 1 and 9: 5 +- 4
    assert one.expected_scores()[unseen] == pytest.approx(np.sqrt(5 + 2 * 4))


def test_ages_with_few_observations_take_those_of_all_ages():
    one = UncertaintySet(width=0.0)
    last = np.random.default_rng(2).choice([0.25, 1.0, 4.0], 512)
    one.update(cells(last, np.full(512, 1.0)), last)
    by_age = one.expected_scores()[:-1].reshape(NUM_AGES, -1)
    np.testing.assert_allclose(by_age[[0, 5]], by_age[[3, 3]])  # observed: the fourth range, from one epoch on


def test_observations_of_the_uncertainty_set_decay():
    one = UncertaintySet()
    one.update(np.array([7]), np.array([3.0]))
    one.update(np.array([8]), np.array([1.0]))
    assert one.fourths[7] == pytest.approx(81 * DECAY) and one.counts[7] == pytest.approx(DECAY)


def test_the_sampler_draws_by_the_worst_case():
    sampler = RobustSampler(Toy(SCORES), UNBIASED, 0.5, seed=3)
    last, at = np.empty(SIZE, "float32"), np.empty(SIZE, "float32")
    for number in range(5 * SIZE // 12):
        drawn = sampler.draw(12)
        last[drawn.indices], at[drawn.indices] = sampler.dataset.scores(drawn.indices), 12 * (number + 1) / SIZE
        sampler.update(drawn.indices, sampler.dataset.scores(drawn.indices))
    e = sampler.calibration.expected_scores()[cells(last, 5 - at)]
    drawn = sampler.draw(12)  # the first batch of an epoch
    p = 0.9 * e / e.sum() + 0.1 / SIZE
    np.testing.assert_allclose(drawn.weights, 1 / (SIZE * p[drawn.indices]), rtol=1e-4)
    assert sampler.calibration.width == 0.5 and drawn.weights.max() > 1.5 * drawn.weights.min()


@pytest.mark.parametrize("width", [-1, float("inf"), "1"])
def test_a_width_that_is_no_number_of_at_least_0_is_refused(width):
    with pytest.raises(ValueError, match=r"`width` must be a number of at least 0. Received: width="):
        RobustSampler(Toy(SCORES), UNBIASED, width)
