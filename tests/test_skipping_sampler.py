"""Which samples an epoch includes, with which weights: the functions of losses and random numbers, and the sampler."""

import numpy as np
import pytest
from toys import SCORES, SIZE, VALUES, Toy

from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import PowerSmoothingSampler, SkippingSampler
from importance_sampling.samplers.skipping import (
    included_rows,
    smooth_inclusion,
    threshold_inclusion,
    with_whole_batches,
)

LOSSES = np.array([0.5, 1.0, 3.0, 2.5, 8.0])  # a mean of 3


def sampler_of(losses, **options):
    sampler = SkippingSampler(Toy(losses), UNBIASED, **{"seed": 3, **options})
    sampler.update(np.arange(len(losses)), losses)
    return sampler


def epoch(sampler, batch_size, is_full=False):
    """Draw an epoch in one batch."""
    return sampler.draw(sampler.begin_epoch(batch_size, is_full))


# The rules


def test_losses_below_the_mean_have_the_lower_probability_and_the_mean_itself_has_not():
    np.testing.assert_allclose(threshold_inclusion(LOSSES, 0.3), [0.7, 0.7, 1.0, 0.7, 1.0])


def test_smooth_probabilities_are_losses_over_the_mean_within_their_limits():
    np.testing.assert_allclose(smooth_inclusion(LOSSES, 0.6), [0.4, 0.4, 1.0, 2.5 / 3, 1.0])


@pytest.mark.parametrize("rule", [threshold_inclusion, smooth_inclusion])
@pytest.mark.parametrize("loss", [0.1, 0.7, 1e-30, 0.0])
def test_equal_losses_are_all_included_although_their_mean_is_rounded(rule, loss):
    for dtype in ("float32", "float64"):
        for size in (3, 10, 100_003):
            assert (rule(np.full(size, loss, dtype), 0.5) == 1.0).all()


@pytest.mark.parametrize("rule", [threshold_inclusion, smooth_inclusion])
def test_samples_without_a_loss_are_included_and_not_part_of_the_mean(rule):
    with_unknown = np.array([np.nan, *LOSSES, np.nan])
    np.testing.assert_array_equal(rule(with_unknown, 0.6), [1.0, *rule(LOSSES, 0.6), 1.0])
    assert (rule(np.full(4, np.nan), 0.6) == 1.0).all()


def test_whole_batches_raise_every_probability_by_a_common_share_of_its_distance_to_1():
    inclusion = np.array([0.5, 0.5, 0.8, 1.0, 0.4])  # 3.2 of 5
    np.testing.assert_allclose(with_whole_batches(inclusion, 2), 1 - (1 - inclusion) / 1.8)
    np.testing.assert_allclose(with_whole_batches(inclusion, 2).sum(), 4)
    np.testing.assert_array_equal(with_whole_batches(inclusion, 3), np.ones(5))


def test_whole_batches_leave_probabilities_with_a_whole_number_of_batches():
    inclusion = np.array([0.5, 0.5, 0.25, 0.75, 1.0, 1.0])
    np.testing.assert_allclose(with_whole_batches(inclusion, 2), inclusion)


def test_rows_are_included_at_equal_distances_of_the_accumulated_probabilities():
    # 0.5, 0.75, 1.0 of rows 3, 0, 4 in this order: the quantiles 0.3 and 1.3 of 2.0 are in rows 3 and 4.
    inclusion = np.array([0.75, 1.0, 1.0, 0.5, 0.75])
    order = np.array([3, 1, 0, 4, 2])
    np.testing.assert_array_equal(included_rows(inclusion, order, 0.3), [1, 2, 3, 4])
    # 0.6 and 1.6 are in rows 0 and 4.
    np.testing.assert_array_equal(included_rows(inclusion, order, 0.6), [1, 2, 0, 4])


def test_rows_are_included_with_their_probabilities_and_never_twice():
    rng = np.random.default_rng(1)
    inclusion = with_whole_batches(rng.uniform(0.2, 1.1, size=40).clip(0, 1), 4)
    counts, n = np.zeros(40), 4000
    for _ in range(n):
        rows = included_rows(inclusion, rng.permutation(40), rng.random())
        assert len(rows) == len(set(rows)) == round(inclusion.sum())
        counts[rows] += 1
    error = np.sqrt(inclusion * (1 - inclusion) / n)
    assert (np.abs(counts / n - inclusion) <= 5 * error + 1e-12).all()


# The sampler


def test_an_epoch_of_samples_without_losses_has_all_of_them_with_weights_of_1():
    drawn = epoch(SkippingSampler(Toy(), UNBIASED, seed=1), 16)
    np.testing.assert_array_equal(np.sort(drawn.indices), np.arange(SIZE))
    np.testing.assert_array_equal(drawn.weights, np.ones(SIZE))
    assert np.isnan(drawn.scores).all()


def test_weights_are_the_share_of_the_epoch_over_the_inclusion_probability():
    losses = np.array([1.0] * 8 + [5.0, 9.0])  # eight below the mean of 2.2
    drawn = epoch(sampler_of(losses), 3)  # 6 of 10 samples, 4 of the eight
    np.testing.assert_array_equal(np.sort(drawn.indices)[-2:], [8, 9])
    assert len(set(drawn.indices)) == 6
    np.testing.assert_allclose(drawn.weights, np.where(drawn.indices < 8, 1.2, 0.6), rtol=1e-6)
    np.testing.assert_allclose(drawn.unbiased_weights, drawn.weights, rtol=1e-6)
    np.testing.assert_array_equal(drawn.scores, losses[drawn.indices])


@pytest.mark.parametrize("smooth", [False, True])
def test_a_full_epoch_has_all_samples_with_weights_of_1_whatever_their_losses(smooth):
    drawn = epoch(sampler_of(SCORES, smooth=smooth), 7, is_full=True)
    np.testing.assert_array_equal(np.sort(drawn.indices), np.arange(SIZE))
    np.testing.assert_array_equal(drawn.weights, np.ones(SIZE))


@pytest.mark.parametrize(("options", "limit"), [({}, 2), (dict(smooth=True), 3), (dict(skip_probability=0.8), 5)])
def test_the_sum_over_an_epoch_is_unbiased_on_asymmetric_data_and_weights_are_bounded(options, limit):
    sampler, sums = sampler_of(SCORES, **options), []
    for _ in range(2000):
        drawn = epoch(sampler, 5)
        factor = SIZE / len(drawn.indices)  # as many samples as the epoch leaves out
        assert drawn.weights.max() * factor <= limit * (1 + 1e-5)
        sums.append((drawn.weights * VALUES[drawn.indices]).sum() * factor / SIZE)
    error = np.std(sums) / np.sqrt(len(sums))
    assert error > 0 and abs(np.mean(sums) - VALUES.mean()) < 5 * error
    assert len(drawn.indices) < 0.7 * SIZE


def test_an_epoch_is_in_random_order():
    sampler = sampler_of(SCORES)
    first = [VALUES[epoch(sampler, 5).indices[0]] for _ in range(2000)]
    included = with_whole_batches(threshold_inclusion(SCORES, 0.5), 5)
    expected = (included * VALUES).sum() / included.sum()
    assert abs(np.mean(first) - expected) < 5 * np.std(first) / np.sqrt(len(first))


def test_unusable_losses_leave_the_last_ones():
    sampler = sampler_of(LOSSES)
    sampler.update(np.arange(5), np.array([np.nan, -1.0, np.inf, 2.0, 7.0]))
    drawn = epoch(sampler, 5, is_full=True)
    np.testing.assert_array_equal(drawn.scores, np.array([0.5, 1.0, 3.0, 2.0, 7.0], "float32")[drawn.indices])


def test_measurements_change_the_next_epoch_only():
    sampler = sampler_of(LOSSES)
    planned = sampler.begin_epoch(2)
    first = sampler.draw(1)
    sampler.update(np.arange(5), np.full(5, 4.0))
    assert sampler.samples_planned == planned - 1 == 3
    assert len(set(np.concatenate([first.indices, sampler.draw(3).indices]))) == 4
    assert sampler.begin_epoch(2) == 5


def test_smoothed_losses_skip_fewer_samples():
    def second_epoch(sampler):
        """Return the first batch of the second epoch, and the number of samples in that epoch."""
        indices = sampler.draw(SIZE).indices
        sampler.update(indices, SCORES[indices])
        drawn = sampler.draw(1)
        return drawn, 1 + getattr(sampler, "sampler", sampler).samples_planned

    def make():
        return SkippingSampler(Toy(), UNBIASED, smooth=True, seed=1)

    drawn, samples = second_epoch(PowerSmoothingSampler(make(), 0.03))
    # e^-0.18 to e^0.18 over their mean is at least 0.82, and one less half of the mean distance from it is 0.955.
    assert 0.94 * SIZE < samples < SIZE and drawn.weights[0] < 1 / 0.82
    assert second_epoch(make())[1] < 0.7 * SIZE


@pytest.mark.parametrize("skip_probability", [1.0, -0.1, True, "half"])
def test_a_probability_out_of_range_is_refused(skip_probability):
    with pytest.raises(ValueError, match=r"`skip_probability` must be a number in \[0, 1\). Received: skip_prob"):
        SkippingSampler(Toy(), UNBIASED, skip_probability)
