"""Probabilities of scores, and draws from a pool: positions, weights and scores."""

import keras
import numpy as np
import pytest
from frameworks import compile_function

from importance_sampling.reweighting import BiasedReweightingPolicy
from importance_sampling.samplers import PoolSampler, resampling
from importance_sampling.utils.numerics import clean_scores, probabilities

pytestmark = pytest.mark.usefixtures("host_and_device")
by_scheme = pytest.mark.parametrize("name", ["systematic", "multinomial"])
unusable = pytest.mark.parametrize(
    "scores",
    [np.zeros(5), [1, np.nan, 2, 3, 4], [1, np.inf, 2, 3, 4], [1, -1, 2, 3, 4], [np.nan] * 5],
    ids=["zeros", "a NaN", "an infinity", "a negative", "all NaN"],
)
# Sum 10.
SCORES = np.array([4.0, 0.0, 1.0, 3.0, 2.0], "float32")


def n(tensor):
    return keras.ops.convert_to_numpy(tensor)


def sampler(pool=5, batch=2, alpha=0.1, name="systematic", k=1.0):
    return PoolSampler(pool, batch, alpha, resampling.get(name), BiasedReweightingPolicy(k))


def test_probabilities_mix_the_normalised_scores_with_uniform():
    # 0.8 * [.4 0 .1 .3 .2] + 0.2 / 5
    np.testing.assert_allclose(n(probabilities(SCORES, 0.2)), [0.36, 0.04, 0.12, 0.28, 0.2], rtol=1e-6)
    np.testing.assert_allclose(n(probabilities(SCORES, 1.0)), np.full(5, 0.2), rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.7])
def test_probabilities_sum_to_one_and_are_at_least_the_uniform_share(alpha):
    scores = np.random.default_rng(0).lognormal(sigma=3, size=300).astype("float32")
    scores[:100] = 0
    p = n(probabilities(scores, alpha))
    assert p.sum(dtype="float64") == pytest.approx(1, abs=1e-5)
    assert p.min() == pytest.approx(alpha / 300, rel=1e-5)
    assert p.max() > 10 * alpha / 300


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1e20, 1e37])
def test_scores_of_any_scale_have_the_same_probabilities(scale):
    p = n(probabilities(SCORES * np.float32(scale), 0.2))
    np.testing.assert_allclose(p, [0.36, 0.04, 0.12, 0.28, 0.2], rtol=1e-5)


def test_half_precision_scores_are_summed_in_single_precision():
    # 4 * 60000 is past what float16 holds.
    p = n(probabilities(np.array([6e4, 0, 6e4, 6e4, 6e4], "float16"), 0.2))
    np.testing.assert_allclose(p, [0.24, 0.04, 0.24, 0.24, 0.24], rtol=1e-6)


@unusable
def test_unusable_scores_give_uniform_probabilities(scores):
    scores = np.array(scores, "float32")
    cleaned, usable = clean_scores(scores)
    assert not usable
    np.testing.assert_array_equal(n(cleaned), np.ones(5))
    np.testing.assert_allclose(n(probabilities(scores, 0.1)), np.full(5, 0.2), rtol=1e-6)


@unusable
@by_scheme
@pytest.mark.parametrize("k", [1.0, 0.5])
def test_unusable_scores_give_weights_of_one(scores, name, k):
    pool_sampler = sampler(batch=3, name=name, k=k)
    picked = pool_sampler.pick(np.array(scores, "float32"), np.full(pool_sampler.num_uniforms, 0.3, "float32"))
    np.testing.assert_allclose(n(picked.weights), [1, 1, 1], rtol=1e-6)


def test_usable_scores_are_scaled_to_a_maximum_of_one():
    cleaned, usable = clean_scores(SCORES)
    assert usable
    np.testing.assert_allclose(n(cleaned), SCORES / 4)


@by_scheme
@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_no_weight_exceeds_one_over_alpha(name, alpha):
    scores = np.zeros(40, "float32")
    scores[:2] = [1e6, 1]
    pool_sampler = sampler(40, 20, alpha, name)
    largest = 0
    for u in np.linspace(0, 0.99, 20):
        uniforms = (u + np.arange(pool_sampler.num_uniforms) / pool_sampler.num_uniforms) % 1
        largest = max(largest, n(pool_sampler.pick(scores, uniforms.astype("float32")).weights).max())
    assert largest == pytest.approx(1 / alpha, rel=1e-5)


def test_systematic_draws_with_equal_scores_are_a_uniform_batch():
    # Quantiles .5/3, 1.5/3, 2.5/3 of nine equal parts.
    picked = sampler(9, 3).pick(np.full(9, 2.5, "float32"), np.array([0.5], "float32"))
    np.testing.assert_array_equal(n(picked.positions), [1, 4, 7])
    np.testing.assert_allclose(n(picked.weights), 1, rtol=1e-6)
    np.testing.assert_allclose(n(picked.scores), 2.5)


def test_a_draw_returns_positions_scores_and_weights():
    # P = [.36 .04 .12 .28 .2], cumulative .36 .4 .52 .8 1; quantiles .1 .35 .6 .85; w = 1 / (5 P).
    picked = sampler(5, 4, 0.2).pick(SCORES, np.array([0.4], "float32"))
    np.testing.assert_array_equal(n(picked.positions), [0, 0, 3, 4])
    np.testing.assert_allclose(n(picked.scores), [4, 4, 3, 2])
    np.testing.assert_allclose(n(picked.weights), [1 / 1.8, 1 / 1.8, 1 / 1.4, 1], rtol=1e-6)


@by_scheme
def test_the_weighted_mean_over_draws_is_the_pool_mean(name):
    rng, draws = np.random.default_rng(6), 1500
    pool_sampler = sampler(5, 4, 0.2, name)
    values = np.array([7.0, -1.0, 0.0, 2.0, 12.0])  # mean 4
    means = np.empty(draws)
    pick = compile_function(pool_sampler.pick)
    for i in range(draws):
        picked = pick(
            *map(keras.ops.convert_to_tensor, (SCORES, rng.random(pool_sampler.num_uniforms, dtype="float32")))
        )
        means[i] = (n(picked.weights) * values[n(picked.positions)]).mean()
    assert abs(means.mean() - 4) < 5 * means.std() / np.sqrt(draws)
