"""The weighted reshuffle: counts, weights, what is remembered of scores, and what old scores are taken to say."""

import time

import numpy as np
import pytest
from toys import SCORES, SIZE, VALUES, Reader, Toy

from importance_sampling.reweighting import UNBIASED, AdjustedBiasedReweightingPolicy, BiasedReweightingPolicy
from importance_sampling.samplers import PowerSmoothingSampler, ReshuffleSampler
from importance_sampling.samplers.calibration import AGES, MEMORY, SIZES, SMALLEST, Calibration, cells

UNSEEN = AGES * SIZES


def build(scores=SCORES, policy=UNBIASED, **options):
    return ReshuffleSampler(Toy(scores), policy, **{"seed": 3, **options})


def epoch(sampler, batch_size, steps=None):
    """Draw and measure, as a trainer would; a pass over the data, or so many steps."""
    drawn = []
    for _ in range(steps or sampler.size // batch_size):
        drawn.append(sampler.draw(batch_size))
        sampler.update(drawn[-1].indices, sampler.dataset.scores(drawn[-1].indices))
    return drawn


def joined(drawn):
    return (np.concatenate(parts) for parts in zip(*drawn, strict=True))


# Epochs


def test_the_first_epoch_is_a_permutation_with_weights_of_one():
    indices, weights, scores, fair = joined(epoch(build(), 12))
    np.testing.assert_array_equal(np.sort(indices), np.arange(SIZE))
    assert (indices != np.arange(SIZE)).any()
    np.testing.assert_allclose(weights, 1, rtol=1e-6)
    np.testing.assert_array_equal(weights, fair)
    np.testing.assert_array_equal(scores, 1)


def test_the_second_epoch_trusts_scores_half_way_and_learns_what_they_are_worth():
    sampler = build()
    epoch(sampler, 12)
    indices, weights, scores, _ = joined(epoch(sampler, 12))
    # sqrt(s m), but for the width of a cell, a half octave of the score.
    np.testing.assert_allclose(scores, np.sqrt(SCORES[indices] * np.sqrt(np.mean(SCORES**2))), rtol=0.2)
    assert weights.max() > 1.5
    indices, _, learnt, _ = joined(epoch(sampler, 12, 100)[-5:])
    drawn = SCORES[indices] > 1  # the smallest hardly are
    assert np.median(np.abs(np.log(learnt / SCORES[indices]))[drawn]) < 0.5  # of the guesses, 0.8


@pytest.mark.parametrize("recompute", [1, 2])
def test_all_are_scored_anew_every_so_many_epochs_the_first_included(recompute):
    model = Reader()
    sampler = build(model=model, recompute=recompute)
    _, weights, scores, _ = joined(epoch(sampler, 12))
    assert model.scored == SIZE and weights.max() > 1.5 and scores.max() > 2 * scores.min()
    for number in range(1, 5):
        epoch(sampler, 12)
        assert model.scored == SIZE * (1 + number // recompute)


def in_fits(sampler, *fits, batch_size=6):
    """Draw and measure as trainers do that know how many samples each `fit` draws."""
    drawn = []
    for samples in fits:
        for left in range(samples, 0, -batch_size):
            sampler.left = left
            drawn += epoch(sampler, min(batch_size, left), 1)
    return drawn


@pytest.mark.parametrize(("left", "times"), [(60, 2), (20, 2), (7, 2), (6, 1)])
def test_what_is_left_is_laid_out_by_itself_and_scored_if_it_is_more_than_a_tenth_of_an_epoch(left, times):
    model = Reader()
    sampler = build(model=model, recompute=1)
    drawn = in_fits(sampler, SIZE + left)
    assert model.scored == times * SIZE
    assert sampler._at == SIZE  # nothing was laid out that isn't drawn
    # Every sample left P_i times, up or down.
    indices, weights, *_ = joined(drawn[10:])
    count, exact = np.bincount(indices, minlength=SIZE), left * sampler._p.astype("float64")
    assert (count >= np.floor(exact - 1e-4)).all() and (count <= np.ceil(exact + 1e-4)).all()
    np.testing.assert_allclose(weights, 1 / (SIZE * sampler._p[indices]), rtol=1e-5)


def test_a_batch_that_ends_one_plan_and_begins_another_counts_what_it_has_drawn():
    sampler = build(model=Reader(), recompute=1)
    in_fits(sampler, SIZE + 4, batch_size=8)  # the last batch but one begins four samples before the plan's end
    assert sampler._at == SIZE and sampler.model.scored == SIZE


def test_a_whole_epoch_is_scored_also_after_one_that_was_cut_short():
    sampler = build(model=Reader(), recompute=1)
    in_fits(sampler, 36)
    in_fits(sampler, SIZE)
    assert sampler.model.scored == 2 * SIZE


def test_however_short_a_fit_is_scores_serve_little_more_than_an_epoch():
    sampler = build(model=Reader(), recompute=1)
    in_fits(sampler, *[6] * 11)  # 66 of 60 samples
    assert sampler.model.scored == SIZE
    in_fits(sampler, 6)
    assert sampler.model.scored == 2 * SIZE


def test_in_short_fits_too_the_first_epoch_is_a_plain_one():
    indices, weights, *_ = joined(in_fits(build(), *[12] * 5))
    np.testing.assert_array_equal(np.sort(indices), np.arange(SIZE))
    np.testing.assert_allclose(weights, 1, rtol=1e-6)


def test_a_decorator_hands_on_how_much_is_left():
    inner = build(model=Reader(), recompute=1)
    outer = PowerSmoothingSampler(inner, 0.5)
    in_fits(outer, SIZE + 4)
    assert outer.left == inner.left == 4 and inner.model.scored == SIZE


def test_scoring_anew_needs_a_model_that_can():
    with pytest.raises(ValueError, match=r"`model` must have `score.*Received: model=None"):
        build(recompute=1)
    with pytest.raises(ValueError, match=r"`recompute` must be an int of at least 0.*Received: recompute=-1"):
        build(recompute=-1)


def test_later_epochs_deal_out_every_sample_as_often_as_its_probability_says():
    sampler = build()
    for _ in range(30):
        indices, weights, expected, _ = joined(epoch(sampler, 12))
        count = np.bincount(indices, minlength=SIZE)
        p = 0.9 * sampler._expected[sampler._cells] / sampler._expected[sampler._cells].sum() + 0.1 / SIZE
        assert (count >= np.floor(SIZE * p - 1e-6)).all() and (count <= np.ceil(SIZE * p + 1e-6)).all()
        np.testing.assert_allclose(weights, 1 / (SIZE * p[indices]), rtol=1e-5)
        np.testing.assert_allclose(expected, sampler._expected[sampler._cells][indices], rtol=1e-6)
        assert weights.max() <= 10 * (1 + 1e-5)
    assert count.max() >= 4 and (count == 0).any()  # scores are far from equal


@pytest.mark.parametrize(("alpha", "left"), [(0.1, np.inf), (0.5, np.inf), (0.1, 25)])
def test_a_plan_is_unbiased_given_its_probabilities(alpha, left):
    sampler = build(alpha=alpha)
    epoch(sampler, 12, 100)
    sums = []
    for _ in range(1500):
        sampler._plan(lambda scores: scores, left)
        order = sampler._order[sampler._at :]
        assert len(order) == min(left, SIZE)
        sums.append((VALUES[order] / sampler._p[order]).mean() / SIZE)
    error = np.std(sums) / np.sqrt(len(sums))
    assert abs(np.mean(sums) - VALUES.mean()) < 5 * error
    assert 0 < error < 0.02 * VALUES.mean()  # single sums are off by up to a few tenths of it
    assert abs(VALUES @ sampler._p - VALUES.mean()) > 20 * error  # what unweighted draws would say


def test_a_batch_across_two_epochs_has_each_part_weighed_by_its_own_probabilities():
    sampler = build()
    epoch(sampler, 12, 99)  # five batches are an epoch
    left, p = sampler._order[48:].copy(), sampler._p
    drawn = sampler.draw(16)  # 12 are left
    assert (sampler._p != p).any()
    np.testing.assert_array_equal(drawn.indices, np.concatenate([left, sampler._order[:4]]))
    weights = 1 / (SIZE * np.concatenate([p[left], sampler._p[sampler._order[:4]]]))
    np.testing.assert_allclose(drawn.weights, weights, rtol=1e-5)
    np.testing.assert_allclose(drawn.fair, weights, rtol=1e-5)


def test_a_batch_across_two_epochs_is_observed_by_what_was_known_when_it_was_planned(monkeypatch):
    sampler, seen = build(), []
    epoch(sampler, 12, 4)
    monkeypatch.setattr(sampler.calibration, "observe", lambda *observed: seen.append(observed))
    sampler._cells[:] = 7
    drawn = sampler.draw(16)  # 12 are left
    scores = np.append(np.full(15, 2.0), np.nan)
    sampler.update(drawn.indices, scores)
    sampler.update(drawn.indices[:2], scores[:2])  # no batch as it was drawn
    (cells, observed), (others, _) = seen
    np.testing.assert_array_equal(cells[:12], 7)
    np.testing.assert_array_equal(cells[12:], sampler._cells[drawn.indices[12:15]])
    np.testing.assert_array_equal(others, sampler._cells[drawn.indices[:2]])
    assert (sampler._cells != 7).all() and (observed == 2.0).all()


@pytest.mark.parametrize("policy", [BiasedReweightingPolicy(0.3), AdjustedBiasedReweightingPolicy(0.5)])
def test_figures_stay_fair_whatever_the_policy(policy):
    sampler, other = build(policy=policy), build()
    for mine, unbiased in zip(epoch(sampler, 14, 12), epoch(other, 14, 12), strict=True):
        np.testing.assert_array_equal(mine.indices, unbiased.indices)
        np.testing.assert_array_equal(mine.fair, unbiased.weights)
        assert mine.weights.shape[1:] == (() if policy.weight_size == 1 else (2,))
    assert np.abs(np.ravel(mine.weights)[:14] - unbiased.weights).max() > 0.1


@pytest.mark.parametrize("batch_size", [1, 7, 64, 150])
def test_any_batch_size_goes_through_the_epochs_in_turn(batch_size):
    sampler = build()
    indices, weights, _, _ = joined(epoch(sampler, batch_size, 420 // batch_size + 1))
    np.testing.assert_array_equal(np.sort(indices[:SIZE]), np.arange(SIZE))
    assert np.isfinite(weights).all() and weights.max() <= 10 * (1 + 1e-5)


def test_a_state_of_the_middle_of_an_epoch_goes_on_alike():
    sampler, other = build(), build(seed=8)
    epoch(sampler, 14, 7)
    other.restore({name: np.array(value) for name, value in sampler.state().items()})
    for mine, theirs in zip(epoch(sampler, 14, 12), epoch(other, 14, 12), strict=True):
        for one, two in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one, two)


def test_scores_that_are_no_use_are_passed_over():
    scores = SCORES.copy()
    scores[:3] = np.nan, np.inf, -1
    sampler = build(scores)
    for drawn in epoch(sampler, 12, 30):
        assert np.isfinite(drawn.weights).all() and np.isfinite(drawn.scores).all()
    assert np.isnan(sampler._scores[:3]).all() and np.isfinite(sampler._scores[3:]).sum() > 50


# Old scores


def test_cells_are_half_octaves_of_the_score_and_octaves_of_the_age():
    # 2 log2(s) + 84: 84 for 1, 86 for 2, 82 for 1/2, and 0 and 127 at the ends. log2(age) + 3: 0 for 1/8, 3 for 1.
    scores = np.array([1.0, 2.0, 0.5, 0.0, SMALLEST / 8, 1e9, 1.0, 1.0, 1.0, np.nan])
    ages = np.array([1.0, 4.0, 0.125, 1.0, 1.0, 1.0, 0.0, 0.3, 1e9, 1.0])
    sizes = [84, 86, 82, 0, 0, 127, 84, 84, 84]
    octaves = [3, 5, 0, 3, 3, 3, 0, 1, 7]
    expected = [age * SIZES + size for age, size in zip(octaves, sizes, strict=True)] + [UNSEEN]
    np.testing.assert_array_equal(cells(scores, ages), expected)
    assert cells(scores, ages).dtype == np.int16


def test_without_an_observation_scores_are_trusted_half_way():
    expected = Calibration().expected()
    # A cell's scores are 2^((size - 84) / 2) up to half an octave more; their roots, at its middle.
    sizes = np.tile(np.arange(SIZES), AGES)
    np.testing.assert_allclose(expected[:-1], 2.0 ** ((sizes + 0.5 - 84) / 4), rtol=1e-6)
    assert expected[UNSEEN] == pytest.approx(1.0)


def test_what_is_observed_alike_everywhere_is_expected_everywhere():
    calibration = Calibration()
    every = np.repeat([*range(SIZES), UNSEEN], 5000)
    calibration.observe(every, np.full(len(every), 3.0))
    np.testing.assert_allclose(calibration.expected(), 3.0, rtol=0.02)


def test_one_cell_tells_most_of_itself_and_the_unseen_of_the_unseen():
    calibration = Calibration()
    cell = 3 * SIZES + 40
    for _ in range(40):
        calibration.observe(np.full(100, cell), np.full(100, 2.0))
        calibration.observe(np.full(100, 3 * SIZES + 75), np.full(100, 50.0))
        calibration.observe(np.full(100, UNSEEN), np.array([1.0, 7.0] * 50))
    expected = calibration.expected()
    assert expected[cell] == pytest.approx(2.0, rel=0.01)
    assert expected[3 * SIZES + 75] == pytest.approx(50.0, rel=0.01)
    assert expected[UNSEEN] == pytest.approx(5.0, rel=0.01)  # sqrt((1 + 49) / 2), the root of the mean square
    assert expected[5 * SIZES + 40] == pytest.approx(2.0, rel=0.05)  # another age, of which nothing was seen


def test_observations_fade():
    calibration = Calibration()
    calibration.observe(np.full(1000, UNSEEN), np.full(1000, 4.0))
    for _ in range(8 * MEMORY):
        calibration.observe(np.full(10, UNSEEN), np.full(10, 1.0))
    assert calibration.expected()[UNSEEN] == pytest.approx(1.0, rel=0.01)
    # 1000 of 4^2, faded by (1 - 1/500)^4000 = 3.3e-4, beside 10 * 500 of 1.
    assert calibration.squares[UNSEEN] == pytest.approx(5000 + 1000 * 16 * 3.3e-4, rel=0.01)


def test_a_noisy_score_is_expected_at_its_root_mean_square():
    rng = np.random.default_rng(0)
    true = np.exp(rng.normal(size=20000))

    def noisy(indices):
        return true[indices] * rng.exponential(size=len(indices))

    last = noisy(np.arange(20000))
    cell = cells(last, np.full(20000, 1.0))
    calibration = Calibration()
    for _ in range(500):
        indices = rng.integers(20000, size=128)
        calibration.observe(cell[indices], noisy(indices))
    following = noisy(np.arange(20000))
    expected = calibration.expected()[cell]
    for one in np.unique(cell):
        of_it = cell == one
        if of_it.sum() > 400:  # fewer tell little of a mean square
            assert expected[of_it][0] == pytest.approx(np.sqrt(np.mean(following[of_it] ** 2)), rel=0.25), one
    # By the last score itself the variance of the weighted gradient is far higher.
    variance = {}
    for name, scores in (("expected", expected), ("last", last)):
        variance[name] = np.mean(2 * true**2 / (0.9 * scores / scores.mean() + 0.1))
    assert variance["expected"] < 0.8 * variance["last"]
    assert variance["expected"] < 0.8 * np.mean(2 * true**2)


def test_a_million_samples_take_little_time_to_draw_from():
    size, batch = 10**6, 128

    class Rows(Toy):
        def __init__(self):
            self.train_data = range(size)

    sampler = ReshuffleSampler(Rows(), UNBIASED, seed=0)
    scores = np.random.default_rng(0).exponential(size=size)
    spent = []
    for _ in range(200):
        start = time.process_time()
        drawn = sampler.draw(batch)
        sampler.update(drawn.indices, scores[drawn.indices])
        spent.append(time.process_time() - start)
    assert np.median(spent) < 0.0002  # 0.02 ms on one core at 3 GHz: half a per cent of a step of 4 ms
    sampler._scores[:] = scores
    start = time.process_time()
    sampler._plan(lambda scores: scores, np.inf)
    # 0.1 s once an epoch of 7812 batches, so 0.02 ms a step.
    assert (time.process_time() - start) / (size / batch) < 0.0002
