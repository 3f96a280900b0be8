"""The correction that keeps the gradient estimate honest."""

import keras
import numpy as np
import pytest

from importance_sampling.reweighting import BiasedReweightingPolicy

# Of a pool of 4: w = 1 / (4 P) = [.5, 2, 1, 2.5].
P = np.array([0.5, 0.125, 0.25, 0.1], "float32")
SCORES = np.array([4.0, 1.0, 2.0, 0.0], "float32")


def weights(k, p=P, scores=SCORES):
    return keras.ops.convert_to_numpy(BiasedReweightingPolicy(k).weights(p, 4, scores))


def test_unbiased_weights_are_one_over_the_pool_size_times_the_probability():
    assert BiasedReweightingPolicy().unbiased
    np.testing.assert_allclose(weights(1.0), [0.5, 2, 1, 2.5], rtol=1e-6)


def test_biased_weights_are_a_power_rescaled_to_keep_the_weighted_sum_of_scores():
    # sum(w s) = 2 + 2 + 2 = 6; sum(sqrt(w) s) = 4/sqrt(2) + sqrt(2) + 2 = 6.2426.
    assert not BiasedReweightingPolicy(0.5).unbiased
    expected = np.sqrt([0.5, 2, 1, 2.5]) * 6 / (3 * np.sqrt(2) + 2)
    np.testing.assert_allclose(weights(0.5), expected, rtol=1e-6)
    assert (weights(0.5) * SCORES).sum() == pytest.approx(6, rel=1e-6)


def test_the_exponent_zero_weighs_evenly_and_a_negative_one_leans_to_high_scores():
    # sum(w s) / sum(s) = 6/7.
    np.testing.assert_allclose(weights(0), np.full(4, 6 / 7), rtol=1e-6)
    # w^-1 = [2 .5 1 .4], sum(w^-1 s) = 8 + .5 + 2 = 10.5.
    np.testing.assert_allclose(weights(-1), np.array([2, 0.5, 1, 0.4]) * 6 / 10.5, rtol=1e-6)


@pytest.mark.parametrize("scores", [[0, 0, 0, 0], [1, np.nan, 2, 3], [1, np.inf, 2, 3]])
def test_scores_of_no_use_keep_the_sum_of_the_weights(scores):
    # sum(w) = 6.
    found = weights(0.5, scores=np.array(scores, "float32"))
    np.testing.assert_allclose(found, np.sqrt([0.5, 2, 1, 2.5]) * 6 / np.sqrt([0.5, 2, 1, 2.5]).sum(), rtol=1e-6)


@pytest.mark.parametrize("k", [1.001, float("inf"), float("nan")])
def test_exponents_above_one_are_refused(k):
    with pytest.raises(ValueError, match=rf"`k` must be a number of at most 1.*Received: k={k}"):
        BiasedReweightingPolicy(k)
