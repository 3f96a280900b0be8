"""Smoothed scores, and decorators of samplers."""

import keras
import numpy as np
import pytest
from toys import SCORES, SIZE, Reader, Toy

from importance_sampling import samplers
from importance_sampling.conditions import VarianceReductionCondition, WarmupCondition
from importance_sampling.reweighting import UNBIASED, CorrectingReweightingPolicy
from importance_sampling.samplers import smoothing

S = np.array([4.0, 0.0, 1.0])


def n(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.mark.usefixtures("host_and_device")
def test_additive_and_power_smoothing_are_those_computed_by_hand():
    np.testing.assert_allclose(n(smoothing.additive(S, 0.5)), [4.5, 0.5, 1.5])
    np.testing.assert_allclose(n(smoothing.power(S, 0.5)), [2, 0, 1])
    np.testing.assert_allclose(n(smoothing.power(S, 0)), [1, 1, 1])


@pytest.mark.usefixtures("host_and_device")
def test_adaptive_smoothing_adds_a_share_of_the_moving_average():
    # Means 5/3 and 2/3: .9 * 5/3 + .1 * 2/3 = 47/30.
    smoothed, average = smoothing.adaptive(S, float("nan"), 0.3, 0.9)
    np.testing.assert_allclose(n(smoothed), S + 0.5, rtol=1e-6)
    smoothed, average = smoothing.adaptive(np.array([2.0, 0.0, 0.0]), average, 0.3, 0.9)
    assert float(average) == pytest.approx(47 / 30)
    np.testing.assert_allclose(n(smoothed), np.array([2.0, 0.0, 0.0]) + 0.47, rtol=1e-6)
    _, average = smoothing.adaptive(np.array([np.nan, 1.0]), average, 0.3, 0.9)
    assert float(average) == pytest.approx(47 / 30)


def model_sampler(policy=UNBIASED, **options):
    return samplers.ModelSampler(Toy(), policy, Reader(), large_batch=SIZE, seed=1, **options)


def expected_weights(smoothed, indices, alpha=0.1):
    return 1 / ((1 - alpha) * smoothed / smoothed.mean() + alpha)[indices]


@pytest.mark.parametrize(
    ("decorate", "smoothed"),
    [
        (lambda sampler: samplers.AdditiveSmoothingSampler(sampler, 3.0), SCORES + 3),
        (samplers.AdaptiveAdditiveSmoothingSampler, SCORES + 0.5 * SCORES.mean()),
        (samplers.PowerSmoothingSampler, np.sqrt(SCORES)),
        # The inner decorator comes first.
        (
            lambda sampler: samplers.AdditiveSmoothingSampler(samplers.PowerSmoothingSampler(sampler, 2.0), 3.0),
            SCORES**2 + 3,
        ),
    ],
)
def test_decorated_samplers_draw_by_smoothed_scores_and_return_the_scores_before_smoothing(decorate, smoothed):
    sampler = decorate(model_sampler())
    drawn = sampler.draw(200)
    np.testing.assert_allclose(drawn.weights, expected_weights(smoothed, drawn.indices), rtol=1e-5)
    np.testing.assert_allclose(drawn.scores, SCORES[drawn.indices], rtol=1e-6)
    np.testing.assert_allclose(np.sort(sampler.candidate_scores), np.sort(SCORES), rtol=1e-6)
    counts = np.bincount(drawn.indices, minlength=SIZE)
    np.testing.assert_allclose(counts, 200 / SIZE / expected_weights(smoothed, np.arange(SIZE)), atol=1)


def test_a_decorator_uses_the_uniform_share_of_its_sampler():
    drawn = samplers.PowerSmoothingSampler(model_sampler(alpha=0.6)).draw(50)
    np.testing.assert_allclose(drawn.weights, expected_weights(np.sqrt(SCORES), drawn.indices, 0.6), rtol=1e-5)


def test_policies_use_the_scores_before_smoothing():
    sampler = samplers.PowerSmoothingSampler(model_sampler(CorrectingReweightingPolicy()))
    drawn = sampler.draw(20)
    np.testing.assert_allclose(drawn.weights[:, 1], SCORES[drawn.indices], rtol=1e-6)


def test_a_decorator_keeps_the_batch_size_of_its_sampler():
    sampler = samplers.ConstantVarianceSampler(Toy(), UNBIASED, Reader(), seed=1)
    sampler.update(np.arange(SIZE), SCORES)
    assert 0 < len(samplers.AdditiveSmoothingSampler(sampler, 1.0).draw(32).indices) < 32


def test_a_decorator_needs_what_its_sampler_needs():
    history = samplers.HistorySampler(Toy(), UNBIASED, recompute=0, seed=1)
    decorated = samplers.PowerSmoothingSampler(history)
    assert decorated.needs_scores and not decorated.needs_model and decorated.unbiased
    assert model_sampler().needs_model and not model_sampler().needs_scores
    assert samplers.AdditiveSmoothingSampler(model_sampler(), 1).needs_model


def test_a_decorator_passes_measured_scores_on_to_its_sampler():
    history = samplers.HistorySampler(Toy(), UNBIASED, recompute=0, seed=1)
    samplers.PowerSmoothingSampler(history).update([3], [2.0])
    assert history.table.seen.sum() == 1


def test_a_conditional_start_draws_uniformly_until_its_condition_is_satisfied():
    model = Reader()
    inner = samplers.ModelSampler(Toy(), UNBIASED, model, large_batch=SIZE, seed=1)
    sampler = samplers.ConditionalStartSampler(inner, WarmupCondition(2))
    assert sampler.needs_scores
    seen = []
    for step in range(4):
        drawn = sampler.draw(15)
        sampler.update(drawn.indices, SCORES[drawn.indices])
        assert (drawn.weights == 1).all() == (step < 2)
        assert model.scored == max(0, step - 1) * SIZE
        assert (sampler.candidate_scores is None) == (step < 2)
        seen.extend(drawn.indices if step < 2 else [])
    assert len(set(seen)) == 30  # of one shuffled epoch


def test_a_satisfied_condition_is_updated_with_the_scores_of_the_candidates():
    condition = VarianceReductionCondition(1.5, momentum=0.0)
    sampler = samplers.ConditionalStartSampler(model_sampler(), condition)
    sampler.draw(15)
    sampler.update(np.arange(4), [1.0, 0, 0, 0])
    assert condition.satisfied and condition.average == 2
    drawn = sampler.draw(15)
    tau = np.sqrt(np.mean(SCORES**2)) / SCORES.mean()
    assert condition.average == pytest.approx(tau, rel=1e-5)
    sampler.update(drawn.indices, np.ones(15))
    assert condition.average == pytest.approx(tau, rel=1e-5)


def test_the_sampler_is_updated_also_while_the_condition_is_not_satisfied():
    history = samplers.HistorySampler(Toy(), UNBIASED, recompute=0, seed=1)
    sampler = samplers.ConditionalStartSampler(history, WarmupCondition(5))
    drawn = sampler.draw(15)
    sampler.update(drawn.indices, SCORES[drawn.indices])
    assert history.table.seen.sum() == 15


def test_a_conditional_start_can_be_decorated_with_smoothing():
    sampler = samplers.PowerSmoothingSampler(samplers.ConditionalStartSampler(model_sampler(), WarmupCondition(1)))
    drawn = sampler.draw(15)
    assert (drawn.weights == 1).all()
    sampler.update(drawn.indices, SCORES[drawn.indices])
    drawn = sampler.draw(50)
    np.testing.assert_allclose(drawn.weights, expected_weights(np.sqrt(SCORES), drawn.indices), rtol=1e-5)


def test_the_moving_average_of_adaptive_smoothing_is_saved_and_restored():
    toy = Toy()
    inner = samplers.ModelSampler(toy, UNBIASED, Reader(), large_batch=SIZE, seed=1)
    sampler = samplers.AdaptiveAdditiveSmoothingSampler(inner, percentage=2.0, forget=0.75)
    sampler.draw(10)
    toy.x[:, 0] = SCORES / 4
    drawn = sampler.draw(50)
    # .75 mean + .25 mean / 4 = 13/16 of the first mean.
    expected = expected_weights(SCORES / 4 + 2 * 13 / 16 * SCORES.mean(), drawn.indices)
    np.testing.assert_allclose(drawn.weights, expected, rtol=1e-5)
    other = samplers.AdaptiveAdditiveSmoothingSampler(model_sampler(), percentage=2.0, forget=0.75)
    other.restore(sampler.state())
    assert other.average == sampler.average == pytest.approx(13 / 16 * SCORES.mean())


def test_a_restored_conditional_start_continues_its_uniform_epoch():
    def make():
        return samplers.ConditionalStartSampler(model_sampler(), WarmupCondition(9))

    sampler, other = make(), make()
    sampler.draw(20)
    other.restore(sampler.state())
    for _ in range(2):
        np.testing.assert_array_equal(other.draw(20).indices, sampler.draw(20).indices)
