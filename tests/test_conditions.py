"""Tau, variance gain, moving averages, gates and other conditions."""

from statistics import NormalDist

import keras
import numpy as np
import pytest
from frameworks import tf

from importance_sampling import conditions
from importance_sampling.conditions import (
    ExpCondition,
    GainCondition,
    GateContext,
    LossComparison,
    LossTrend,
    Signals,
    TotalVariationCondition,
    VarianceReductionCondition,
    WarmupCondition,
)
from importance_sampling.conditions.gates import STAYING, step_value
from importance_sampling.conditions.loss_trend import largest_ratio
from importance_sampling.reweighting import BiasedReweightingPolicy
from importance_sampling.samplers import PoolSampler, resampling

SYSTEMATIC, MULTINOMIAL = resampling.get("systematic"), resampling.get("multinomial")
on_host_and_device = pytest.mark.usefixtures("host_and_device")
by_scheme = pytest.mark.parametrize("scheme", [SYSTEMATIC, MULTINOMIAL], ids=lambda scheme: scheme.name)
# Mean 2, mean square 6.
SCORES = np.array([4.0, 0.0, 1.0, 3.0, 2.0], "float32")
UNUSABLE = [np.zeros(5), [1, np.nan, 2, 3, 4], [1, np.inf, 2, 3, 4], [1, -1, 2, 3, 4]]


def n(tensor):
    return keras.ops.convert_to_numpy(tensor)


def signals(**values):
    return Signals(**{"tau": np.nan, "gain": np.nan, "discount": np.nan, "score": np.nan, **values})


@on_host_and_device
def test_tau_is_the_root_of_pool_size_times_the_sum_of_squared_normalised_scores():
    normalised = SCORES / 10
    assert float(conditions.tau(SCORES)) == pytest.approx(np.sqrt(6) / 2)
    assert float(conditions.tau(SCORES)) == pytest.approx(np.sqrt(5 * np.square(normalised).sum()))


@on_host_and_device
def test_tau_is_that_of_the_published_formula():
    # |g - u|^2 = .3 - 2 * .2 + .2 = .1, |g|^2 = .3
    assert float(conditions.tau(SCORES)) == pytest.approx(1 / np.sqrt(1 - 0.1 / 0.3))


@on_host_and_device
@pytest.mark.parametrize("scale", [1e-36, 1e-22, 1e22, 1e37])
def test_tau_and_variance_gain_do_not_depend_on_the_scale_of_the_scores(scale):
    scores = SCORES * np.float32(scale)
    assert float(conditions.tau(scores)) == pytest.approx(np.sqrt(6) / 2, rel=1e-5)
    expected = float(conditions.variance_gain(SCORES, 3.0, 0.1, SYSTEMATIC))
    assert float(conditions.variance_gain(scores, 3.0, 0.1, SYSTEMATIC)) == pytest.approx(expected, rel=1e-5)


@on_host_and_device
@pytest.mark.parametrize("scores", UNUSABLE)
def test_unusable_scores_have_a_tau_and_a_variance_gain_of_one(scores):
    scores = np.array(scores, "float32")
    assert float(conditions.tau(scores)) == pytest.approx(1)
    assert float(conditions.variance_gain(scores, 3.0, 0.1, SYSTEMATIC)) == pytest.approx(1)


@on_host_and_device
def test_variance_gain_of_equal_scores_is_one_with_systematic_and_three_quarters_with_multinomial_draws():
    equal = np.full(6, 2.0, "float32")
    assert float(conditions.variance_gain(equal, 3.0, 0.1, SYSTEMATIC)) == pytest.approx(1)
    assert float(conditions.variance_gain(equal, 3.0, 0.1, MULTINOMIAL)) == pytest.approx(0.75)


@on_host_and_device
def test_variance_gain_is_that_computed_by_hand():
    # presample 2.5, alpha 0.2: q = (0.8 s / 2 + 0.2) / 2.5 = [.72 .08 .24 .56 .4], all below 1: v = 1 / q.
    # sum(v s^2) = 16/.72 + 1/.24 + 9/.56 + 4/.4 = 52.46; sum(s^2) = 30.
    v = 16 / 0.72 + 1 / 0.24 + 9 / 0.56 + 4 / 0.4
    systematic, multinomial = (
        conditions.variance_gain(SCORES, 2.5, 0.2, scheme) for scheme in (SYSTEMATIC, MULTINOMIAL)
    )
    assert float(systematic) == pytest.approx(2.5 * 30 / v, rel=1e-5)
    assert float(multinomial) == pytest.approx(2.5 * 30 / (v + 30), rel=1e-5)


def test_multinomial_variance_gain_without_a_uniform_share_is_that_of_the_published_formula():
    # 1 / (1/presample + 1/tau^2), tau^2 = 1.5. Scores of zero would divide by zero.
    scores = SCORES + np.float32(1e-6)
    gain = float(conditions.variance_gain(scores, 3.0, 1e-9, MULTINOMIAL))
    assert gain == pytest.approx(1 / (1 / 3 + 1 / 1.5), rel=1e-4)


def test_variance_gain_never_exceeds_presample():
    one_hot = np.zeros(1000, "float32")
    one_hot[3] = 1
    assert 2.9 < float(conditions.variance_gain(one_hot, 3.0, 0.1, SYSTEMATIC)) <= 3.0


def simulated(scheme, sigma, alpha, draws, presample=3, batch=32):
    """Return the variances of uniform and sampled estimates over new pools, predicted and measured variance gains."""
    rng, size = np.random.default_rng(7), batch * presample
    sampler = PoolSampler(size, batch, alpha, scheme, BiasedReweightingPolicy())
    uniform, sampled, predicted, measured = [], [], [], []

    @tf.function(autograph=False)
    def pick(scores, uniforms):
        picked = sampler.pick(scores, uniforms)
        gain = conditions.variance_gain(scores, presample, alpha, scheme)
        return picked, gain, conditions.measured_variance_gain(picked.weights, picked.scores, presample, scheme)

    for _ in range(draws):
        scores = rng.lognormal(sigma=sigma, size=size).astype("float32")
        # Vectors of independent directions whose norms are the scores; their mean is 0.
        vectors = scores[:, None] * rng.choice([-1.0, 1.0], size=(size, 12)) / np.sqrt(12)
        uniforms = rng.random(sampler.num_uniforms, dtype="float32")
        picked, gain, measured_gain = pick(tf.constant(scores), tf.constant(uniforms))
        weights, positions = n(picked.weights), n(picked.positions)
        sampled.append(np.square((weights[:, None] * vectors[positions]).mean(0)).sum())
        uniform.append(np.square(vectors.reshape(presample, batch, 12).mean(1)).sum(1).mean())
        predicted.append(float(gain))
        measured.append(float(measured_gain))
    return np.array(uniform), np.array(sampled), np.array(predicted), np.array(measured)


def population_gain(scheme, sigma, alpha, presample=3.0):
    """Return the variance gain of scores that are the quantiles of a lognormal distribution."""
    scores = [np.exp(sigma * NormalDist().inv_cdf((i + 0.5) / 20000)) for i in range(20000)]
    return float(conditions.variance_gain(np.array(scores, "float32"), presample, alpha, scheme))


@by_scheme
@pytest.mark.parametrize("sigma", [0.0, 1.1])  # tau = exp(sigma^2 / 2): 1 and 1.83
def test_variance_gain_is_the_variance_reduction_over_new_pools(scheme, sigma):
    uniform, sampled, predicted, measured = simulated(scheme, sigma, 0.1, 2000)
    reduction = uniform.mean() / sampled.mean()
    # The standard error of a ratio of means.
    relative = np.hypot(uniform.std() / uniform.mean(), sampled.std() / sampled.mean()) / np.sqrt(len(uniform))
    assert relative < 0.03
    expected = population_gain(scheme, sigma, 0.1)
    assert abs(reduction / expected - 1) < 5 * relative
    assert np.median(predicted) == pytest.approx(expected, rel=0.1)
    # The measured variance gain is a ratio over the drawn batch, with a larger spread.
    assert measured.mean() == pytest.approx(predicted.mean(), rel=0.1)


def test_the_variance_reduction_without_a_uniform_share_is_that_of_the_published_formula():
    uniform, sampled, _, _ = simulated(MULTINOMIAL, 1.1, 1e-6, 2000)
    relative = np.hypot(uniform.std() / uniform.mean(), sampled.std() / sampled.mean()) / np.sqrt(len(uniform))
    expected = 1 / (1 / 3 + 1 / np.exp(1.1**2))
    assert abs(uniform.mean() / sampled.mean() / expected - 1) < 5 * relative
    assert 5 * relative < 0.15


@by_scheme
def test_measured_variance_gain_of_a_batch_of_expected_counts_is_the_variance_gain_of_the_pool(scheme):
    # A batch that contains every candidate as often as expected: weights w = 1 / (q presample), counts q.
    # With scores [2 1 1 0] * k, alpha 0.5, presample 1: q = (.5 s / 1 + .5) = [1.5 1 1 .5], doubled: counts [3 2 2 1].
    scores = np.array([2.0, 1.0, 1.0, 0.0], "float32")
    counts = [3, 2, 2, 1]
    q = np.array([1.5, 1.0, 1.0, 0.5], "float32")
    norms, weights = np.repeat(scores, counts), np.repeat(1 / q, counts)
    measured = float(conditions.measured_variance_gain(weights, norms, 1.0, scheme))
    assert measured == pytest.approx(float(conditions.variance_gain(scores, 1.0, 0.5, scheme)), rel=1e-5)


def test_measured_variance_gain_does_not_depend_on_the_scale_of_the_norms():
    weights, norms = np.array([0.5, 2.0, 1.0], "float32"), np.array([4.0, 0.0, 1.0], "float32")
    expected = float(conditions.measured_variance_gain(weights, norms, 3.0, SYSTEMATIC))
    for scale in (1e-30, 1e30):
        measured = float(conditions.measured_variance_gain(weights, norms * np.float32(scale), 3.0, SYSTEMATIC))
        assert measured == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("norms", [[0, 0, 0], [1, np.nan, 2], [1, np.inf, 2]])
def test_unusable_norms_give_a_measured_variance_gain_of_nan(norms):
    measured = conditions.measured_variance_gain(np.ones(3, "float32"), np.array(norms, "float32"), 3.0, SYSTEMATIC)
    assert np.isnan(float(measured))


@on_host_and_device
@pytest.mark.parametrize(("steps", "decay"), [(1, 0.9), (2, 0.81), (17, 0.9**17)])
def test_moving_averages_start_at_the_first_value_and_decay_with_every_step(steps, decay):
    before, value = np.array([np.nan, 2, 2, np.nan], "float32"), np.array([3, np.nan, 4, np.nan], "float32")
    average = n(conditions.moving_average(before, value, 0.9, steps))
    np.testing.assert_allclose(average, [3, 2, decay * 2 + (1 - decay) * 4, np.nan], rtol=1e-6)


def test_the_default_gate_opens_above_the_cost_and_closes_below_95_percent_of_it():
    gate = GainCondition()
    assert gate.context == GateContext() and gate.probes and not gate.satisfied
    assert not gate.observe(signals(), GateContext(2.0))
    assert not gate.observe(signals(gain=2.0), GateContext(2.0))
    assert gate.observe(signals(gain=2.01), GateContext(2.0)) and not gate.previously_satisfied
    assert gate.observe(signals(gain=1.91), GateContext(2.0)) and gate.previously_satisfied
    assert not gate.observe(signals(gain=1.9), GateContext(2.0)) and gate.previously_satisfied
    assert not gate.observe(signals(gain=1.95), GateContext(2.0)) and not gate.previously_satisfied
    assert gate.explain(signals(gain=1.954)) == (
        "the samples are about equally hard: the variance gain is 1.95, and would have to be above 2.00, at a learning "
        "rate that doesn't fall, because a step costs 2.00 uniform steps"
    )


def test_the_default_gate_uses_the_smaller_of_predicted_and_measured_variance_gain():
    assert signals(gain=2.5, discount=0.5).trusted_gain == 1.25
    assert signals(gain=2.5, discount=1.5).trusted_gain == 2.5
    assert signals(gain=2.5).trusted_gain == 2.5
    gate = GainCondition()
    assert not gate.observe(signals(gain=2.5, discount=0.5), GateContext(2.0))
    assert gate.observe(signals(gain=2.5, discount=0.9), GateContext(2.0))


def test_the_default_gate_can_require_more_variance_gain_than_the_cost_and_a_number_of_epochs():
    gate = GainCondition()
    assert not gate.observe(signals(gain=3.0), GateContext(1.0, required_gain=3.0))
    assert gate.observe(signals(gain=3.1))
    assert gate.observe(signals(gain=0.96))  # an open gate compares with the cost
    assert not gate.observe(signals(gain=0.95))
    early = GateContext(1.0, required_gain=3.0, required_epochs=1.0, epochs_done=0.9)
    assert not gate.observe(signals(gain=3.1), early)
    assert gate.explain(signals(gain=3.1)).endswith("too late in the training to be used. Train for more epochs")
    assert gate.observe(signals(gain=3.1), GateContext(1.0, required_gain=3.0, required_epochs=1.0, epochs_done=1.0))


def test_the_default_gate_can_require_scores_that_are_more_unequal_than_the_gain_alone_shows():
    gate, context = GainCondition(), GateContext(2.0, required_tau=3.0)
    assert not gate.observe(signals(gain=2.5)._replace(tau=2.99), context)
    assert gate.explain(signals(gain=2.5)._replace(tau=2.999)) == (
        "the scores differ too little for steps that cost 2.00 uniform steps: tau is 2.99, and would have to be 3.00. "
        'Arrays in memory need no such steps with `sampler="reshuffle"`'
    )
    assert gate.observe(signals(gain=2.5)._replace(tau=3.0), context)
    assert gate.observe(signals(gain=2.5)._replace(tau=2.86), context)
    assert not gate.observe(signals(gain=2.5)._replace(tau=2.84), context)


def test_the_default_gate_closes_when_the_learning_rate_decays():
    gate = GainCondition()
    assert not gate.observe(signals(gain=3.0), GateContext(2.0, relative_learning_rate=0.98))
    assert gate.observe(signals(gain=3.0), GateContext(2.0, relative_learning_rate=0.99))
    assert gate.observe(signals(gain=3.0), GateContext(2.0, relative_learning_rate=0.95))
    assert not gate.observe(signals(gain=3.0), GateContext(2.0, relative_learning_rate=0.94))
    assert gate.explain(signals(gain=3.0)) == (
        "the learning rate is at 94% of its peak, which already removes the noise that importance sampling would"
    )
    assert gate.observe(signals(gain=3.0), GateContext(2.0, relative_learning_rate=1.0))  # the rate has risen again


LEARNING = GateContext(4 / 3, base_cost=1.0, held_out_change=-0.1, required_gain=5.0, relative_learning_rate=0.1)


def test_at_any_learning_rate_the_default_gate_is_open_while_a_step_is_worth_its_cost_and_held_out_loss_falls():
    gate = GainCondition()
    assert not gate.observe(signals(gain=1.11), LEARNING)  # worth 2 - 1/1.11 = 1.099, below 1.1
    assert gate.observe(signals(gain=1.12), LEARNING)
    assert gate.observe(signals(gain=1.06), LEARNING)  # an open gate closes at 1.05
    assert gate.worth(signals(gain=1.06)) == pytest.approx(2 - 1 / 1.06)
    assert not gate.observe(signals(gain=1.05), LEARNING)
    assert gate.observe(signals(gain=9.0), LEARNING)


def test_at_a_falling_learning_rate_the_default_gate_closes_once_the_loss_of_held_out_samples_rises():
    gate = GainCondition()
    assert gate.observe(signals(gain=9.0), LEARNING)
    assert gate.observe(signals(gain=9.0), LEARNING._replace(held_out_change=0.0))  # before the second measurement
    assert not gate.observe(signals(gain=9.0), LEARNING._replace(held_out_change=1e-9))
    assert not gate.observe(signals(gain=9.0), LEARNING._replace(held_out_change=float("nan")))  # there are none


@pytest.mark.parametrize(
    ("name", "below", "opening", "kept", "closing", "reason"),
    [
        ("loss_ratio", 0.499, 0.5, 0.476, 0.474, "is only 47% of the loss of held-out samples"),
        ("generalised_share", 0.49, 0.5, 0.26, 0.24, "falls by only 24% of the fall of the training loss"),
    ],
)
def test_at_a_falling_learning_rate_the_default_gate_closes_once_training_generalises_by_less_than_half(
    name, below, opening, kept, closing, reason
):
    gate = GainCondition()
    assert not gate.observe(signals(gain=9.0), LEARNING._replace(**{name: below}))
    assert gate.observe(signals(gain=9.0), LEARNING._replace(**{name: opening}))
    assert gate.observe(signals(gain=9.0), LEARNING._replace(**{name: kept}))  # an open gate
    assert not gate.observe(signals(gain=9.0), LEARNING._replace(**{name: closing}))
    assert reason in gate.explain(signals(gain=9.0))


def test_the_generalised_share_is_the_fall_of_the_held_out_loss_over_that_of_the_training_loss():
    losses = LossComparison()
    for loss in (4.0, 3.0, 2.0):
        losses.record(1.0 + 0.3 * loss, loss)
        assert np.isnan(losses.generalised_share)
    losses.record(1.3, 1.0)
    assert losses.generalised_share == pytest.approx(0.3)
    losses.record(-1.0, -1.0)
    assert 0.3 < losses.generalised_share < 1.0


def test_a_share_that_chance_explains_is_not_held_against_training():
    losses = LossComparison()
    for _ in range(3):
        losses.record([4.0, 4.0], [4.0, 4.0])
    losses.record([4.0, 0.0], [0.0, 0.0])  # changes of 0 and -1, with an error of 1/2, and of -1
    assert losses.held_out.change == pytest.approx(-0.5)
    assert losses.generalised_share == pytest.approx(1.0)
    losses = LossComparison()
    for _ in range(3):
        losses.record([4.0, 4.0], [4.0, 4.0])
    losses.record([0.0, 0.0], [4.0, 0.0])
    assert np.isnan(losses.generalised_share)  # a training loss that falls by no more than its error


def test_noise_of_measurements_neither_hides_that_training_generalises_nor_that_it_ceases_to():
    for seed in range(20):
        random, losses = np.random.default_rng(seed), {True: LossComparison(), False: LossComparison()}
        shares: dict[bool, list] = {True: [], False: []}
        for measurement in range(1, 201):
            training = measurement**-0.5
            for can_generalise, held_out in ((True, training), (False, max(training, 0.1 + 0.001 * measurement))):
                noise = random.normal(0, 0.09 * training, 2)
                losses[can_generalise].record(held_out + noise[0], training + noise[1])
                shares[can_generalise].append(losses[can_generalise].generalised_share)
        assert np.nanmin(shares[True]) > STAYING.share
        assert np.nanmin(shares[False][:40]) > STAYING.share > np.nanmax(shares[False][120:])


def test_a_rising_training_loss_has_no_generalised_share():
    losses = LossComparison()
    for loss in (4.0, 3.0, 2.0, 1.0, 0.0):
        losses.record(1.0 + 0.3 * loss, loss)
    for _ in range(20):
        losses.record(1.0, 2.0)  # the training loss rises
    assert np.isnan(losses.generalised_share)
    weighted = LossComparison()
    for loss in (4.0, 3.0, 2.0, 1.0):
        weighted.record(loss, 0.0)  # the two can't be compared
    assert np.isnan(weighted.generalised_share)


def test_a_loss_that_falls_and_then_rises_is_recognised_soon_after_its_lowest_value():
    trend, falls = LossTrend(), []
    for step in range(1, 41):
        trend.record(10.0 / step if step <= 20 else 0.5 + 0.02 * (step - 20))
        falls.append(trend.change < 0)
    assert falls == [False] * 3 + [True] * 28 + [False] * 9


def test_the_averages_of_a_loss_trend_are_those_of_a_tenth_and_of_a_quarter_of_the_measurements():
    trend = LossTrend()
    assert trend.change == 0.0
    trend.record(8.0)
    assert (trend.recent, trend.longer, trend.change) == ([8.0], [8.0], 0.0) and not trend.shows_change
    trend.record(float("nan"))
    trend.record(4.0)
    assert trend.count == 2 and trend.longer == [pytest.approx(5.0)]  # 8 - 4 * 3 / 4
    assert trend.recent == [pytest.approx(4.4)]  # 8 - 4 * 9 / 10
    for exponent, age in ((9, 0.1), (3, 0.25)):  # the mean age, as a share of all measurements
        trend = LossTrend()
        for number in range(1, 1001):
            trend.record(1000.0 - number)
        assert {9: trend.recent, 3: trend.longer}[exponent] == [pytest.approx(1000 * age, rel=0.02)]


def falling(*losses):
    """Return the trend of four measurements whose last one is `losses`, of two or more groups; all others are 0."""
    trend = LossTrend()
    for measurement in (np.zeros(len(losses)),) * 3 + (losses,):
        trend.record(measurement)
    return trend


def test_the_error_of_a_change_is_how_much_the_groups_of_samples_differ():
    # The fourth measurement moves the averages by 9/12 and 3/6 of its distance: a change of a quarter of it.
    trend = falling(-4.0, -8.0, -12.0, 0.0)
    assert trend.change == pytest.approx(-1.5)  # of -1, -2, -3 and 0
    assert trend.error == pytest.approx(np.std([1, 2, 3, 0], ddof=1) / 2)
    assert trend.lowest_change == pytest.approx(-1.5 - np.sqrt(5 / 3) / 2)
    assert trend.mean == pytest.approx(-4.5)  # three quarters of -6
    equal = falling(4.0, 4.0)
    assert equal.error == 0 and equal.lowest_change == pytest.approx(1.0)
    trend = LossTrend()
    trend.record([0.0, 0.0])
    trend.record([1.0, 0.0])
    assert trend.change == trend.lowest_change == 0  # too few to show a change


def test_a_measurement_with_a_group_that_is_not_finite_is_ignored():
    trend = falling(4.0, 8.0)
    trend.record([np.nan, 1.0])
    trend.record([1.0, np.inf])
    assert trend == falling(4.0, 8.0)
    losses = LossComparison()
    losses.record([1.0, np.nan], [1.0, 1.0])
    losses.record([1.0, 1.0], [1.0, np.inf])
    assert losses == LossComparison()


def test_the_largest_ratio_differs_from_the_estimates_by_one_standard_error():
    for numerator, denominator, *errors in [(1.0, 2.0, 0.5, 0.25), (-1.0, 3.0, 0.1, 2.0), (0.0, 1.0, 0.3, 0.9)]:
        ratio = largest_ratio(numerator, denominator, *errors)
        distance = ratio * denominator - numerator
        assert distance == pytest.approx(np.hypot(errors[0], ratio * errors[1]))  # above the estimate: > 0
    assert largest_ratio(3.0, 4.0, 0.0, 0.0) == 0.75
    assert np.isnan(largest_ratio(1.0, 2.0, 0.0, 2.0))
    tiny = 1e-200  # its square is zero
    assert largest_ratio(tiny, 2 * tiny, tiny, 0.0) == 1.0
    assert largest_ratio(1.0, np.nextafter(1.0, 2.0), 0.0, 1.0) > 1e15  # hardly larger than its error


def test_held_out_samples_of_which_a_few_are_hard_close_no_gate_by_chance():
    def shares_and_changes(rise):
        """Return how often the share is below that of an open gate, and how often the change is above zero."""
        few, rises = 0, 0
        for seed in range(200):
            random, losses = np.random.default_rng(seed), LossComparison()
            hard = random.exponential(1.0, (2, 500)) ** 4  # a few make up most of the mean
            for measurement in range(1, 9):
                fall = measurement**-0.5 * np.ones((2, 1))
                fall[0] += rise * measurement
                noise = random.lognormal(0.0, 0.5, (2, 500))
                losses.record(*(hard * fall * noise).reshape(2, 20, 25).mean(axis=2))
            few += losses.generalised_share < STAYING.share
            rises += losses.held_out.lowest_change > 0
        return few / 200, rises / 200

    few, rises = shares_and_changes(rise=0.0)
    assert few < 0.08 and rises < 0.05
    few, rises = shares_and_changes(rise=0.25)
    assert few > 0.9 and rises > 0.9


def test_the_default_gate_asks_for_scoring_passes_only_where_gradient_noise_keeps_the_loss_up():
    gate, constant_rate = GainCondition(), LEARNING._replace(relative_learning_rate=1.0)
    assert gate.observe(signals(gain=4.9), constant_rate) and not gate.rescores
    assert gate.observe(signals(gain=9.0), constant_rate) and gate.rescores
    assert gate.observe(signals(gain=1.3), constant_rate) and gate.rescores  # an open gate compares with the cost
    assert gate.observe(signals(gain=1.2), constant_rate) and not gate.rescores
    assert gate.observe(signals(gain=9.0, discount=0.5), constant_rate) and gate.rescores  # measured with older scores
    gate = GainCondition()
    assert not gate.observe(signals(gain=4.9), constant_rate._replace(held_out_change=0.1))
    assert not gate.observe(signals(gain=9.0), LEARNING._replace(held_out_change=0.1)) and not gate.rescores


def test_a_step_that_scores_a_pool_of_three_batches_is_never_worth_it_at_a_falling_learning_rate():
    gate = GainCondition()
    for gain in (1.0, 2.9, 1000.0):
        assert not gate.observe(signals(gain=gain), GateContext(2.0, held_out_change=-1.0, relative_learning_rate=0.5))


def test_a_step_at_the_best_learning_rate_for_uniform_batches_is_worth_at_most_two():
    # On loss h w^2 / 2 with gradient noise v: one step lowers the loss by r m - h r^2 (m + v) / 2, where m = (h w)^2.
    h, m, v, gain = 0.7, 1e-6, 3.0, 4.0
    rate = m / (h * (m + v))
    uniform, importance = (rate * m - h * rate**2 * (m + noise) / 2 for noise in (v, v / gain))
    assert step_value(gain) == pytest.approx(importance / uniform, rel=1e-5) == 1.75
    assert step_value(1.0) == 1.0 and step_value(float("inf")) == 2.0


def test_a_restored_decision_continues_with_the_thresholds_of_an_open_gate():
    gate = GainCondition()
    gate.restore_decision(satisfied=True, rescores=False)
    assert gate.observe(signals(gain=1.06), LEARNING)
    gate.restore_decision(satisfied=True, rescores=True)
    assert gate.observe(signals(gain=1.3), GateContext(4 / 3, required_gain=5.0)) and gate.rescores


def test_the_published_rule_compares_tau_with_a_threshold():
    gate = VarianceReductionCondition(1.5)
    assert gate.probes and not gate.satisfied
    assert not gate.observe(signals()) and not gate.observe(signals(tau=1.5))
    assert gate.observe(signals(tau=1.51)) and not gate.observe(signals(tau=1.49))
    assert VarianceReductionCondition().vr_th == 1.2
    assert "(tau is 1.23, the threshold 1.50). Lower `tau_th`" in gate.explain(signals(tau=1.234))


@pytest.mark.parametrize("threshold", [1, 0.5, 0, -1])
def test_a_threshold_of_at_most_one_is_open_from_the_first_step(threshold):
    gate = VarianceReductionCondition(threshold)
    assert gate.satisfied and gate.observe(signals()) and gate.observe(signals(tau=1.0))


def test_an_infinite_threshold_never_opens_and_needs_no_probes():
    gate = VarianceReductionCondition(float("inf"))
    assert not gate.probes
    assert not gate.satisfied and not gate.observe(signals(tau=1e30))


@pytest.mark.parametrize("threshold", [float("nan"), "2", True])
def test_thresholds_that_are_not_numbers_are_refused(threshold):
    with pytest.raises(ValueError, match=rf"`vr_th` must be a number.*Received: vr_th={threshold!r}"):
        VarianceReductionCondition(threshold)


def test_updates_of_the_published_rule_average_tau_from_the_first_value_on():
    gate = VarianceReductionCondition(1.5, momentum=0.9)
    # Taus of [4 0 1 3 2] and [1 0 0 0]: sqrt(6)/2 = 1.225 and 2; then .9 * 1.225 + .1 * 2 = 1.302.
    assert not gate.update(SCORES)
    assert gate.average == pytest.approx(np.sqrt(6) / 2)
    one_hot = np.array([1.0, 0, 0, 0])
    assert not gate.update(one_hot)
    assert gate.average == pytest.approx(0.9 * np.sqrt(6) / 2 + 0.2)
    # Ten steps later: .9^10 of the average, the rest 2: 1.757.
    assert gate.update(one_hot, steps=10) and not gate.previously_satisfied
    decay = 0.9**10
    assert gate.average == pytest.approx(decay * (0.9 * np.sqrt(6) / 2 + 0.2) + (1 - decay) * 2)
    assert gate.update(one_hot) and gate.previously_satisfied


@pytest.mark.parametrize("condition", [VarianceReductionCondition(), ExpCondition(), TotalVariationCondition()])
@pytest.mark.parametrize("scores", UNUSABLE)
def test_unusable_scores_do_not_change_the_average(condition, scores):
    condition.average = 7.0
    condition.update(np.array(scores))
    assert condition.average == 7.0


def test_a_warmup_condition_is_satisfied_after_its_number_of_steps():
    condition = WarmupCondition(3)
    assert not condition.satisfied
    assert [condition.update(SCORES) for _ in range(4)] == [False, False, True, True]
    assert condition.previously_satisfied
    assert WarmupCondition(0).satisfied and WarmupCondition(5).update([np.nan], steps=5)


def test_the_exponential_condition_averages_one_over_the_mean_score():
    # Means 2 and .25: 1/2; then .5 * .5 + .5 * 4 = 2.25.
    condition = ExpCondition(2.0, momentum=0.5)
    assert not condition.update(SCORES) and condition.average == 0.5
    assert condition.update([0.0, 0.5]) and condition.average == 2.25


def test_the_total_variation_condition_averages_half_the_distance_from_uniform():
    # g = [.4 0 .1 .3 .2], u = .2: (.2 + .2 + .1 + .1 + 0) / 2 = .3; of [1 0 0 0]: (.75 + 3 * .25) / 2 = .75.
    condition = TotalVariationCondition(0.5, momentum=0.5)
    assert not condition.update(SCORES) and condition.average == pytest.approx(0.3)
    assert condition.update([1, 0, 0, 0]) and condition.average == pytest.approx(0.525)
    assert not condition.update(np.ones(9)) and condition.average == pytest.approx(0.2625)


CONDITIONS = [
    VarianceReductionCondition,
    WarmupCondition,
    ExpCondition,
    TotalVariationCondition,
]


@pytest.mark.parametrize("make", CONDITIONS)
def test_a_restored_condition_makes_the_same_decisions(make):
    one, other = make(), make()
    for scale in (1, 2):
        one.update(SCORES * scale)
    other.restore(one.state())
    for _ in range(3):
        assert one.update([1, 0, 0, 0]) == other.update([1, 0, 0, 0])
    assert one.state() == other.state()
    assert vars(one) == vars(other)


def test_a_gate_is_restored_from_a_bool_unless_its_threshold_keeps_it_open():
    gate = VarianceReductionCondition(1.5)
    gate.restore(True)
    assert gate.satisfied
    always = VarianceReductionCondition(1.0)
    always.restore(False)
    assert always.satisfied


@pytest.mark.parametrize(
    ("make", "name"), list(zip(CONDITIONS, ["vr_th", "warmup", "lambda_th", "tv_th"], strict=True))
)
def test_thresholds_and_momentums_out_of_range_are_refused(make, name):
    with pytest.raises(ValueError, match=rf"`{name}` must be .*Received: {name}='much'"):
        make("much")
    if make is WarmupCondition:
        with pytest.raises(ValueError, match=r"`warmup` must be an int of at least 0. Received: warmup=-1"):
            make(-1)
    else:
        with pytest.raises(ValueError, match=r"`momentum` must be a number in \[0, 1\). Received: momentum=1"):
            make(momentum=1)
