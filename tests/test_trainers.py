"""The family of trainers: what each is constructed with, what all keep, and what each does to its batches."""

import inspect
import warnings

import keras
import numpy as np
import pytest
from frameworks import CALLS_PER_TRACE, is_traced, needs
from keras import layers
from leaks import columns_left
from saved_states import counters_of

from importance_sampling import training
from importance_sampling.datasets import GeneratorDataset, InMemoryDataset
from importance_sampling.reweighting import UNBIASED, AdjustedBiasedReweightingPolicy
from importance_sampling.samplers import BaseSampler, CacheSampler, ConstantTimeSampler, LSTMSampler, ModelSampler

ROWS, BATCH = 112, 16


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 4)).astype("float32")
    return x, (2 * x[:, :3] + rng.normal(size=(ROWS, 3))).argmax(1)


X, Y = data()


def build():
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.SGD(0.3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def cached(model, **options):
    return training.SamplerTraining(
        model, lambda dataset, model, seed: CacheSampler(dataset, UNBIASED, seed=seed), **options
    )


# Each of them open from the first steps on.
TRAINERS = {
    "importance": lambda model, **options: training.ImportanceTraining(model, tau_th=0, **options),
    "importance by row": lambda model, **options: training.ImportanceTraining(
        model, tau_th=0, sampler="reshuffle", **options
    ),
    "biased": lambda model, **options: training.BiasedImportanceTraining(model, presample=48, **options),
    "constant variance": lambda model, **options: training.ConstantVarianceImportanceTraining(
        model, tau_th=0, **options
    ),
    "constant time": lambda model, **options: training.ConstantTimeImportanceTraining(model, tau_th=0, **options),
    "history": lambda model, **options: training.HistoryImportanceTraining(model, recompute=1, **options),
    "online batch selection": lambda model, **options: training.OnlineBatchSelection(
        model, steps_per_epoch=7, recompute=1, s_e=(10, 1), **options
    ),
    "approximate": lambda model, **options: training.ApproximateImportanceTraining(
        model, smooth=0.5, adaptive_smoothing=True, presample=48, **options
    ),
    "reshuffle": training.ReshuffleTraining,
    "robust": training.RobustImportanceTraining,
    "skipping": training.SkippingTraining,
    "selective backprop": lambda model, **options: training.SelectiveBackprop(
        model, start=0.0, end=1.0, interrupt=0, **options
    ),
    "hard examples": training.HardExampleMining,
    "reducible loss": lambda model, **options: training.ReducibleLossTraining(
        model, irreducible_loss=np.linspace(0, 1, ROWS), **options
    ),
    "quota": lambda model, **options: training.QuotaTraining(model, {1: 0.5}, **options),
    "own": cached,
    "svrg": lambda model, **options: training.SVRG(model, B=2, B_over_b=4, **options),
    "katyusha": lambda model, **options: training.Katyusha(model, B=2, B_over_b=4, **options),
}
NO_STREAMS = [
    "importance by row",
    "history",
    "online batch selection",
    "approximate",
    "reshuffle",
    "robust",
    "skipping",
    "reducible loss",
    "quota",
    "own",
    "svrg",
    "katyusha",
]

ONLY_MEASURE_FIRST = ("reshuffle", "robust")  # scores, in the first pass over the data

# The arguments that scripts of version 0.10 know, in their order, with their defaults.
KNOWN = {
    "ImportanceTraining": dict(presample=3.0, tau_th=None, forward_batch_size=None, score="gnorm", layer=None),
    "ConstantVarianceImportanceTraining": dict(backward_time=2.0, extra_samples=0.2, score="gnorm", layer=None),
    "ConstantTimeImportanceTraining": dict(backward_time=2.0, score="gnorm", layer=None),
    "BiasedImportanceTraining": dict(
        k=0.5, smooth=0.0, adaptive_smoothing=False, presample=256, forward_batch_size=128
    ),
    "ApproximateImportanceTraining": dict(k=0.5, smooth=0.0, adaptive_smoothing=False, presample=2048),
    "SVRG": dict(B=10.0, B_rate=1.0, B_over_b=128),
    "Katyusha": dict(B=10.0, B_rate=1.0, B_over_b=128, t1=0.5, t2=0.5),
}


class Heard:
    """What listeners were told."""

    def __init__(self):
        self.samples, self.scores, self.samplers = [], [], set()

    def sampled(self, sampler, indices, weights, scores):
        self.samplers.add(sampler)
        self.samples.append((indices, weights, scores))

    def scored(self, sampler, scores):
        self.scores.append(scores)

    @property
    def arguments(self):
        return dict(on_sample=self.sampled, on_scores=self.scored)


def fit(trainer, **options):
    return trainer.fit(X, Y, **{"batch_size": BATCH, "epochs": 2, "verbose": 0, **options}).history


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.fast
def test_old_arguments_keep_their_order_and_defaults_and_new_ones_are_by_keyword(name):
    parameters = list(inspect.signature(getattr(training, name)).parameters.values())[1:]
    known = {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}
    assert list(known.items()) == list(KNOWN[name].items())
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[len(known) :])


class Fits:
    """A trainer that is listened to, and the same one that isn't, which is kept and trains on."""

    def __init__(self, name):
        self.name, self.heard, self.models = name, Heard(), [build(), build()]
        self.history = fit(
            TRAINERS[name](self.models[0], seed=1), validation_data=(X[:20], Y[:20]), **self.heard.arguments
        )
        self.steps = int(self.models[0].optimizer.iterations.value)
        self.kept, self.traces, trainer = [], [], TRAINERS[name](self.models[1], seed=1)
        self.kept.append(columns_left(lambda: fit(trainer)))
        self.weights = self.models[1].get_weights()
        call = self.models[1].call

        def watched(x, **options):
            self.traces.extend([1] * is_traced(x))  # a look at a batch is no trace
            return call(x, **options)

        self.models[1].call = watched
        self.kept.append(columns_left(lambda: fit(trainer, epochs=1)))
        self.models[1].call = call
        self.kept.append(columns_left(lambda: fit(trainer, epochs=1, on_sample=lambda *_: None)))


@pytest.fixture(scope="module", params=TRAINERS)
def fits(request):
    return Fits(request.param)


def test_every_trainer_takes_the_steps_of_fit_and_lowers_the_loss(fits):
    assert fits.steps == 2 * ROWS // BATCH
    first = 0.0 if fits.name in ONLY_MEASURE_FIRST else 1.0
    assert fits.history["importance"] == [first, 1.0] and fits.history["loss"][1] < fits.history["loss"][0]
    assert {"accuracy", "val_loss", "tau", "score"} <= fits.history.keys()


def test_every_trainer_notifies_listeners_of_every_step_with_weights_of_at_most_ten(fits):
    heard = fits.heard
    assert len(heard.samples) == fits.steps
    for indices, weights, scores in heard.samples:
        assert len(indices) == len(weights) == len(scores) <= BATCH
        assert (indices >= 0).all() and (indices < ROWS).all()
        assert (weights > 0).all() and (weights <= 10 * (1 + 1e-5)).all()
    assert len(heard.scores) >= len(heard.samples) and all(np.isfinite(scores).all() for scores in heard.scores)


def test_no_trainer_trains_otherwise_without_listeners(fits):
    for mine, theirs in zip(fits.models[0].get_weights(), fits.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@needs("compiled steps")
def test_a_second_fit_of_a_trainer_compiles_nothing(fits):
    assert fits.name.startswith("constant") or not fits.traces  # whose sizes change


def test_a_trainer_keeps_no_data_after_fit(fits):
    assert fits.kept == [[None, None]] * 3


@pytest.mark.parametrize("fits", ["importance", "history"], indirect=True, scope="module")
def test_fit_dataset_on_data_in_memory_trains_as_fit_on_their_arrays(fits):
    model = build()
    dataset = InMemoryDataset(X, Y, X[:20], Y[:20], categorical=False)
    trainer = TRAINERS[fits.name](model, seed=1)
    history = trainer.fit_dataset(dataset, batch_size=BATCH, epochs=2, verbose=0).history
    assert len(history["val_loss"]) == 2
    np.testing.assert_allclose(model.get_weights()[0], fits.weights[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NO_STREAMS)
@pytest.mark.fast
def test_trainers_that_need_rows_by_index_refuse_generators(name):
    def batches():
        while True:
            yield X[:BATCH], Y[:BATCH]

    with pytest.raises(ValueError, match=r"`x` must be data whose rows can be read by index.*for \w+( with .*)?;"):
        TRAINERS[name](build()).fit_generator(batches(), steps_per_epoch=2, batch_size=BATCH, verbose=0)


@needs("batches drawn in a step")
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")  # as `model.fit` warns
def test_batches_of_a_generator_are_joined_to_pools_of_the_requested_size():
    def batches():
        for start in range(0, 96, 24):
            yield X[start : start + 24], Y[start : start + 24]

    heard = Heard()
    trainer = training.BiasedImportanceTraining(build(), presample=32)
    trainer.fit_generator(batches(), batch_size=BATCH, verbose=0, validation_data=(X, Y), **heard.arguments)
    # 96 rows are six batches, every step takes a pool of two.
    assert [len(indices) for indices, _, _ in heard.samples] == [BATCH] * 3
    assert [len(scores) for scores in heard.scores] == [32] * 3


@pytest.mark.parametrize("as_generator", [False, True])
def test_a_pool_that_is_smaller_than_a_batch_warns_once_for_the_line_that_called_fit(as_generator):
    for size, count in ((32, 1), (16, 0), (8, 0)):
        trainer = training.BiasedImportanceTraining(build(), presample=16)
        data = [((X[:size], Y[:size]) for _ in range(4))] if as_generator else [X[: 4 * size], Y[: 4 * size]]
        options = dict(steps_per_epoch=4, shuffle=False) if as_generator else dict(batch_size=size)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.fit(*data, verbose=0, **options)
        found = [one for one in caught if "A pool must not be smaller than a batch" in str(one.message)]
        assert [one.filename for one in found] == [__file__] * count


@needs("batches drawn in a step")
def test_fit_dataset_on_a_generator_dataset_is_importance_sampled():
    def batches():
        while True:
            yield X[:50], Y[:50]

    dataset = GeneratorDataset(batches(), (X[:20], Y[:20]), cache_size=0)
    trainer = training.ImportanceTraining(build(), tau_th=0)
    history = trainer.fit_dataset(dataset, steps_per_epoch=3, batch_size=BATCH, epochs=2, verbose=0).history
    assert history["importance"] == [1.0, 1.0] and len(history["val_loss"]) == 2
    assert int(trainer.model.optimizer.iterations.value) == 6


# What each does to its batches


@pytest.mark.parametrize("k", [0.5, -1.0])
def test_biased_weights_are_powers_of_those_by_smoothed_scores(k):
    heard = Heard()
    trainer = training.BiasedImportanceTraining(build(), k, smooth=0.5, presample=48, seed=1)
    fit(trainer, epochs=1, **heard.arguments)
    for (_, weights, scores), pool in zip(heard.samples, heard.scores, strict=True):
        p = 0.9 * (scores + 0.5) / (pool + 0.5).sum() + 0.1 / 48
        unbiased = 1 / (48 * p)
        expected = unbiased**k * (unbiased * scores).sum() / (unbiased**k * scores).sum()
        np.testing.assert_allclose(weights, expected, rtol=1e-4)


def test_the_sizes_of_constant_variance_batches_follow_the_variance_reduction_and_few_are_compiled():
    model, heard, traces = build(), Heard(), []
    call = model.call

    def counted(x, **options):
        traces.extend([1] * is_traced(x))
        return call(x, **options)

    model.call = counted
    trainer = training.ConstantVarianceImportanceTraining(
        model, extra_samples=0.1, tau_th=0, seed=1, score=lambda model, x, y: keras.ops.exp(1.5 * x[:, 0])
    )
    fit(trainer, epochs=6, **heard.arguments)
    vr = counters_of(trainer)["tau"]
    assert len(heard.samples[-1][0]) == pytest.approx(BATCH * (1 / vr + 0.1), abs=2)
    assert {len(scores) for scores in heard.scores} == {BATCH}
    assert {len(indices) % 2 for indices, _, _ in heard.samples} == {0}
    assert 1 < len({len(indices) for indices, _, _ in heard.samples}) <= 4
    assert len(traces) <= 10 * CALLS_PER_TRACE < len(heard.samples)


def test_constant_time_steps_cost_as_much_as_uniform_steps():
    heard, trainer = Heard(), training.ConstantTimeImportanceTraining(build(), tau_th=0, seed=1)
    fit(trainer, epochs=2, **heard.arguments)
    for (indices, _, _), pool in zip(heard.samples, heard.scores[-len(heard.samples) :], strict=True):
        assert len(pool) + 3 * len(indices) == 3 * BATCH
    assert trainer.forward_equivalents == pytest.approx(3 * len(heard.samples), rel=0.15)


def test_a_high_threshold_keeps_the_gates_of_other_trainers_closed():
    for trainer in (
        training.ConstantTimeImportanceTraining(build(), tau_th=100.0),
        training.HistoryImportanceTraining(build(), tau_th=100.0),
    ):
        assert fit(trainer)["importance"] == [0.0, 0.0]
        assert trainer.summary().startswith("Uniform training throughout")


def test_online_batch_selection_prefers_high_losses_with_weights_of_one():
    heard, model = Heard(), build()
    model.optimizer.learning_rate = 0.0  # so that losses stay
    trainer = training.OnlineBatchSelection(model, steps_per_epoch=7, recompute=1, s_e=(1e6, 1e6), seed=1)
    fit(trainer, epochs=3, **heard.arguments)
    assert all((weights == 1).all() for _, weights, _ in heard.samples)
    losses = -np.log(model.predict(X, verbose=0)[np.arange(ROWS), Y])
    late = np.concatenate([indices for indices, _, _ in heard.samples[-7:]])
    assert losses[late].mean() > 1.5 * losses.mean()


def test_approximate_training_smooths_the_predicted_scores_and_weighs_by_powers():
    heard = Heard()
    trainer = training.ApproximateImportanceTraining(build(), k=0.0, smooth=0.5, presample=48, seed=1)
    fit(trainer, epochs=1, **heard.arguments)
    (smoothed,) = heard.samplers
    assert smoothed.c == 0.5 and isinstance(smoothed.sampler, LSTMSampler)
    assert (smoothed.sampler.state()["_histories"][:, -1] > 0).sum() > BATCH
    for _, weights, _ in heard.samples:
        assert np.ptp(weights) < 1e-5  # k = 0 weighs the batch evenly


# Samplers of one's own


class Halves(BaseSampler):
    """One half of the rows after the other; both count the same."""

    needs_scores = True
    _saved = ("turn",)

    def __init__(self, dataset, seed):
        super().__init__(dataset, UNBIASED, seed=seed, alpha=0.1)
        self.turn, self.told = 0, []

    def _candidates(self, batch_size):
        self.turn = 1 - self.turn
        indices = self._rng.permutation(self.size)
        return indices, (indices % 2 == self.turn).astype("float64")

    def update(self, indices, scores):
        self.told.append((indices, scores))


@pytest.mark.fast
def test_a_users_sampler_draws_the_batches_receives_measured_scores_and_is_restored(tmp_path):
    made, models = [], [build(), build()]

    def make(dataset, model, seed):
        x, y = dataset.train_data[np.arange(3)]
        np.testing.assert_array_equal(x, X[:3])
        np.testing.assert_array_equal(y, Y[:3])
        # Three ways to ask for the same scores: by row, in one slice, with a short last batch.
        by_row = model.score_rows(np.arange(ROWS), 32)
        np.testing.assert_allclose(model.score(X, Y, batch_size=ROWS), by_row, rtol=1e-5)
        np.testing.assert_allclose(model.score(X[:50], Y[:50], batch_size=32), by_row[:50], rtol=1e-5)
        made.append(Halves(dataset, seed))
        return made[-1]

    trainer = training.SamplerTraining(models[0], make, score="loss", seed=1)
    fit(trainer, epochs=1)
    assert len(made) == 1 and len(made[0].told) == 7
    # Of 16 draws by 0.95 and 0.05 that take turns, nearly all are odd ones, then even ones.
    odd = [(indices % 2).mean() for indices, _ in made[0].told]
    assert min(odd[::2]) > 0.8 and max(odd[1::2]) < 0.2
    assert all((scores > 0).all() and scores.shape == (BATCH,) for _, scores in made[0].told)
    # 7 steps, and 112 + 112 + 50 rows that were scored.
    assert trainer.forward_equivalents == pytest.approx(3 * 7 + 274 / BATCH)

    trainer.save_state(tmp_path / "state.npz")
    models[1].set_weights(models[0].get_weights())
    models[1].optimizer.iterations.assign(7)
    resumed = training.SamplerTraining(models[1], make, score="loss", seed=9)
    resumed.load_state(tmp_path / "state.npz")
    fit(trainer, epochs=1)
    fit(resumed, epochs=1)
    np.testing.assert_array_equal(models[0].get_weights()[0], models[1].get_weights()[0])


@pytest.mark.fast
def test_sampler_training_accepts_samplers_of_the_library_that_draw_fewer_samples_than_a_batch():
    heard = Heard()
    trainer = training.SamplerTraining(
        build(),
        lambda dataset, model, seed: ConstantTimeSampler(dataset, UNBIASED, model, tau_th=1.0, seed=seed),
        seed=1,
    )
    fit(trainer, epochs=2, **heard.arguments)
    sizes = [len(indices) for indices, _, _ in heard.samples]
    assert min(sizes) < BATCH and set(sizes) <= {2, 4, 6, 8, 10, 12, 14, 16}
    assert trainer.forward_equivalents == pytest.approx(3 * len(sizes), rel=0.1)


@pytest.mark.fast
def test_sampler_training_refuses_what_is_no_sampler():
    with pytest.raises(ValueError, match=r"`sampler` must be a function .*Received: sampler=None"):
        training.SamplerTraining(build(), None)
    with pytest.raises(ValueError, match=r"must return a `samplers.BaseSampler`. Received: 3"):
        fit(training.SamplerTraining(build(), lambda dataset, model, seed: 3))
    policy = AdjustedBiasedReweightingPolicy()
    with pytest.raises(ValueError, match=r"must not need measured scores.*Received: .*Adjusted"):
        fit(training.SamplerTraining(build(), lambda dataset, model, seed: ModelSampler(dataset, policy, model)))


def test_the_reshuffle_sampler_does_not_rescore_for_a_short_rest_of_a_fit():
    trainer = training.ImportanceTraining(build(), sampler="reshuffle", tau_th=0)
    passes, samplers = [], set()
    fits = dict(epochs=1), dict(epochs=3), dict(epochs=3, initial_epoch=2), dict(epochs=15, steps_per_epoch=1)
    for options in fits:
        before = trainer.forward_equivalents
        steps = options.get("steps_per_epoch", 8) * (options["epochs"] - options.get("initial_epoch", 0))
        fit(trainer, batch_size=15, on_sample=lambda sampler, *_: samplers.add(sampler), **options)
        passes.append((trainer.forward_equivalents - before - 3 * steps) * 15 / ROWS)
        (sampler,) = samplers
        assert sampler.samples_left == float("inf")
    # Eight steps draw 120 of 112 rows: a rest of 8. 24 steps are three epochs and a rest of 24, more than a tenth of
    # one; 15 steps one and a rest of 113, of which all but one are another.
    assert passes == pytest.approx([1, 4, 1, 2])
