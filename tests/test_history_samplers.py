"""Samplers that record scores: the last score of each sample, ranks of losses, a cache."""

import numpy as np
import pytest
from toys import SCORES, SIZE, Reader, Toy

from importance_sampling import samplers
from importance_sampling.reweighting import UNBIASED, UNWEIGHTED
from importance_sampling.samplers.online_batch_selection import pressure, rank_probabilities
from importance_sampling.samplers.table import ScoreTable, score_all


def by_row(sampler, size=100):
    """Return the score of every row in a draw of `size` samples for each row, so many that all rows are drawn."""
    drawn = sampler.draw(size * sampler.size)
    found = np.full(sampler.size, np.nan)
    found[drawn.indices] = drawn.scores
    return found


def test_samples_without_a_score_get_the_mean_of_the_known_scores():
    sampler = samplers.HistorySampler(Toy(SCORES[:6]), UNBIASED, recompute=0)
    np.testing.assert_array_equal(by_row(sampler), np.zeros(6))
    sampler.update([4, 1, 4], [9.0, 2.0, 4.0])  # the last score of sample 4 is recorded
    np.testing.assert_array_equal(by_row(sampler), [3, 2, 3, 3, 4, 3])
    sampler.update([0, 1, 2], [0.0, np.nan, -1.0])
    np.testing.assert_array_equal(by_row(sampler), [0, 2, 2, 2, 4, 2])


def test_a_history_sampler_draws_by_the_last_scores_with_a_uniform_share():
    toy = Toy([1.0, 2, 3, 4, 0])
    sampler = samplers.HistorySampler(toy, UNBIASED, recompute=0, alpha=0.5, seed=1)
    sampler.update(np.arange(5), toy.scores(np.arange(5)))
    drawn = sampler.draw(200)
    # P = .05 s + .1, weights 1 / (5 P).
    np.testing.assert_allclose(np.bincount(drawn.indices), [30, 40, 50, 60, 20], atol=1)
    np.testing.assert_allclose(drawn.weights, 1 / (0.25 * toy.scores(drawn.indices) + 0.5), rtol=1e-6)
    assert toy.train_data.read == 0


def test_a_history_sampler_rescores_all_samples_every_recompute_epochs():
    model = Reader()
    sampler = samplers.HistorySampler(Toy(), UNBIASED, model, recompute=2, seed=1)
    scored = []
    for _ in range(18):  # an epoch is 4 draws of 15
        sampler.draw(15)
        scored.append(model.scored)
    assert scored == [0] * 8 + [SIZE] * 8 + [2 * SIZE] * 2
    np.testing.assert_allclose(by_row(sampler), SCORES, rtol=1e-6)
    assert sampler.needs_model and not samplers.HistorySampler(Toy(), UNBIASED, recompute=0).needs_model


def test_all_samples_are_scored_in_parts(monkeypatch):
    monkeypatch.setattr("importance_sampling.samplers.table.ROWS_PER_READ", 7)
    table, model = ScoreTable(SIZE), Reader()
    score_all(table.record, Toy(), model, SIZE)
    found = np.empty(SIZE)
    found[table.order] = table.scores
    np.testing.assert_allclose(found, SCORES, rtol=1e-6)
    assert table.seen.all() and model.scored == SIZE


def test_draws_of_equal_scores_do_not_follow_a_period_in_the_data():
    # Labels repeat every 6 rows, and a batch is a sixth of the rows: drawn in order, a batch would have a single label.
    sampler = samplers.HistorySampler(Toy(np.ones(600), np.arange(600) % 6), UNBIASED, recompute=0, seed=1)
    labels = [len(set(sampler.draw(100).indices % 6)) for _ in range(5)]
    assert min(labels) == 6


def test_rank_probabilities_are_those_computed_by_hand():
    # s = 16, N = 4: exp(-r log(16) / 4) = 2^-r: [1 1/2 1/4 1/8] / (15/8).
    np.testing.assert_allclose(rank_probabilities(4, 16.0), np.array([8, 4, 2, 1]) / 15)
    np.testing.assert_allclose(rank_probabilities(5, 1.0), np.full(5, 0.2))


def test_the_selection_pressure_goes_exponentially_from_the_first_to_the_last_value():
    np.testing.assert_allclose([pressure(epoch, (100, 1), 2) for epoch in range(4)], [100, 10, 1, 1])
    np.testing.assert_allclose([pressure(epoch, (1, 16), 4) for epoch in range(5)], [1, 2, 4, 8, 16])


def ranks(sampler):
    """Return row indices from the highest to the lowest probability."""
    counts = np.bincount(sampler.draw(150).indices)
    assert len(set(counts)) == sampler.size
    return np.argsort(-counts).tolist()


def test_the_highest_loss_has_rank_zero_after_samples_without_a_loss():
    sampler = samplers.OnlineBatchSelectionSampler(
        Toy(SCORES[:4]), UNWEIGHTED, steps_per_epoch=1, recompute=0, s_e=(16, 16)
    )
    ranks(sampler)
    sampler.update([2, 0, 3], [1.0, 5.0, 3.0])
    assert ranks(sampler) == [1, 0, 3, 2]
    sampler.update([1, 2], [0.5, 4.0])
    assert ranks(sampler) == [0, 2, 3, 1]
    drawn = sampler.draw(150)
    np.testing.assert_allclose(np.bincount(drawn.indices)[[0, 2, 3, 1]], [80, 40, 20, 10], atol=1)
    assert (drawn.weights == 1).all()


def test_ranks_are_computed_every_epoch_and_losses_every_recompute_epochs():
    model = Reader()
    sampler = samplers.OnlineBatchSelectionSampler(
        Toy(), UNBIASED, model, steps_per_epoch=3, recompute=2, s_e=(100, 1), n_epochs=4
    )
    scored, orders, pressures = [], [], []
    for _ in range(15):
        drawn = sampler.draw(6000)  # all rows
        p = np.empty(SIZE)
        p[drawn.indices] = 1 / (SIZE * drawn.unbiased_weights.astype("float64"))
        sampler.update(drawn.indices[:10], SCORES[drawn.indices[:10]])
        scored.append(model.scored)
        orders.append(np.argsort(-p, kind="stable").tolist())
        pressures.append(p.max() / p.min())
    assert scored == [0] * 6 + [SIZE] * 6 + [2 * SIZE] * 3
    assert orders[0] == orders[2] != orders[3] == orders[5]
    np.testing.assert_array_equal(orders[6], np.argsort(-SCORES))
    # s = 100^(1 - e/4); the exponent of the last rank is (N - 1) / N.
    expected = 100.0 ** ((1 - np.repeat(np.arange(5), 3) / 4) * (SIZE - 1) / SIZE)
    np.testing.assert_allclose(pressures, expected, rtol=1e-6)


def test_unbiased_weights_of_ranks_are_the_inverse_of_their_probabilities():
    sampler = samplers.OnlineBatchSelectionSampler(Toy(SCORES[:4]), UNBIASED, recompute=0, s_e=(16, 1), seed=1)
    drawn = sampler.draw(1500)
    p = np.empty(4)
    p[np.argsort(-np.bincount(drawn.indices))] = np.array([8, 4, 2, 1]) / 15
    np.testing.assert_allclose(drawn.weights, 1 / (4 * p[drawn.indices]), rtol=1e-6)


def test_trained_samples_are_in_the_cache_for_staleness_batches():
    # a = 1, s = .2 + [.3 .1] = [.5 .3], N = 4: 1 + 4 * .5 / .8 = 3.5 and 1 + 4 * .3 / .8 = 2.5.
    sampler = samplers.CacheSampler(Toy(SCORES[:4]), UNBIASED, staleness=2)
    np.testing.assert_array_equal(by_row(sampler), np.ones(4))
    sampler.update([1, 3], [0.3, 0.1])
    np.testing.assert_allclose(by_row(sampler), [1, 3.5, 1, 2.5])
    sampler.update([0, 0, 2], [np.nan, 0.6, -1.0])
    # s = [.8 .5 . .3]: 1 + 4 s / 1.6.
    np.testing.assert_allclose(by_row(sampler), [3, 2.25, 1, 1.75])
    np.testing.assert_allclose(by_row(sampler), [5, 1, 1, 1])  # the first two left the cache after two batches
    np.testing.assert_array_equal(by_row(sampler), np.ones(4))


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_the_share_cache_prob_of_the_draws_is_due_to_the_cache(share):
    sampler = samplers.CacheSampler(Toy(), UNBIASED, cache_prob=share, smooth=0.0, seed=1)
    sampler.draw(4)
    sampler.update([1, 3], [3.0, 1.0])
    drawn = sampler.draw(1200)
    counts = np.bincount(drawn.indices, minlength=SIZE)
    uniform = (1 - share) * 1200 / SIZE
    np.testing.assert_allclose(counts[[1, 3]], [uniform + 900 * share, uniform + 300 * share], atol=1)
    np.testing.assert_allclose(np.delete(counts, [1, 3]), uniform, atol=1)
    np.testing.assert_allclose(drawn.weights.max(), 1 / (1 - share), rtol=1e-6)
