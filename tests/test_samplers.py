"""Uniform passes, pools scored by a model, snapshots, and what samplers refuse."""

import numpy as np
import pytest
from toys import SCORES, SIZE, Reader, Toy

from importance_sampling import samplers
from importance_sampling.reweighting import UNBIASED, UNWEIGHTED, BiasedReweightingPolicy


def test_uniform_passes_hold_every_sample_once_in_changing_order():
    sampler = samplers.UniformSampler(Toy(), BiasedReweightingPolicy(0.3), seed=1)
    # 60 = 3 * 16 + 12: the fourth batch takes 4 from the next pass.
    drawn = np.concatenate([sampler.draw(16).indices for _ in range(8)])
    first, second = drawn[:60], drawn[60:120]
    for one in (first, second):
        np.testing.assert_array_equal(np.sort(one), np.arange(SIZE))
    assert (first != second).any() and (first != np.arange(SIZE)).any()
    assert np.isnan(sampler.draw(4).scores).all() and sampler.candidate_scores is None


def test_uniform_batches_may_be_larger_than_the_data():
    drawn = samplers.UniformSampler(Toy(SCORES[:5]), UNBIASED, seed=1).draw(12).indices
    np.testing.assert_array_equal(np.bincount(drawn[:10]), np.full(5, 2))


def test_a_pool_is_drawn_from_by_the_scores_that_the_model_gives():
    toy, model = Toy(), Reader()
    sampler = samplers.ModelSampler(toy, UNBIASED, model, large_batch=20, alpha=0.2, seed=1)
    drawn = sampler.draw(8)
    assert model.scored == toy.train_data.read == 20
    pool = sampler.candidate_scores
    assert pool.shape == (20,)
    scores = SCORES[drawn.indices]
    np.testing.assert_allclose(drawn.scores, scores, rtol=1e-6)
    np.testing.assert_allclose(drawn.weights, 1 / (0.8 * scores / pool.mean() + 0.2), rtol=1e-5)


def test_how_often_samples_are_drawn_is_what_their_scores_say():
    # The pool is everything, systematic draws of 200 of [1 2 3 4 0] with alpha .5: P = .05 s + .1, counts exact.
    sampler = samplers.ModelSampler(Toy([1.0, 2, 3, 4, 0]), UNBIASED, Reader(), alpha=0.5, seed=1)
    counts = np.bincount(sampler.draw(200).indices, minlength=5)
    np.testing.assert_allclose(counts, [30, 40, 50, 60, 20], atol=1)


def test_multinomial_draws_vary_where_systematic_ones_do_not():
    def counts(scheme):
        toy = Toy([1.0, 1.0])
        sampler = samplers.ModelSampler(toy, UNBIASED, Reader(), resampling=scheme, seed=1)
        return {int((sampler.draw(20).indices == 0).sum()) for _ in range(20)}

    assert counts("systematic") <= {9, 10, 11} and len(counts("multinomial")) > 3


def test_the_scores_are_asked_for_in_the_batches_that_were_named():
    class Named(Reader):
        def score(self, x, y, batch_size=128):
            self.asked = batch_size
            return super().score(x, y)

    model = Named()
    samplers.ModelSampler(Toy(), UNBIASED, model, 20, 7, seed=1).draw(4)
    assert model.asked == 7


def test_snapshots_come_before_every_so_many_batches_and_grow_up_to_everything():
    model = Reader()
    sampler = samplers.SCSGSampler(Toy(), UNBIASED, model, B=20, B_over_b=3, B_rate=2.0, seed=1)
    counts = []
    for _ in range(10):
        assert (sampler.draw(8).weights == 1).all()
        counts.append(len(model.snapshots))
    assert counts == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4]
    assert [sum(map(len, snapshot)) for snapshot in model.snapshots] == [20, 40, 60, 60]
    assert [len(batch) for batch in model.snapshots[0]] == [8, 8, 4]
    for snapshot in model.snapshots:
        rows = np.concatenate(snapshot)
        assert len(np.unique(rows)) == len(rows)
    assert set(np.concatenate(model.snapshots[0])) != set(range(20))


def test_a_snapshot_of_zero_is_of_everything():
    model = Reader()
    samplers.SCSGSampler(Toy(), UNBIASED, model, B=0, seed=1).draw(16)
    assert sum(map(len, model.snapshots[0])) == SIZE


def test_arguments_out_of_range_are_refused():
    toy, model = Toy(), Reader()
    cases = [
        ("dataset", lambda: samplers.UniformSampler(np.ones(3), UNBIASED)),
        ("dataset", lambda: samplers.UniformSampler(Toy(SCORES[:0]), UNBIASED)),
        ("reweighting", lambda: samplers.UniformSampler(toy, "unbiased")),
        ("alpha", lambda: samplers.UniformSampler(toy, UNBIASED, alpha=0)),
        ("alpha", lambda: samplers.UniformSampler(toy, UNBIASED, alpha=1.1)),
        ("seed", lambda: samplers.UniformSampler(toy, UNBIASED, seed=-1)),
        ("resampling", lambda: samplers.UniformSampler(toy, UNBIASED, resampling="stratified")),
        ("model", lambda: samplers.ModelSampler(toy, UNBIASED, None)),
        ("large_batch", lambda: samplers.ModelSampler(toy, UNBIASED, model, 0)),
        ("forward_batch_size", lambda: samplers.ModelSampler(toy, UNBIASED, model, 9, 1.5)),
        ("model", lambda: samplers.SCSGSampler(toy, UNBIASED, object())),
        ("B", lambda: samplers.SCSGSampler(toy, UNBIASED, model, B=-1)),
        ("B_over_b", lambda: samplers.SCSGSampler(toy, UNBIASED, model, B_over_b=0)),
        ("B_rate", lambda: samplers.SCSGSampler(toy, UNBIASED, model, B_rate=0.5)),
        ("backward_time", lambda: samplers.ConstantTimeSampler(toy, UNBIASED, model, backward_time=0)),
        ("tau_th", lambda: samplers.ConstantTimeSampler(toy, UNBIASED, model, tau_th="2")),
        ("ratio", lambda: samplers.ConstantTimeSampler(toy, UNBIASED, model, ratio=1.5)),
        ("min_a", lambda: samplers.ConstantTimeSampler(toy, UNBIASED, model, min_a=0)),
        ("backward_time", lambda: samplers.ConstantVarianceSampler(toy, UNBIASED, model, backward_time=-1)),
        ("extra_samples", lambda: samplers.ConstantVarianceSampler(toy, UNBIASED, model, extra_samples=0.7)),
        ("recompute", lambda: samplers.HistorySampler(toy, UNBIASED, model, recompute=-1)),
        ("model", lambda: samplers.HistorySampler(toy, UNBIASED)),
        ("s_e", lambda: samplers.OnlineBatchSelectionSampler(toy, UNBIASED, model, s_e=(0.5, 1))),
        ("s_e", lambda: samplers.OnlineBatchSelectionSampler(toy, UNBIASED, model, s_e=3)),
        ("n_epochs", lambda: samplers.OnlineBatchSelectionSampler(toy, UNBIASED, model, n_epochs=0)),
        ("steps_per_epoch", lambda: samplers.OnlineBatchSelectionSampler(toy, UNBIASED, model, 0)),
        ("staleness", lambda: samplers.CacheSampler(toy, UNBIASED, 0)),
        ("cache_prob", lambda: samplers.CacheSampler(toy, UNBIASED, cache_prob=1)),
        ("smooth", lambda: samplers.CacheSampler(toy, UNBIASED, smooth=-0.1)),
        ("presample", lambda: samplers.LSTMSampler(toy, UNBIASED, presample=0)),
        ("history", lambda: samplers.LSTMSampler(toy, UNBIASED, history=0)),
        ("subset", lambda: samplers.LSTMComparisonSampler(toy, UNBIASED, model, subset=0)),
        ("alpha", lambda: samplers.PerClassGaussian(toy, UNBIASED, alpha=1)),
        ("presample", lambda: samplers.PerClassGaussian(toy, UNBIASED, presample=0)),
        ("sampler", lambda: samplers.AdditiveSmoothingSampler(toy, 1.0)),
        ("c", lambda: samplers.AdditiveSmoothingSampler(samplers.UniformSampler(toy, UNBIASED), -1)),
        ("condition", lambda: samplers.ConditionalStartSampler(samplers.UniformSampler(toy, UNBIASED), True)),
    ]
    for name, make in cases:
        with pytest.raises(ValueError, match=rf"(?s)`{name}` must .*Received: {name}="):
            make()


def test_measurements_that_do_not_match_are_refused():
    sampler = samplers.HistorySampler(Toy(), UNWEIGHTED, recompute=0)
    with pytest.raises(ValueError, match=r"`indices` and `scores` must have one number for each.*Received: indices"):
        sampler.update([1, 2], [1.0])


def test_candidates_of_ones_own_may_be_lists_and_need_a_score_each():
    class Own(samplers.BaseSampler):
        def _candidates(self, batch_size):
            return self.indices, self.scores

    sampler = Own(Toy(), UNBIASED, seed=1)
    sampler.indices, sampler.scores = [5, 3], [0.0, 2]
    drawn = sampler.draw(20)
    # P = (0.05, 0.95): one draw of twenty, weights 1 / (2 P).
    assert sorted(drawn.indices.tolist()) == [3] * 19 + [5] and drawn.indices.dtype == np.int64
    np.testing.assert_allclose(np.unique(drawn.weights), [1 / 1.9, 10.0], rtol=1e-6)
    for sampler.indices, sampler.scores in (([1, 2], [1.0]), ([], []), ([1], [[1.0]])):
        with pytest.raises(ValueError, match=r"`_candidates` of Own must return .* Received: indices of shape"):
            sampler.draw(2)
