"""A user's own sampler and policy: what their methods return is checked, and uniform draws aren't called importance."""

import re

import numpy as np
import pytest
from frameworks import several
from small_classifier import X, Y, build

from importance_sampling import ImportanceTraining
from importance_sampling.conditions import WarmupCondition
from importance_sampling.datasets import InMemoryDataset
from importance_sampling.reweighting import UNBIASED, UNWEIGHTED, ReweightingPolicy
from importance_sampling.samplers import (
    AdditiveSmoothingSampler,
    BaseSampler,
    ConditionalStartSampler,
    ReshuffleSampler,
)
from importance_sampling.training import ReshuffleTraining, SamplerTraining
from importance_sampling.utils.numerics import probabilities

DATASET = InMemoryDataset(X, Y, X, Y)
SIZE = len(X)


class Own(BaseSampler):
    """Returns what the test wants."""

    def __init__(self, dataset, reweighting=UNBIASED, candidates=None, p=None, picked=None, **options):
        super().__init__(dataset, reweighting, **options)
        self.returned = candidates, p, picked

    def _candidates(self, batch_size):
        if self.returned[0] is None:
            return np.arange(self.size), np.linspace(1.0, 3.0, self.size)
        return self.returned[0]

    def _probabilities(self, scores):
        return probabilities(scores, self.alpha) if self.returned[1] is None else self.returned[1]

    def _num_picked(self, batch_size, scores):
        return batch_size if self.returned[2] is None else self.returned[2]


class Weights(ReweightingPolicy):
    """Computes the weights that the test wants."""

    def __init__(self, weights):
        self.returned = weights

    def weights(self, probabilities, pool_size, scores):
        return self.returned


def trained(sampler, epochs=2, score="loss", **options):
    """Return a trainer after `fit` with a sampler, and its History."""
    trainer = SamplerTraining(build(), lambda dataset, model, seed: sampler(dataset, seed), score=score, **options)
    return trainer, trainer.fit(X, Y, batch_size=32, epochs=epochs, verbose=0).history


@pytest.mark.parametrize(
    ("candidates", "received"),
    [
        (None, "NoneType"),
        (np.arange(3), "ndarray.*too many values"),
        ((["a", "b"], ["c", "d"]), "could not convert"),
        ((np.arange(2), [[1.0], [1.0, 2.0]]), "inhomogeneous"),
        ((np.arange(3), np.ones(2)), r"indices of shape \(3,\), scores of shape \(2,\)"),
        ((np.zeros(0, int), np.zeros(0)), r"indices of shape \(0,\)"),
        ((np.array([True, False]), np.ones(2)), "dtype bool"),
        ((np.array([0.0, 1.5]), np.ones(2)), "dtype float64"),
        ((np.array([0, SIZE]), np.ones(2)), f"from 0 to {SIZE}"),
        ((np.array([-1, 1]), np.ones(2)), "from -1 to 1"),
    ],
)
def test_candidates_that_arent_rows_and_scores_are_refused(candidates, received):
    class Returns(Own):
        def _candidates(self, batch_size):
            return candidates

    with pytest.raises(ValueError, match=f"(?s)`_candidates` of Returns must return.*Received: .*{received}"):
        Returns(DATASET, seed=0).draw(8)


@pytest.mark.parametrize(
    ("p", "received"),
    [
        (np.full(SIZE, 1.0), "a sum of 160"),
        (np.full(SIZE, 1.002 / SIZE), r"a sum of 1.002"),
        (["a"] * SIZE, "could not convert"),
        (np.full(SIZE, np.nan), "a sum of nan"),
        (np.full(5, 0.2), r"shape \(5,\)"),
        (np.r_[-0.5, 1.5, np.zeros(SIZE - 2)], "a smallest value of -0.5"),
        (np.r_[np.full(2, 0.5), np.zeros(SIZE - 2)], "158 probabilities of 0"),
    ],
)
def test_probabilities_that_arent_probabilities_are_refused(p, received):
    with pytest.raises(ValueError, match=f"`_probabilities` of Own must return.*Received: .*{received}"):
        Own(DATASET, p=p, seed=0).draw(8)


@pytest.mark.parametrize("kind", ["uint8", "int32", "float32", list])
def test_indices_of_any_type_of_integers_are_accepted(kind):
    indices = list(range(8)) if kind is list else np.arange(8).astype(kind)
    drawn = Own(DATASET, candidates=[indices, [1.0] * 8], picked=np.float64(4.0), seed=0).draw(8)
    assert drawn.indices.dtype == "int64" and len(drawn.indices) == 4


def test_probabilities_in_single_precision_are_accepted():
    drawn = Own(DATASET, p=[float(np.float32(1.0001 / SIZE))] * SIZE, seed=0).draw(8)
    np.testing.assert_allclose(drawn.weights, 1.0, rtol=2e-4)


def test_an_unbiased_sampler_may_exclude_candidates_with_a_score_of_zero():
    scores = np.r_[np.ones(2), np.zeros(SIZE - 2)]
    drawn = Own(DATASET, candidates=(np.arange(SIZE), scores), p=scores / 2.0, seed=0).draw(8)
    assert set(drawn.indices) == {0, 1}


def test_a_biased_sampler_may_exclude_candidates():
    p = np.r_[np.full(2, 0.5), np.zeros(SIZE - 2)]
    assert set(Own(DATASET, UNWEIGHTED, p=p, seed=0).draw(8).indices) == {0, 1}
    sampler = Own(DATASET, p=p, seed=0)
    sampler.unbiased = False
    assert set(sampler.draw(8).indices) == {0, 1}


@pytest.mark.parametrize("picked", [0, 2.5, np.nan, True, "8", [8]])
def test_a_number_of_samples_that_isnt_a_positive_integer_is_refused(picked):
    with pytest.raises(ValueError, match="`_num_picked` of Own must return an integer of at least 1"):
        Own(DATASET, picked=picked, seed=0).draw(8)


@pytest.mark.parametrize(
    "weights", [np.full(8, np.nan), np.full(8, np.inf), -np.ones(8), np.ones(7), np.ones((8, 2)), 1.0]
)
def test_weights_of_a_policy_that_arent_weights_are_refused(weights):
    rule = "`weights` of Weights must return a finite weight of at least 0 for each of the 8 drawn samples"
    with pytest.raises(ValueError, match=rule):
        Own(DATASET, Weights(weights), seed=0).draw(8)
    assert Own(DATASET, Weights(np.zeros(8)), seed=0).draw(8).weights.sum() == 0


def test_weights_of_a_policy_are_checked_in_resampled_epochs_too():
    sampler = ReshuffleSampler(DATASET, Weights(np.full(8, np.nan)), seed=0)
    with pytest.raises(ValueError, match="`weights` of Weights must return a finite weight"):
        sampler.draw(8)


def test_errors_of_an_own_sampler_end_the_fit_before_it_trains():
    model = build()
    before = model.get_weights()
    trainer = SamplerTraining(model, lambda dataset, model, seed: Own(dataset, p=np.ones(3), seed=seed))
    with pytest.raises(ValueError, match="`_probabilities` of Own"):
        trainer.fit(X, Y, batch_size=32, verbose=0)
    assert all(map(np.array_equal, before, model.get_weights()))
    model.fit(X, Y, batch_size=32, verbose=0)


@pytest.mark.parametrize(
    ("kind", "missing"), [(BaseSampler, r"_candidates\(batch_size\)"), (ReweightingPolicy, r"weights\(prob")]
)
def test_a_method_that_isnt_defined_is_named(kind, missing):
    sampler = BaseSampler(DATASET, UNBIASED) if kind is BaseSampler else Own(DATASET, ReweightingPolicy())
    with pytest.raises(NotImplementedError, match=f"{kind.__name__} must define `{missing}"):
        sampler.draw(8)


@pytest.mark.parametrize("value", [{"a": 1}, object(), [np.zeros(2), "a", {}]])
def test_a_state_that_cant_be_saved_is_refused_before_training(value):
    class Stateful(Own):
        _saved = ("memory",)
        memory = value

    with pytest.raises(ValueError, match=r"`_saved` of Stateful must name attributes that are arrays.*'memory'"):
        trained(lambda dataset, seed: ConditionalStartSampler(Stateful(dataset, seed=seed), WarmupCondition(1)))


def test_an_attribute_that_is_set_at_the_first_draw_can_be_saved_from_then_on():
    class Lazy(Own):
        _saved = ("memory",)
        memory = None

        def _candidates(self, batch_size):
            self.memory = np.ones(3)
            return np.arange(self.size), np.ones(self.size)

    sampler = Lazy(DATASET, seed=0)
    with pytest.raises(ValueError, match="'memory', which is None"):
        sampler.state()
    sampler.draw(8)
    assert sampler.state()["memory"].tolist() == [1, 1, 1]
    trained(lambda dataset, seed: Lazy(dataset, seed=seed))


def test_a_saved_attribute_that_doesnt_exist_is_named_before_training():
    class Misspelt(Own):
        _saved = ("memroy",)

    with pytest.raises(ValueError, match=r"`_saved` of Misspelt must name.*'memroy'"):
        trained(lambda dataset, seed: Misspelt(dataset, seed=seed))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_a_sampler_whose_scores_cant_be_used_is_told_and_its_steps_count_as_uniform(bad):
    scores = np.ones(SIZE)
    scores[3] = bad
    with pytest.warns(UserWarning, match="the first batch was drawn uniformly: the scores of Own are NaN, infinite or"):
        trainer, history = trained(lambda dataset, seed: Own(dataset, candidates=(np.arange(SIZE), scores), seed=seed))
    assert history["importance"] == [0.0, 0.0]
    assert trainer.summary().startswith("SamplerTraining drew uniform batches in all of its 10 steps: its scores were")


def test_a_sampler_with_its_own_formula_may_have_negative_scores():
    class Softmax(Own):
        def _candidates(self, batch_size):
            return np.arange(self.size), -np.linspace(0.0, 3.0, self.size)

        def _probabilities(self, scores):
            return np.exp(scores) / np.exp(scores).sum()

    trainer, history = trained(lambda dataset, seed: Softmax(dataset, seed=seed))
    assert history["importance"] == [1.0, 1.0] and "drew uniformly" not in trainer.summary()


def test_steps_without_usable_scores_are_counted_among_the_others():
    class Late(Own):
        draws = 0

        def _candidates(self, batch_size):
            self.draws += 1
            return np.arange(self.size), np.arange(self.size) * (1.0 if self.draws > 3 else -1.0)

    with pytest.warns(UserWarning, match="the first batch was drawn uniformly"):
        trainer, history = trained(lambda dataset, seed: Late(dataset, seed=seed))
    assert history["importance"] == [0.4, 1.0]
    assert "In 3 steps the sampler drew uniformly" in trainer.summary()
    assert trainer.summary().startswith("Importance sampling ran for 70% of the 10 steps")
    assert trainer.importance_steps == 7
    trainer.fit(X, Y, batch_size=32, epochs=1, verbose=0)
    assert "drew uniformly" not in trainer.summary()


@pytest.mark.parametrize("options", [{"on_sample": lambda *_: None}, {"steps_per_execution": 3}])
def test_uniform_draws_are_counted_with_listeners_and_in_executions_of_several_steps(options):
    steps = options.get("steps_per_execution", 1)
    options = {name: value for name, value in options.items() if name == "on_sample"}
    model = build()
    model.compile("adam", "sparse_categorical_crossentropy", steps_per_execution=several(steps))
    trainer = SamplerTraining(
        model,
        lambda dataset, _, seed: ConditionalStartSampler(Own(dataset, seed=seed), WarmupCondition(4)),
        score="loss",
    )
    history = trainer.fit(X, Y, batch_size=32, epochs=2, verbose=0, **options).history
    assert history["importance"] == [0.2, 1.0] and "In 4 steps the sampler drew uniformly" in trainer.summary()


def test_steps_before_a_condition_holds_count_as_uniform():
    def sampler(dataset, seed):
        return ConditionalStartSampler(Own(dataset, seed=seed), WarmupCondition(4))

    trainer, history = trained(sampler)
    assert history["importance"] == [0.2, 1.0]
    assert "In 4 steps the sampler drew uniformly" in trainer.summary()


def test_a_gain_by_scores_that_arent_norms_of_gradients_says_what_it_assumes():
    note = "if the scores are proportional to norms of gradients"
    by_loss, _ = trained(lambda dataset, seed: Own(dataset, seed=seed))
    by_norm, _ = trained(lambda dataset, seed: Own(dataset, seed=seed), score="gnorm")
    assert note in by_loss.summary().splitlines()[0] and note not in by_norm.summary()
    by_all_weights, _ = trained(lambda dataset, seed: Own(dataset, seed=seed), score="full_gnorm")
    assert note not in by_all_weights.summary()
    own = ImportanceTraining(build(), tau_th=0.0, score=lambda model, x, y: x[:, 0] ** 2)
    own.fit(X, Y, batch_size=16, epochs=2, verbose=0)
    assert note in own.summary().splitlines()[0]


def test_the_held_out_loss_is_shown_only_where_a_gate_decides_by_it():
    trainer = SamplerTraining(build(), lambda dataset, model, seed: Own(dataset, seed=seed))
    trainer.fit(X, Y, batch_size=16, epochs=8, validation_data=(X, Y), verbose=0)
    assert "held-out loss" not in trainer.summary()


@pytest.mark.parametrize(
    "decorated", [lambda sampler: sampler, lambda sampler: AdditiveSmoothingSampler(sampler, 1.0)], ids=["no", "yes"]
)
def test_the_first_pass_of_a_sampler_that_resamples_epochs_only_measures_scores(decorated):
    trainer, history = trained(lambda dataset, seed: decorated(ReshuffleSampler(dataset, UNBIASED, seed=seed)))
    assert history["importance"] == [0.0, 1.0]
    assert "In 5 steps the sampler drew uniformly: the first pass over the data only measured" in trainer.summary()
    assert "NaN" not in trainer.summary() and re.search("first importance step +5 ", trainer.summary())


def test_scores_that_are_always_nan_are_the_reason_for_uniform_batches():
    trainer = ReshuffleTraining(build(), score=lambda model, x, y: np.nan * x[:, 0], seed=1)
    trainer.fit(X, Y, batch_size=32, epochs=3, verbose=0)
    assert trainer.importance_steps == 0
    assert "its scores were NaN, infinite or negative" in trainer.summary()
