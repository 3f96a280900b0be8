"""Batch sizes of constant variance, and pool and batch sizes of constant time."""

import numpy as np
import pytest
from toys import SCORES, Reader, Toy

from importance_sampling import samplers
from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import sizes


def test_the_threshold_of_constant_variance_is_that_computed_by_hand():
    # 1 / (2/3 - 1/5) = 15/7; with a backward pass that costs as much as a forward pass: 1 / (1/2 - 1/4) = 4.
    assert sizes.constant_variance_threshold(2.0, 0.2) == pytest.approx(15 / 7)
    assert sizes.constant_variance_threshold(1.0, 0.25) == pytest.approx(4)


@pytest.mark.parametrize(("vr", "size"), [(2.5, 76), (4, 57), (1, 128), (1e9, 25)])
def test_constant_variance_sizes_are_those_computed_by_hand(vr, size):
    # 128 (1/vr + .2): 76.8, 57.6, 153.6 (limited to b), 25.6.
    assert sizes.constant_variance_size(vr, 128) == size


@pytest.mark.parametrize(
    ("vr", "options", "expected"),
    [
        # t = 360. a0 = 60, Bmax = 180: B = 120 + 30 = 150, a = 210 / 3.
        (2.0, {}, (150, 70)),
        # a0 = max(24, 30): Bmax = 270, B = 195, a = 55.
        (4.0, {}, (195, 55)),
        # a0 = 24 for every vr above 5: Bmax = 288, B = 204, a = 52.
        (50.0, {}, (204, 52)),
        # The largest pool: B = Bmax = 270, a = 30 = b / vr.
        (4.0, {"ratio": 1.0}, (270, 30)),
        # t = 240, a0 = 60 (min_a): Bmax = 120, B = 120, a = 60.
        (4.0, {"backward_time": 1.0, "min_a": 0.5}, (120, 60)),
    ],
)
def test_constant_time_sizes_are_those_computed_by_hand(vr, options, expected):
    assert sizes.constant_time_sizes(vr, 120, **options) == expected


def test_sizes_are_rounded_to_eighths_of_the_batch():
    found = [sizes.quantised(size, 128) for size in (0, 23, 25, 119, 121, 128)]
    assert found == [16, 16, 32, 112, 128, 128]
    assert {sizes.quantised(size, 128) for size in range(129)} == {16 * i for i in range(1, 9)}
    assert sizes.quantised(1, 3) == 1


def test_rounded_sizes_take_the_time_of_a_uniform_step():
    found = set()
    for vr in np.linspace(1, 10, 100):
        pool, picked = sizes.quantised_time_sizes(sizes.constant_time_sizes(vr, 128)[1], 128)
        assert pool + 3 * picked == 3 * 128
        found.add((pool, picked))
    assert {(192, 64), (240, 48)} < found and len(found) <= 7


def sampler_with_open_gate(cls, vr, **options):
    """Return a sampler whose gate was updated with scores of that tau: [1, 0, 0, ...] of vr^2 samples."""
    sampler = cls(Toy(), UNBIASED, Reader(), seed=1, **options)
    count = round(vr**2)
    sampler.update(np.arange(count), np.eye(1, count)[0])
    return sampler


def test_constant_variance_draws_a_part_of_the_scored_pool():
    sampler = sampler_with_open_gate(samplers.ConstantVarianceSampler, 3)
    assert sampler.vr == pytest.approx(3) and sampler.condition.satisfied
    drawn = sampler.draw(48)
    assert sampler.model.scored == 48
    # The tau of the pool has changed the moving average.
    pool = sampler.candidate_scores
    vr = 0.9 * 3 + 0.1 * np.sqrt(np.mean(pool**2)) / pool.mean()
    assert sampler.vr == pytest.approx(vr, rel=1e-5)
    assert len(drawn.indices) == sizes.quantised(int(48 * (1 / vr + 0.2)), 48) < 48
    np.testing.assert_allclose(drawn.weights, 1 / (0.9 * drawn.scores / pool.mean() + 0.1), rtol=1e-5)


def test_constant_time_scores_more_samples_and_draws_fewer():
    sampler = sampler_with_open_gate(samplers.ConstantTimeSampler, 4)
    drawn = sampler.draw(32)
    # vr = 4: t = 96, a0 = 8, Bmax = 72, B = 52, a = 14 -> 16 of a pool of 96 - 48.
    assert sampler.model.scored == 48 and len(drawn.indices) == 16


def test_with_a_closed_gate_batches_are_uniform_and_no_sample_is_scored():
    sampler = samplers.ConstantVarianceSampler(Toy(), UNBIASED, Reader(), seed=1)
    drawn = sampler.draw(32)
    assert (drawn.weights == 1).all() and len(drawn.indices) == 32 and sampler.model.scored == 0
    sampler.update(drawn.indices, np.linspace(1, 2, 32))
    assert not sampler.condition.satisfied and sampler.vr == pytest.approx(1.019, abs=0.001)


def test_measured_scores_of_an_importance_step_do_not_update_the_gate():
    sampler = sampler_with_open_gate(samplers.ConstantTimeSampler, 4)
    drawn = sampler.draw(32)
    before = sampler.vr
    sampler.update(drawn.indices, np.ones(len(drawn.indices)))
    assert sampler.vr == before


@pytest.mark.parametrize("cls", [samplers.ConstantVarianceSampler, samplers.ConstantTimeSampler])
def test_batch_sizes_are_multiples_of_an_eighth(cls):
    sampler = cls(Toy(), UNBIASED, Reader(), seed=2)
    found = set()
    for _ in range(200):
        drawn = sampler.draw(24)
        sampler.update(drawn.indices, SCORES[drawn.indices])
        found.add(len(drawn.indices))
    assert len(found) >= 2 and all(size % 3 == 0 for size in found)
