"""Draws, weights and the gate: closed forms, and what is claimed of their statistics."""

import keras
import numpy as np
import pytest

from importance_sampling import conditions
from importance_sampling.conditions import GrowthCondition, Signals, VarianceReductionCondition
from importance_sampling.reweighting import BiasedReweightingPolicy
from importance_sampling.samplers import PoolSampler, resampling
from importance_sampling.samplers.pool import probabilities

SCHEMES = [resampling.get("systematic"), resampling.get("multinomial")]
by_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
# Mean 2, mean square 6, so tau = sqrt(6) / 2.
SCORES = np.array([4.0, 0.0, 1.0, 3.0, 2.0], "float32")


def n(tensor):
    return keras.ops.convert_to_numpy(tensor)


def f(values):
    return np.array(values, "float32")


def test_probabilities_mix_the_scores_with_uniform():
    # 0.8 * [.4 0 .1 .3 .2] + 0.2 / 5
    np.testing.assert_allclose(n(probabilities(SCORES, 0.2)), [0.36, 0.04, 0.12, 0.28, 0.2], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.zeros(5), [1, np.nan, 2, 3, 4], [1, np.inf, 2, 3, 4], [1, -1, 2, 3, 4]])
def test_scores_of_no_use_are_drawn_uniformly_with_weights_of_one(bad):
    np.testing.assert_allclose(n(probabilities(f(bad), 0.1)), np.full(5, 0.2), rtol=1e-6)
    picked = PoolSampler(5, 2, 0.1, SCHEMES[0], BiasedReweightingPolicy()).pick(f(bad), f([0.3]))
    np.testing.assert_allclose(n(picked.weights), [1, 1], rtol=1e-6)
    assert float(conditions.tau(f(bad))) == pytest.approx(1)
    assert float(conditions.growth(f(bad), 2.5, 0.1, SCHEMES[0])) == pytest.approx(1)


def test_huge_and_tiny_scores_stay_in_range():
    for scale in (1e-30, 1e30):
        np.testing.assert_allclose(n(probabilities(SCORES * f(scale), 0.2)), [0.36, 0.04, 0.12, 0.28, 0.2], rtol=1e-5)
        assert float(conditions.tau(SCORES * f(scale))) == pytest.approx(np.sqrt(6) / 2)


def test_systematic_arrows_hit_the_cumulative_probabilities():
    # Cumulative .1 .7 .7 1: arrows at (i + .5)/4 = .125 .375 .625 .875; the third has no probability.
    p = f([0.1, 0.6, 0.0, 0.3])
    np.testing.assert_array_equal(n(SCHEMES[0].positions(p, f([0.5]), 4)), [1, 1, 1, 3])
    np.testing.assert_array_equal(n(SCHEMES[0].positions(p, f([0.0]), 4)), [0, 1, 1, 3])
    np.testing.assert_array_equal(n(SCHEMES[1].positions(p, f([0.95, 0.05, 0.75]), 3)), [3, 0, 3])


@by_scheme
def test_what_has_no_probability_is_never_drawn(scheme):
    p = f([0.0, 0.5, 0.0, 0.5, 0.0])
    for u in (0.0, 0.25, 0.5, np.nextafter(f(1), f(0))):
        positions = n(scheme.positions(p, np.full(scheme.num_uniforms(3), u, "float32"), 3))
        assert set(positions) <= {1, 3}


@by_scheme
def test_counts_have_the_mean_and_second_moment_that_are_claimed(scheme):
    draws, rng = 1500, np.random.default_rng(1)
    p = n(probabilities(rng.lognormal(size=64).astype("float32"), 0.1))
    q = 16 * p
    counts = np.zeros((draws, 64))
    for i in range(draws):
        order = rng.permutation(64)
        positions = n(scheme.positions(p[order], rng.random(scheme.num_uniforms(16), dtype="float32"), 16))
        np.add.at(counts[i], order[positions], 1)
    error = counts.std(0) / np.sqrt(draws)
    assert (np.abs(counts.mean(0) - q) < 5 * error + 1e-6).all()
    if scheme.name == "systematic":
        assert ((counts == np.floor(q)) | (counts == np.ceil(q))).all()
    square = (counts**2).mean(0) / q**2
    np.testing.assert_allclose(square, n(scheme.second_moment(q)), rtol=0.25)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"`resampling` must be one of .*Received: resampling='stratified'"):
        resampling.get("stratified")


def test_unbiased_weights_invert_the_probabilities_and_are_bounded():
    weights = n(BiasedReweightingPolicy().weights(f([0.5, 0.125, 0.25]), 4, f([4, 1, 2])))
    np.testing.assert_allclose(weights, [0.5, 2, 1])
    p = n(probabilities(f([1e6, 0, 0, 1]), 0.1))
    np.testing.assert_array_less(n(BiasedReweightingPolicy().weights(p, 4, f([1, 1, 1, 1]))), 10.001)


def test_equal_scores_drawn_systematically_are_uniform():
    sampler = PoolSampler(9, 3, 0.1, SCHEMES[0], BiasedReweightingPolicy())
    picked = sampler.pick(np.ones(9, "float32"), f([0.5]))
    np.testing.assert_array_equal(n(picked.positions), [1, 4, 7])
    np.testing.assert_allclose(n(picked.weights), 1, rtol=1e-6)


def test_biased_weights_keep_the_weighted_sum_of_scores():
    # w = [.5 2 1], s = [4 1 2]: sum(w s) = 6; w^.5 = [.707 1.414 1], sum = 2.828 + 1.414 + 2 = 6.243
    weights = n(BiasedReweightingPolicy(0.5).weights(f([0.5, 0.125, 0.25]), 4, f([4, 1, 2])))
    root = np.sqrt(2)
    np.testing.assert_allclose(weights, np.array([1 / root, root, 1]) * 6 / (2 * root + root + 2), rtol=1e-6)
    assert not BiasedReweightingPolicy(0.5).unbiased
    for k in (1.5, float("nan")):
        with pytest.raises(ValueError, match="`k` must be a number of at most 1"):
            BiasedReweightingPolicy(k)


def test_tau_is_the_root_of_the_pool_size_times_the_squared_probabilities():
    assert float(conditions.tau(SCORES)) == pytest.approx(np.sqrt(5 * np.square(SCORES / 10).sum()))
    u = np.full(5, 0.2)
    published = 1 / np.sqrt(1 - np.square(SCORES / 10 - u).sum() / np.square(SCORES / 10).sum())
    assert float(conditions.tau(SCORES)) == pytest.approx(published)


def test_growth_at_equal_scores_is_one_systematically_and_three_quarters_multinomially():
    assert float(conditions.growth(np.ones(6, "float32"), 3.0, 0.1, SCHEMES[0])) == pytest.approx(1)
    assert float(conditions.growth(np.ones(6, "float32"), 3.0, 0.1, SCHEMES[1])) == pytest.approx(0.75)


@by_scheme
@pytest.mark.parametrize("sigma", [0.0, 0.6, 1.2])
def test_the_variance_of_the_gradient_falls_by_what_growth_says_over_fresh_pools(scheme, sigma):
    """Gradients of independent directions whose norms are the scores; a fresh pool for every draw."""
    batch, presample, draws, rng = 32, 3, 600, np.random.default_rng(7)
    sampler = PoolSampler(batch * presample, batch, 0.1, scheme, BiasedReweightingPolicy())
    sampled, uniform, said, seen = [], [], [], []
    for _ in range(draws):
        scores = rng.lognormal(sigma=sigma, size=batch * presample).astype("float32")
        gradients = scores[:, None] * rng.choice([-1.0, 1.0], size=(batch * presample, 8)) / np.sqrt(8)
        picked = sampler.pick(scores, rng.random(sampler.num_uniforms, dtype="float32"))
        weights, positions = n(picked.weights), n(picked.positions)
        sampled.append((weights[:, None] * gradients[positions]).mean(0))
        uniform.append(gradients[:batch].mean(0))
        said.append(float(conditions.growth(scores, presample, 0.1, scheme)))
        seen.append(float(conditions.measured_growth(picked.weights, scores[positions], presample, scheme)))
    growth = np.square(uniform).sum(1).mean() / np.square(sampled).sum(1).mean()
    assert np.mean(said) == pytest.approx(growth, rel=0.1)
    assert np.mean(seen) == pytest.approx(growth, rel=0.15)


def signals(**values):
    return Signals(**{"tau": np.nan, "growth": np.nan, "discount": np.nan, "score": np.nan, **values})


def test_the_default_gate_opens_above_its_cost_and_closes_a_little_below():
    gate = GrowthCondition(3.0)
    assert gate.cost == 2.0
    assert not gate.update(signals())
    assert not gate.update(signals(growth=2.0))
    assert gate.update(signals(growth=2.01))
    assert gate.update(signals(growth=1.95)) and gate.previously_satisfied
    assert not gate.update(signals(growth=1.85))
    assert not gate.update(signals(growth=1.95))
    assert not gate.update(signals(growth=2.5, discount=0.5))
    assert gate.update(signals(growth=2.5, discount=1.5))


def test_the_published_gate_compares_tau_with_its_threshold():
    gate = VarianceReductionCondition(1.5)
    assert not gate.satisfied and not gate.update(signals(tau=1.5)) and gate.update(signals(tau=1.6))
    assert VarianceReductionCondition(1.0).satisfied and VarianceReductionCondition(0).update(signals(tau=1.0))
    off = VarianceReductionCondition(float("inf"))
    assert not off.probes and not off.update(signals(tau=1e9))


def test_averages_start_at_the_first_value_and_decay_per_step():
    average = n(conditions.moving_average(f([np.nan, 2, 2]), f([3, np.nan, 4]), 0.9, 2))
    np.testing.assert_allclose(average, [3, 2, 0.81 * 2 + 0.19 * 4], rtol=1e-6)
