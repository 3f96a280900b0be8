"""The weighted reshuffle: counts, weights, rescoring, and the calibration of old scores."""

import time

import numpy as np
import pytest
from toys import SCORES, SIZE, VALUES, Reader, Toy

from importance_sampling.reweighting import UNBIASED, AdjustedBiasedReweightingPolicy, BiasedReweightingPolicy
from importance_sampling.samplers import PowerSmoothingSampler, ReshuffleSampler
from importance_sampling.samplers.calibration import MEMORY, MIN_SCORE, NUM_AGES, NUM_MAGNITUDES, Calibration, cells

UNSEEN = NUM_AGES * NUM_MAGNITUDES


def build(scores=SCORES, policy=UNBIASED, **options):
    return ReshuffleSampler(Toy(scores), policy, **{"seed": 3, **options})


def epoch(sampler, batch_size, steps=None):
    """Draw batches and update the sampler with measured scores, for an epoch or a number of steps."""
    drawn = []
    for _ in range(steps or sampler.size // batch_size):
        drawn.append(sampler.draw(batch_size))
        sampler.update(drawn[-1].indices, sampler.dataset.scores(drawn[-1].indices))
    return drawn


def probabilities_of(sampler):
    """Return the probability of every row in the current epoch, as the sampler saves it."""
    return sampler.state()["_p"].astype("float64")


def expected_scores_of(sampler):
    """Return the expected score of every row in the current epoch, as the sampler saves them."""
    state = sampler.state()
    return state["_expected"][state["_cells"]]


def joined(drawn):
    return (np.concatenate(parts) for parts in zip(*drawn, strict=True))


# Epochs


def test_the_first_epoch_is_uniform_with_weights_of_one():
    indices, weights, scores, unbiased = joined(epoch(build(), 12))
    np.testing.assert_array_equal(np.sort(indices), np.arange(SIZE))
    assert (indices != np.arange(SIZE)).any()
    np.testing.assert_allclose(weights, 1, rtol=1e-6)
    np.testing.assert_array_equal(weights, unbiased)
    assert np.isnan(scores).all()  # none is known


def test_expected_scores_start_at_a_geometric_mean_and_approach_the_measured_scores():
    sampler = build()
    epoch(sampler, 12)
    indices, weights, scores, _ = joined(epoch(sampler, 12))
    # sqrt(s m), up to the width of a cell, a half octave of the score.
    np.testing.assert_allclose(scores, np.sqrt(SCORES[indices] * np.sqrt(np.mean(SCORES**2))), rtol=0.2)
    assert weights.max() > 1.5
    indices, _, expected, _ = joined(epoch(sampler, 12, 100)[-5:])
    high = SCORES[indices] > 1  # samples with low scores are rarely drawn
    assert np.median(np.abs(np.log(expected / SCORES[indices]))[high]) < 0.5  # initially 0.8


@pytest.mark.parametrize("recompute", [1, 2])
def test_all_samples_are_rescored_every_recompute_epochs_including_the_first(recompute):
    model = Reader()
    sampler = build(model=model, recompute=recompute)
    _, weights, scores, _ = joined(epoch(sampler, 12))
    assert model.scored == SIZE and weights.max() > 1.5 and scores.max() > 2 * scores.min()
    for number in range(1, 5):
        epoch(sampler, 12)
        assert model.scored == SIZE * (1 + number // recompute)


def in_fits(sampler, *fits, batch_size=6):
    """Draw batches and update the sampler as trainers do, which set the number of samples left in a `fit`."""
    drawn = []
    for samples in fits:
        for left in range(samples, 0, -batch_size):
            sampler.samples_left = left
            drawn += epoch(sampler, min(batch_size, left), 1)
    return drawn


@pytest.mark.parametrize(("left", "times"), [(60, 2), (20, 2), (7, 2), (6, 1)])
def test_the_samples_left_are_drawn_as_a_short_epoch_and_rescored_if_more_than_a_tenth_of_an_epoch(left, times):
    model = Reader()
    sampler = build(model=model, recompute=1)
    drawn = in_fits(sampler, SIZE + left)
    assert model.scored == times * SIZE
    assert sampler.samples_planned == 0  # all planned samples were drawn
    # Every sample occurs left * P_i times, rounded up or down.
    indices, weights, *_ = joined(drawn[10:])
    p = probabilities_of(sampler)
    count, exact = np.bincount(indices, minlength=SIZE), left * p
    assert (count >= np.floor(exact - 1e-4)).all() and (count <= np.ceil(exact + 1e-4)).all()
    np.testing.assert_allclose(weights, 1 / (SIZE * p[indices]), rtol=1e-5)


def test_a_batch_across_two_epochs_plans_only_the_samples_left():
    sampler = build(model=Reader(), recompute=1)
    in_fits(sampler, SIZE + 4, batch_size=8)  # the last but one batch starts four samples before the end of the epoch
    assert sampler.samples_planned == 0 and sampler.model.scored == SIZE


def test_a_whole_epoch_is_rescored_after_a_short_fit():
    sampler = build(model=Reader(), recompute=1)
    in_fits(sampler, 36)
    in_fits(sampler, SIZE)
    assert sampler.model.scored == 2 * SIZE


def test_scores_are_used_for_at_most_a_tenth_of_an_epoch_longer_in_short_fits():
    sampler = build(model=Reader(), recompute=1)
    in_fits(sampler, *[6] * 11)  # 66 of 60 samples
    assert sampler.model.scored == SIZE
    in_fits(sampler, 6)
    assert sampler.model.scored == 2 * SIZE


def test_the_first_epoch_is_uniform_also_across_short_fits():
    indices, weights, *_ = joined(in_fits(build(), *[12] * 5))
    np.testing.assert_array_equal(np.sort(indices), np.arange(SIZE))
    np.testing.assert_allclose(weights, 1, rtol=1e-6)


def test_a_decorator_passes_the_number_of_samples_left_on():
    inner = build(model=Reader(), recompute=1)
    outer = PowerSmoothingSampler(inner, 0.5)
    in_fits(outer, SIZE + 4)
    assert outer.samples_left == inner.samples_left == 4 and inner.model.scored == SIZE


def test_rescoring_needs_a_model_that_scores():
    with pytest.raises(ValueError, match=r"`model` must have `score.*Received: model=None"):
        build(recompute=1)
    with pytest.raises(ValueError, match=r"`recompute` must be an int of at least 0.*Received: recompute=-1"):
        build(recompute=-1)


def test_a_sample_occurs_in_an_epoch_as_often_as_expected_rounded_up_or_down():
    sampler = build()
    epoch(sampler, 12)
    for _ in range(30):
        indices, weights, expected, _ = joined(epoch(sampler, 12))
        count = np.bincount(indices, minlength=SIZE)
        by_row = expected_scores_of(sampler)
        p = 0.9 * by_row / by_row.sum() + 0.1 / SIZE
        assert (count >= np.floor(SIZE * p - 1e-6)).all() and (count <= np.ceil(SIZE * p + 1e-6)).all()
        np.testing.assert_allclose(weights, 1 / (SIZE * p[indices]), rtol=1e-5)
        np.testing.assert_allclose(expected, by_row[indices], rtol=1e-6)
        assert weights.max() <= 10 * (1 + 1e-5)
    assert count.max() >= 4 and (count == 0).any()  # scores are far from equal


@pytest.mark.parametrize(("alpha", "left"), [(0.1, np.inf), (0.5, np.inf), (0.1, 25)])
def test_a_planned_epoch_is_unbiased_given_its_probabilities(alpha, left):
    sampler = build(alpha=alpha)
    epoch(sampler, 12, 100)
    sums, unweighted = [], []
    for _ in range(1500):
        sampler.samples_left = left
        drawn = sampler.draw(min(left, SIZE))
        assert sampler.samples_planned == 0  # neither more nor less than an epoch
        sums.append((drawn.unbiased_weights * VALUES[drawn.indices]).mean())
        unweighted.append(VALUES[drawn.indices].mean())
    error = np.std(sums) / np.sqrt(len(sums))
    assert abs(np.mean(sums) - VALUES.mean()) < 5 * error
    assert 0 < error < 0.02 * VALUES.mean()  # single sums deviate by up to a few tenths of the error
    assert abs(np.mean(unweighted) - VALUES.mean()) > 20 * error


def test_a_batch_across_two_epochs_is_weighed_by_the_probabilities_of_each_epoch():
    sampler = build()
    epoch(sampler, 12, 99)  # an epoch is five batches
    other = build(seed=8)
    other.restore(sampler.state())
    first, p = other.draw(12).indices, probabilities_of(other)  # the 12 that are left
    following, q = other.draw(4).indices, probabilities_of(other)
    assert (p != q).any()
    drawn = sampler.draw(16)
    np.testing.assert_array_equal(drawn.indices, np.concatenate([first, following]))
    weights = 1 / (SIZE * np.concatenate([p[first], q[following]]))
    np.testing.assert_allclose(drawn.weights, weights, rtol=1e-5)
    np.testing.assert_allclose(drawn.unbiased_weights, weights, rtol=1e-5)


def test_the_calibration_uses_the_cells_of_the_time_of_the_draw(monkeypatch):
    sampler, seen = build(), []
    epoch(sampler, 12, 4)
    monkeypatch.setattr(sampler.calibration, "update", lambda *observed: seen.append(observed))
    sampler.restore(sampler.state() | {"_cells": np.full(SIZE, 7, "int16")})
    drawn = sampler.draw(16)  # 12 are left
    current = sampler.state()["_cells"]
    scores = np.append(np.full(15, 2.0), np.nan)
    sampler.update(drawn.indices, scores)
    sampler.update(drawn.indices[:2], scores[:2])  # not the last batch
    (cells, observed), (others, _) = seen
    np.testing.assert_array_equal(cells[:12], 7)
    np.testing.assert_array_equal(cells[12:], current[drawn.indices[12:15]])
    np.testing.assert_array_equal(others, current[drawn.indices[:2]])
    assert (current != 7).all() and (observed == 2.0).all()


@pytest.mark.parametrize("policy", [BiasedReweightingPolicy(0.3), AdjustedBiasedReweightingPolicy(0.5)])
def test_unbiased_weights_do_not_depend_on_the_policy(policy):
    sampler, other = build(policy=policy), build()
    for mine, unbiased in zip(epoch(sampler, 14, 12), epoch(other, 14, 12), strict=True):
        np.testing.assert_array_equal(mine.indices, unbiased.indices)
        np.testing.assert_array_equal(mine.unbiased_weights, unbiased.weights)
        assert mine.weights.shape[1:] == (() if policy.weight_size == 1 else (2,))
    assert np.abs(np.ravel(mine.weights)[:14] - unbiased.weights).max() > 0.1


@pytest.mark.parametrize("batch_size", [1, 7, 64, 150])
def test_epochs_are_complete_with_any_batch_size(batch_size):
    sampler = build()
    indices, weights, _, _ = joined(epoch(sampler, batch_size, 420 // batch_size + 1))
    np.testing.assert_array_equal(np.sort(indices[:SIZE]), np.arange(SIZE))
    assert np.isfinite(weights).all() and weights.max() <= 10 * (1 + 1e-5)


def test_a_state_saved_within_an_epoch_gives_the_same_draws_when_restored():
    sampler, other = build(), build(seed=8)
    epoch(sampler, 14, 7)
    other.restore({name: np.array(value) for name, value in sampler.state().items()})
    for mine, theirs in zip(epoch(sampler, 14, 12), epoch(other, 14, 12), strict=True):
        for one, two in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one, two)


def test_unusable_measured_scores_are_ignored():
    scores = SCORES.copy()
    scores[:3] = np.nan, np.inf, -1
    sampler = build(scores)
    for drawn in epoch(sampler, 12, 30):
        assert np.isfinite(drawn.weights).all()
    assert np.isfinite(drawn.scores).all()
    last = sampler.state()["_scores"]
    assert np.isnan(last[:3]).all() and np.isfinite(last[3:]).sum() > 50


# Calibration of old scores


def test_cells_are_half_octaves_of_the_score_and_octaves_of_the_age():
    # 2 log2(s) + 84: 84 for 1, 86 for 2, 82 for 1/2, limited to 0 and 127. log2(age) + 3: 0 for 1/8, 3 for 1.
    scores = np.array([1.0, 2.0, 0.5, 0.0, MIN_SCORE / 8, 1e9, 1.0, 1.0, 1.0, np.nan])
    ages = np.array([1.0, 4.0, 0.125, 1.0, 1.0, 1.0, 0.0, 0.3, 1e9, 1.0])
    magnitudes = [84, 86, 82, 0, 0, 127, 84, 84, 84]
    age_numbers = [3, 5, 0, 3, 3, 3, 0, 1, 7]
    known = [age * NUM_MAGNITUDES + magnitude for age, magnitude in zip(age_numbers, magnitudes, strict=True)]
    np.testing.assert_array_equal(cells(scores, ages), [*known, UNSEEN])
    assert cells(scores, ages).dtype == np.int16


def test_before_the_first_observation_the_expected_score_is_the_root_of_the_score():
    expected = Calibration().expected_scores()
    # The middle of a cell is the score 2^((magnitude + 0.5 - 84) / 2).
    magnitudes = np.tile(np.arange(NUM_MAGNITUDES), NUM_AGES)
    np.testing.assert_allclose(expected[:-1], 2.0 ** ((magnitudes + 0.5 - 84) / 4), rtol=1e-6)
    assert expected[UNSEEN] == pytest.approx(1.0)


def test_equal_observations_in_all_cells_are_expected_in_all_cells():
    calibration = Calibration()
    all_cells = np.repeat([*range(NUM_MAGNITUDES), UNSEEN], 5000)
    calibration.update(all_cells, np.full(len(all_cells), 3.0))
    np.testing.assert_allclose(calibration.expected_scores(), 3.0, rtol=0.02)


def test_a_cell_with_many_observations_is_estimated_from_them():
    calibration = Calibration()
    cell = 3 * NUM_MAGNITUDES + 40
    for _ in range(40):
        calibration.update(np.full(100, cell), np.full(100, 2.0))
        calibration.update(np.full(100, 3 * NUM_MAGNITUDES + 75), np.full(100, 50.0))
        calibration.update(np.full(100, UNSEEN), np.array([1.0, 7.0] * 50))
    expected = calibration.expected_scores()
    assert expected[cell] == pytest.approx(2.0, rel=0.01)
    assert expected[3 * NUM_MAGNITUDES + 75] == pytest.approx(50.0, rel=0.01)
    assert expected[UNSEEN] == pytest.approx(5.0, rel=0.01)  # sqrt((1 + 49) / 2), the root of the mean square
    assert expected[5 * NUM_MAGNITUDES + 40] == pytest.approx(2.0, rel=0.05)  # an age without observations


def test_observations_of_the_calibration_decay():
    calibration = Calibration()
    calibration.update(np.full(1000, UNSEEN), np.full(1000, 4.0))
    for _ in range(8 * MEMORY):
        calibration.update(np.full(10, UNSEEN), np.full(10, 1.0))
    assert calibration.expected_scores()[UNSEEN] == pytest.approx(1.0, rel=0.01)
    # 1000 of 4^2, with a decay of (1 - 1/500)^4000 = 3.3e-4, and 10 * 500 of 1.
    assert calibration.squares[UNSEEN] == pytest.approx(5000 + 1000 * 16 * 3.3e-4, rel=0.01)


def test_the_expected_score_of_a_noisy_score_is_its_root_mean_square():
    rng = np.random.default_rng(0)
    true = np.exp(rng.normal(size=20000))

    def noisy(indices):
        return true[indices] * rng.exponential(size=len(indices))

    last = noisy(np.arange(20000))
    cell = cells(last, np.full(20000, 1.0))
    calibration = Calibration()
    for _ in range(500):
        indices = rng.integers(20000, size=128)
        calibration.update(cell[indices], noisy(indices))
    following = noisy(np.arange(20000))
    expected = calibration.expected_scores()[cell]
    for one in np.unique(cell):
        of_it = cell == one
        if of_it.sum() > 400:  # fewer give an inaccurate mean square
            assert expected[of_it][0] == pytest.approx(np.sqrt(np.mean(following[of_it] ** 2)), rel=0.25), one
    # With the last score itself the variance of the weighted gradient is much higher.
    variance = {}
    for name, scores in (("expected", expected), ("last", last)):
        variance[name] = np.mean(2 * true**2 / (0.9 * scores / scores.mean() + 0.1))
    assert variance["expected"] < 0.8 * variance["last"]
    assert variance["expected"] < 0.8 * np.mean(2 * true**2)


def test_a_draw_from_a_million_samples_takes_less_than_a_fifth_of_a_millisecond():
    size, batch = 10**6, 128

    class Rows(Toy):
        def __init__(self):
            self.train_data = range(size)

    sampler = ReshuffleSampler(Rows(), UNBIASED, seed=0)
    scores = np.random.default_rng(0).exponential(size=size)
    seconds = []
    for _ in range(200):
        start = time.process_time()
        drawn = sampler.draw(batch)
        sampler.update(drawn.indices, scores[drawn.indices])
        seconds.append(time.process_time() - start)
    assert np.median(seconds) < 0.0002  # 0.02 ms on one core at 3 GHz: 0.5 % of a step of 4 ms
    sampler.restore(sampler.state() | {"_scores": scores.astype("float32"), "_at": np.array(size)})
    start = time.process_time()
    sampler.draw(batch)  # the first of an epoch, which is planned
    # 0.1 s per epoch of 7812 batches: 0.02 ms per step.
    assert (time.process_time() - start) / (size / batch) < 0.0002


def test_scores_of_batches_measured_late_count_from_when_these_were_drawn():
    toy = Toy()
    late, at_once = (ReshuffleSampler(toy, UNBIASED, seed=3) for _ in range(2))
    drawn = []
    for _ in range(5):
        indices = at_once.draw(8).indices
        at_once.update(indices, toy.scores(indices))
        drawn.append(late.draw(8).indices)
    for indices in drawn[1:]:  # the scores of the first batch are lost
        late.update(indices, toy.scores(indices))
    rows = np.concatenate(drawn[1:])
    np.testing.assert_array_equal(late.state()["_seen"][rows], at_once.state()["_seen"][rows])
    assert np.isnan(late.state()["_scores"][drawn[0]]).all()


def test_scores_of_rows_that_were_not_drawn_leave_the_drawn_ones_as_they_are():
    toy = Toy()
    sampler = ReshuffleSampler(toy, UNBIASED, seed=3)
    first, second = sampler.draw(8).indices, sampler.draw(8).indices
    sampler.update(second[::-1], toy.scores(second[::-1]))  # another order: counts as of now
    sampler.update(first, toy.scores(first))
    size = toy.x.shape[0]
    np.testing.assert_allclose(sampler.state()["_seen"][first], 8 / size, rtol=1e-6)
    np.testing.assert_allclose(sampler.state()["_seen"][second], 16 / size, rtol=1e-6)
