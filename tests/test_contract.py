"""The contract of all samplers, policies and scores. A new one is an entry in `SAMPLERS`, `POLICIES` or `SCORERS`."""

import io
import random
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from frameworks import CALLS_PER_TRACE, lacks
from toys import SCORES, SIZE, VALUES, Reader, Toy

from importance_sampling import conditions, samplers
from importance_sampling.core.scoring import Scorer
from importance_sampling.model_wrappers import OracleWrapper
from importance_sampling.reweighting import (
    UNBIASED,
    UNWEIGHTED,
    AdjustedBiasedReweightingPolicy,
    BiasedReweightingPolicy,
    CorrectingReweightingPolicy,
)
from importance_sampling.samplers import predictor as predictor_module
from importance_sampling.samplers.predictor import ScorePredictor

BATCH = 16


class Case(NamedTuple):
    """A sampler's factory, the limit of its unbiased weights, and whether it draws by score."""

    make: Any  # (dataset, policy, model, **options) -> sampler
    bound: float = 10.0
    by_score: bool = True
    draws: int = 1500  # number of draws in tests of means


def lstm(cls, with_model):
    def make(dataset, policy, model, **options):
        return cls(dataset, policy, *[model] * with_model, presample=32, history=3, **options)

    return make


def decorated(decorate):
    return lambda dataset, policy, model, **options: decorate(
        samplers.ModelSampler(dataset, policy, model, large_batch=32, **options)
    )


def without_model(cls, *positional, **fixed):
    """Return the factory of a sampler with the arguments `(dataset, reweighting)`."""
    return lambda dataset, policy, model, **options: cls(dataset, policy, *positional, **fixed, **options)


def with_model(cls, **fixed):
    """Return the factory of a sampler with the arguments `(dataset, reweighting, model)`."""
    return lambda dataset, policy, model, **options: cls(dataset, policy, model, **fixed, **options)


SAMPLERS = {
    "uniform": Case(without_model(samplers.UniformSampler), 1.0, by_score=False),
    "model": Case(with_model(samplers.ModelSampler, large_batch=32)),
    "constant variance": Case(with_model(samplers.ConstantVarianceSampler)),
    "constant time": Case(with_model(samplers.ConstantTimeSampler)),
    "history": Case(with_model(samplers.HistorySampler)),
    # (s - 1) / log(s) at s = 20
    "online batch selection": Case(
        with_model(samplers.OnlineBatchSelectionSampler, s_e=(20, 20), steps_per_epoch=5), 19 / np.log(20)
    ),
    "reshuffle": Case(without_model(samplers.ReshuffleSampler)),
    "robust": Case(without_model(samplers.RobustSampler), draws=800),
    "skipping": Case(without_model(samplers.SkippingSampler), 2.0),
    "smooth skipping": Case(without_model(samplers.SkippingSampler, smooth=True), 3.0),
    # The group of 36 rows has a fifth of every batch: (36 / 60) / (0.2 alpha).
    "quota": Case(without_model(samplers.QuotaSampler, {1: 0.2}, np.arange(SIZE) % 5 // 2), 3 / 0.1),
    "cache": Case(without_model(samplers.CacheSampler), 2.0),
    "lstm": Case(lstm(samplers.LSTMSampler, False), draws=400),
    "lstm comparison": Case(lstm(samplers.LSTMComparisonSampler, True), draws=400),
    "per class": Case(without_model(samplers.PerClassGaussian, presample=32)),
    "scsg": Case(with_model(samplers.SCSGSampler, B=20, B_over_b=4), 1.0, by_score=False),
    "additive": Case(decorated(lambda sampler: samplers.AdditiveSmoothingSampler(sampler, 2.0))),
    "adaptive": Case(decorated(samplers.AdaptiveAdditiveSmoothingSampler)),
    "power": Case(decorated(samplers.PowerSmoothingSampler)),
    "conditional": Case(
        decorated(lambda sampler: samplers.ConditionalStartSampler(sampler, conditions.WarmupCondition(2)))
    ),
}
POLICIES = {
    "unbiased": UNBIASED,
    "unweighted": UNWEIGHTED,
    "biased": BiasedReweightingPolicy(0.5),
    "adjusted": AdjustedBiasedReweightingPolicy(0.5),
    "correcting": CorrectingReweightingPolicy(0.5),
}
# Scores by name, and a callable. Their values are tested in test_scores.py.
SCORERS = ["loss", "gnorm", "full_gnorm", lambda model, x, y: keras.ops.norm(x, axis=1)]

every_sampler = pytest.mark.parametrize("name", SAMPLERS)
every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)


@pytest.fixture(autouse=True)
def seeded():
    """Set the seeds of Python and NumPy only: setting TensorFlow's seed discards compiled kernels."""
    random.seed(4)
    np.random.seed(4)


@pytest.fixture(autouse=True)
def one_predictor(monkeypatch):
    """Let all LSTM samplers share a network, reset to its initial weights: tracing a network takes a second."""

    def shared(history, classes, log, seed):
        if not TRACED:
            predictor = ScorePredictor(history, classes, log, seed)
            TRACED.extend((predictor, predictor.state()))
        predictor, first = TRACED
        predictor.restore(first)
        vars(predictor).pop("predict", None)
        return predictor

    monkeypatch.setattr(predictor_module, "ScorePredictor", shared)


TRACED = []


def build(name, dataset=None, policy=UNBIASED, seed=3):
    return SAMPLERS[name].make(dataset or Toy(), policy, Reader(), seed=seed)


def steps(sampler, n, batch_size=BATCH):
    """Draw batches and update the sampler with measured scores."""
    drawn = []
    for _ in range(n):
        drawn.append(sampler.draw(batch_size))
        sampler.update(drawn[-1].indices, sampler.dataset.scores(drawn[-1].indices))
    return drawn


def final(sampler, drawn):
    """Return the final weights of a batch."""
    columns = drawn.weights if drawn.weights.ndim == 2 else drawn.weights[:, None]
    measured = sampler.dataset.scores(drawn.indices)
    return np.asarray(sampler.reweighting.final_weights(columns, measured))


def equal(drawn, others):
    for one, other in zip(drawn, others, strict=True):
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def constant(predictor, value):
    """Let a predictor return the same score for all samples."""
    predictor.predict = lambda histories, classes: np.full(len(classes), float(value))


@every_sampler
@every_policy
def test_draws_have_the_documented_shapes_and_dtypes_and_finite_weights(name, policy):
    sampler = build(name, policy=policy)
    for drawn in steps(sampler, 4):
        size = len(drawn.indices)
        assert size == BATCH or (size < BATCH and name.startswith("constant"))
        assert drawn.indices.dtype == np.int64 and (drawn.indices >= 0).all() and (drawn.indices < SIZE).all()
        assert drawn.weights.dtype == np.float32 and drawn.scores.dtype == np.float32
        assert drawn.scores.shape == (size,)
        assert drawn.weights.shape == ((size,) if policy.weight_size == 1 else (size, policy.weight_size))
        weights = final(sampler, drawn)
        assert weights.shape == (size,) and np.isfinite(weights).all() and (weights >= 0).all()
    indices, (x, y), weights = sampler.sample(BATCH)
    np.testing.assert_array_equal(x, sampler.dataset.x[indices])
    assert len(y) == len(weights) == len(indices)


@every_sampler
@pytest.mark.slow
def test_the_weighted_mean_over_draws_is_the_mean_of_the_data(name):
    case, sampler = SAMPLERS[name], build(name)
    assert sampler.unbiased
    drawn = steps(sampler, case.draws)
    means = np.array([(one.weights * VALUES[one.indices]).mean() for one in drawn])
    error = means.std() / np.sqrt(len(means))
    assert abs(means.mean() - VALUES.mean()) < 5 * error, f"{means.mean()} +- {error}, not {VALUES.mean()}"
    sums = np.array([one.weights.mean() for one in drawn])
    assert abs(sums.mean() - 1) <= 5 * sums.std() / np.sqrt(len(sums)) + 1e-6
    if case.by_score:  # the unweighted mean is biased by more than the tolerance of this test
        off = np.mean([VALUES[one.indices].mean() for one in drawn]) - VALUES.mean()
        assert abs(off) > 8 * error


def known_scores(sampler):
    """Let a sampler with a predictor draw by the scores that it would predict after long training."""
    sampler.predict = sampler.dataset.scores
    sampler.predictor.train = lambda *batch: None


# Exponent of the scores, batch size and draws, where the default of all others would take long.
PLANTED = {
    "constant variance": (1.0, 480, 1000),  # whose gate opens at scores this unequal
    "constant time": (1.0, 480, 1000),
    "robust": (0.25, SIZE, 700),
}
# Groups of 20 rows by their values, the largest with most of every batch: another mean than that of the data.
BY_VALUE = VALUES.argsort().argsort() // 20
BALANCED = {"balanced quota": without_model(samplers.QuotaSampler, {2: 0.6}, BY_VALUE, True)}


@pytest.mark.parametrize("name", [*SAMPLERS, *BALANCED])
@pytest.mark.slow
def test_the_tolerance_of_five_standard_errors_finds_a_planted_bias_of_two_per_cent(name):
    exponent, size, draws = PLANTED.get(name, (0.25, SIZE, 3000))
    make = BALANCED.get(name) or SAMPLERS[name].make
    sampler, expected = make(Toy(SCORES**exponent), UNBIASED, Reader(), seed=3), VALUES.mean()
    if name in BALANCED:
        means = [VALUES[group == BY_VALUE].mean() for group in range(3)]
        expected = 0.6 * means[2] + 0.4 * (means[0] + means[1]) / 2
        assert not sampler.unbiased and abs(expected / VALUES.mean() - 1) > 0.02
    if hasattr(sampler, "predictor"):
        known_scores(sampler)
    drawn = steps(sampler, draws, size)
    means = np.array([(one.weights * VALUES[one.indices]).mean() for one in drawn])
    tolerance = 5 * means.std() / np.sqrt(len(means))
    assert abs(means.mean() - expected) <= tolerance + 1e-6 * expected
    for planted in (0.98, 1.02):
        assert abs(planted * means.mean() - expected) > tolerance
    if name in BALANCED or SAMPLERS[name].by_score:
        unweighted = np.mean([VALUES[one.indices].mean() for one in drawn])
        assert abs(unweighted - expected) > 2 * tolerance


@every_sampler
def test_no_unbiased_weight_exceeds_the_bound(name):
    largest = max(drawn.weights.max() for drawn in steps(build(name), 60))
    assert largest <= SAMPLERS[name].bound * (1 + 1e-5)


@every_sampler
def test_the_same_seed_gives_the_same_draws_and_another_seed_others(name):
    first, again, other = (steps(build(name, seed=seed), 3) for seed in (3, 3, 4))
    equal(first, again)
    assert any((one.indices != two.indices).any() for one, two in zip(first, other, strict=True))


@every_sampler
@pytest.mark.parametrize("value", [2.5, 0.0])
def test_equal_scores_and_zeros_give_weights_of_one(name, value):
    sampler = build(name, Toy(np.full(SIZE, value)))
    if hasattr(sampler, "predictor"):
        constant(sampler.predictor, value)
    weights = np.concatenate([drawn.weights for drawn in steps(sampler, 6)])
    if name in ("cache", "online batch selection", "quota"):  # samples differ by last draw, by rank, by group
        assert weights.min() > 0 and weights.max() <= SAMPLERS[name].bound * (1 + 1e-5)
    else:
        # These round scores to half octaves, and estimate those of samples without a score.
        np.testing.assert_allclose(weights, 1, rtol=0.05 if name in ("reshuffle", "robust") else 1e-5)


@every_sampler
@every_policy
@pytest.mark.parametrize("bad", [[np.nan], [np.inf, -1.0]], ids=["NaN", "infinite, negative"])
def test_unusable_scores_give_finite_weights(name, policy, bad):
    scores = SCORES.copy()
    scores[: len(bad)] = bad
    sampler = build(name, Toy(scores), policy)
    for drawn in steps(sampler, 6):
        assert np.isfinite(drawn.weights).all() and np.isfinite(final(sampler, drawn)).all()


@every_sampler
def test_a_restored_sampler_makes_the_same_draws(name, monkeypatch):
    if name == "lstm":
        monkeypatch.undo()  # the two samplers must not share a network
    sampler, other = build(name), build(name)
    steps(sampler, 5)
    file = io.BytesIO()
    np.savez(file, **sampler.state())
    file.seek(0)
    expected = steps(sampler, 5)
    steps(other, 2)
    with np.load(file, allow_pickle=False) as saved:
        other.restore(dict(saved))
    equal(steps(other, 5), expected)


@pytest.mark.parametrize(
    "name", ["history", "online batch selection", "reshuffle", "robust", "skipping", "cache", "lstm"]
)
def test_a_state_of_another_number_of_rows_is_refused(name):
    with pytest.raises(ValueError, match=r"`state` must be of a .* of 50 rows.*Received: state of"):
        build(name, Toy(SCORES[:50])).restore(build(name).state())


def test_a_state_of_another_kind_of_sampler_is_refused():
    with pytest.raises(ValueError, match=r"`state` must be of a HistorySampler.*Received: state of"):
        build("history").restore(build("uniform").state())


@every_sampler
def test_no_global_random_generator_is_advanced(name, monkeypatch):
    monkeypatch.undo()

    def generators():
        keras_state = keras.src.random.seed_generator.global_seed_generator().state
        return random.getstate(), np.random.get_state()[1].tolist(), np.asarray(keras_state).tolist()

    before = generators()
    steps(SAMPLERS[name].make(Toy(), UNBIASED, Reader()), 3)
    assert generators() == before


@every_sampler
def test_a_seed_of_none_follows_kerass_seed(name):
    first, again, other = [], [], []
    for seed, drawn in ((1, first), (1, again), (2, other)):
        keras.utils.set_random_seed(seed)
        drawn.append(SAMPLERS[name].make(Toy(), UNBIASED, Reader()).draw(BATCH).indices)
    np.testing.assert_array_equal(first, again)
    assert (first[0] != other[0]).any()


@every_sampler
def test_samplers_without_model_and_labels_read_no_rows(name):
    sampler = build(name)
    sampler.draw(BATCH)
    if sampler.needs_model or "predictor" in vars(sampler) or name == "per class":
        return
    assert sampler.dataset.train_data.read == 0


@every_sampler
@pytest.mark.parametrize("size", [0, 2.5, True])
def test_invalid_batch_sizes_are_refused(name, size):
    with pytest.raises(ValueError, match=rf"`batch_size` must be an int of at least 1. Received: batch_size={size}"):
        build(name).draw(size)


@every_policy
def test_policies_give_the_same_weights_on_host_and_device_and_as_layers(policy):
    positions = np.array([0, 3, 3, 7])
    columns = policy.sample_weights(positions, SCORES)
    assert columns.shape == (4, policy.weight_size) and columns.dtype == np.float32
    measured = np.array([1.0, 0.0, 2.0, 5.0], "float32")
    on_host = policy.final_weights(columns, measured)
    layer = policy.weight_layer()
    np.testing.assert_allclose(np.asarray(layer([columns, measured])), on_host, rtol=1e-5)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    np.testing.assert_allclose(np.asarray(again([columns, measured])), on_host, rtol=1e-5)
    tensor = keras.ops.convert_to_tensor
    p = np.array([0.5, 0.125, 0.25, 0.1], "float32")
    on_device = policy.weights(tensor(p), 4, tensor(measured))
    np.testing.assert_allclose(np.asarray(on_device), policy.weights(p, 4, measured), rtol=1e-5)


@every_policy
def test_uniform_weights_give_final_weights_of_one_for_all_measured_scores(policy):
    for measured in ([1.0, 5.0, 0.0], [0.0, 0.0, 0.0], [np.nan, 1.0, 2.0]):
        np.testing.assert_array_equal(policy.final_weights(policy.uniform_weights(3), np.array(measured)), np.ones(3))


def small_model():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(SIZE, 4)).astype("float32"), rng.integers(3, size=SIZE)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    dataset = Toy(np.ones(SIZE))
    dataset.train_data.x, dataset.train_data.y = x, y
    return model, dataset


@pytest.mark.parametrize("score", SCORERS, ids=["loss", "gnorm", "full_gnorm", "callable"])
def test_a_sampler_draws_by_every_score_which_is_traced_once(score, monkeypatch):
    traces, run = [], Scorer.__call__
    monkeypatch.setattr(Scorer, "__call__", lambda *args: traces.append(1) or run(*args))
    model, dataset = small_model()
    wrapper = OracleWrapper(model, UNBIASED, score=score)
    before = model.get_weights()
    x, y = dataset.train_data[:]
    scores = wrapper.score(x, y)
    assert scores.shape == (SIZE,) and scores.dtype == np.float32
    assert np.isfinite(scores).all() and (scores >= 0).all() and scores.std() > 0
    # A sample's score doesn't depend on the other samples of the batch, not even on a NaN.
    x = x[::-1].copy()
    x[-1] = np.nan
    others = wrapper.score(x, y[::-1])[::-1]
    np.testing.assert_allclose(others[1:], scores[1:], rtol=1e-5)
    assert np.isnan(others[0])
    drawn = samplers.ModelSampler(dataset, UNBIASED, wrapper, large_batch=SIZE, seed=1).draw(BATCH)
    np.testing.assert_allclose(drawn.scores, scores[drawn.indices], rtol=1e-5)
    np.testing.assert_allclose(drawn.weights, 1 / (0.9 * scores / scores.mean() + 0.1)[drawn.indices], rtol=1e-4)
    for mine, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert lacks("compiled steps") or len(traces) == CALLS_PER_TRACE


def test_final_weights_use_the_scores_that_the_training_step_measures():
    model, dataset = small_model()
    policy = AdjustedBiasedReweightingPolicy(0.5)
    wrapper = OracleWrapper(model, policy, score="gnorm")
    sampler = samplers.HistorySampler(dataset, policy, wrapper, recompute=1, seed=1)
    for _ in range(6):  # the last ones after all samples were rescored
        indices, (x, y), weights = sampler.sample(BATCH)
        _, _, measured = wrapper.train_batch(x, y, weights)
        sampler.update(indices, measured)
        assert policy.final_weights(weights, measured).std() > 0
    assert sampler.table.seen.all() and np.isfinite(np.concatenate(model.get_weights(), axis=None)).all()
