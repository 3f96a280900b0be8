"""Uniform epochs, pools scored by a model, snapshots, and the validation of arguments."""

import numpy as np
import pytest
from toys import SCORES, SIZE, Reader, Toy

from importance_sampling import samplers
from importance_sampling.reweighting import UNBIASED, UNWEIGHTED, BiasedReweightingPolicy


def test_a_uniform_epoch_contains_every_sample_once_in_an_order_that_changes():
    sampler = samplers.UniformSampler(Toy(), BiasedReweightingPolicy(0.3), seed=1)
    # 60 = 3 * 16 + 12: the fourth batch takes 4 samples from the next epoch.
    drawn = np.concatenate([sampler.draw(16).indices for _ in range(8)])
    first, second = drawn[:60], drawn[60:120]
    for epoch in (first, second):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(SIZE))
    assert (first != second).any() and (first != np.arange(SIZE)).any()


def test_uniform_batches_have_no_scores():
    sampler = samplers.UniformSampler(Toy(), UNBIASED, seed=1)
    assert np.isnan(sampler.draw(4).scores).all()
    assert sampler.candidate_scores is None


def test_uniform_batches_can_be_larger_than_the_data():
    drawn = samplers.UniformSampler(Toy(SCORES[:5]), UNBIASED, seed=1).draw(12).indices
    np.testing.assert_array_equal(np.bincount(drawn[:10]), np.full(5, 2))


def test_a_batch_is_drawn_from_a_pool_by_the_scores_of_the_model():
    toy, model = Toy(), Reader()
    sampler = samplers.ModelSampler(toy, UNBIASED, model, large_batch=20, alpha=0.2, seed=1)
    drawn = sampler.draw(8)
    assert model.scored == toy.train_data.read == 20
    pool = sampler.candidate_scores
    assert pool.shape == (20,)
    scores = SCORES[drawn.indices]
    np.testing.assert_allclose(drawn.scores, scores, rtol=1e-6)
    np.testing.assert_allclose(drawn.weights, 1 / (0.8 * scores / pool.mean() + 0.2), rtol=1e-5)


def test_samples_are_drawn_in_proportion_to_their_probabilities():
    # The pool is the whole dataset. Systematic draws of 200 with scores [1 2 3 4 0] and alpha .5: P = .05 s + .1.
    sampler = samplers.ModelSampler(Toy([1.0, 2, 3, 4, 0]), UNBIASED, Reader(), alpha=0.5, seed=1)
    counts = np.bincount(sampler.draw(200).indices, minlength=5)
    np.testing.assert_allclose(counts, [30, 40, 50, 60, 20], atol=1)


def test_the_counts_of_multinomial_draws_vary_more_than_those_of_systematic_draws():
    def counts(scheme):
        toy = Toy([1.0, 1.0])
        sampler = samplers.ModelSampler(toy, UNBIASED, Reader(), resampling=scheme, seed=1)
        return {int((sampler.draw(20).indices == 0).sum()) for _ in range(20)}

    assert counts("systematic") <= {9, 10, 11} and len(counts("multinomial")) > 3


def test_the_model_scores_with_the_forward_batch_size():
    class RecordsBatchSize(Reader):
        def score(self, x, y, batch_size=128):
            self.batch_size = batch_size
            return super().score(x, y)

    model = RecordsBatchSize()
    samplers.ModelSampler(Toy(), UNBIASED, model, 20, 7, seed=1).draw(4)
    assert model.batch_size == 7


def test_snapshots_are_taken_every_b_over_b_batches_and_grow_up_to_all_samples():
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


def test_a_snapshot_size_of_zero_means_all_samples():
    model = Reader()
    samplers.SCSGSampler(Toy(), UNBIASED, model, B=0, seed=1).draw(16)
    assert sum(map(len, model.snapshots[0])) == SIZE


def test_arguments_out_of_range_raise_an_error_with_rule_and_value():
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


def test_update_refuses_indices_and_scores_of_different_lengths():
    sampler = samplers.HistorySampler(Toy(), UNWEIGHTED, recompute=0)
    with pytest.raises(ValueError, match=r"`indices` and `scores` must have one number for each.*Received: indices"):
        sampler.update([1, 2], [1.0])


class FixedCandidates(samplers.BaseSampler):
    """A sampler whose candidates are the attributes `indices` and `scores`."""

    def _candidates(self, batch_size):
        return self.indices, self.scores


def test_candidates_of_a_users_sampler_can_be_lists():
    sampler = FixedCandidates(Toy(), UNBIASED, seed=1)
    sampler.indices, sampler.scores = [5, 3], [0.0, 2]
    drawn = sampler.draw(20)
    # P = (0.05, 0.95): one draw of twenty, weights 1 / (2 P).
    assert sorted(drawn.indices.tolist()) == [3] * 19 + [5]
    assert drawn.indices.dtype == np.int64
    np.testing.assert_allclose(np.unique(drawn.weights), [1 / 1.9, 10.0], rtol=1e-6)


@pytest.mark.parametrize(("indices", "scores"), [([1, 2], [1.0]), ([], []), ([1], [[1.0]])])
def test_candidates_need_a_score_each(indices, scores):
    sampler = FixedCandidates(Toy(), UNBIASED, seed=1)
    sampler.indices, sampler.scores = indices, scores
    message = r"`_candidates` of FixedCandidates must return .* Received: indices of shape"
    with pytest.raises(ValueError, match=message):
        sampler.draw(2)


def test_the_old_names_of_samplers_work_and_warn():
    sampler = samplers.UniformSampler(Toy(), UNBIASED, seed=1)
    drawn = sampler.draw(4)
    with pytest.warns(DeprecationWarning, match=r"`Drawn.fair` is deprecated .* Use `Drawn.unbiased_weights`"):
        np.testing.assert_array_equal(drawn.fair, drawn.unbiased_weights)
    with pytest.warns(DeprecationWarning, match="Use `samples_left`"):
        sampler.left = 7
    assert sampler.samples_left == 7
    with pytest.warns(DeprecationWarning, match="Use `samples_left`"):
        assert samplers.PowerSmoothingSampler(sampler).left == 7


STATES_OF_1_0 = {
    "uniform": (lambda: samplers.UniformSampler(Toy(), UNBIASED, seed=3), {"_seed", "_pass", "_cursor"}),
    "history": (
        lambda: samplers.HistorySampler(Toy(), UNBIASED, recompute=0, seed=3),
        {"_drawn", "table/scores", "table/seen"},
    ),
    "online batch selection": (
        lambda: samplers.OnlineBatchSelectionSampler(Toy(), UNBIASED, recompute=0, seed=3),
        {"_steps", "_order", "_p", "table/scores", "table/seen"},
    ),
    "reshuffle": (
        lambda: samplers.ReshuffleSampler(Toy(), UNBIASED, seed=3),
        {"_scores", "_seen", "_drawn", "_rescored", "_order", "_cells", "_expected", "_p", "_at"}
        | {"calibration/squares", "calibration/counts"},
    ),
    "constant time": (
        lambda: samplers.ConstantTimeSampler(Toy(), UNBIASED, Reader(), seed=3),
        {"_seed", "_pass", "_cursor", "_is_fair"}
        | {"condition/satisfied", "condition/previously_satisfied", "condition/average"},
    ),
}


@pytest.mark.parametrize("name", STATES_OF_1_0)
def test_state_files_have_the_keys_of_version_1_0(name):
    make, keys = STATES_OF_1_0[name]
    assert set(make().state()) == {"generator", *keys}
