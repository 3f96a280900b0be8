"""The facade: what it refuses, what it trains plainly, how it gives the model back, what it tells and remembers."""

import contextlib
import inspect
import logging
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from frameworks import build_ahead, host, needs
from keras import layers
from leaks import columns_left
from saved_states import counters_of, read_state, saved_state

import importance_sampling
from importance_sampling import ImportanceTraining
from importance_sampling.events import SAMPLE, SCORE, TRAINING
from importance_sampling.fit.messages import layer_notes
from importance_sampling.strategies.pool import PoolStep
from importance_sampling.training import HistoryImportanceTraining, ReshuffleTraining

ROWS = 192


@pytest.fixture
def xy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 6)).astype("float32")
    return x, x[:, :3].argmax(1)


def build(seed=3, kind=keras.Sequential, **options):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6,))
    hidden = layers.Dropout(0.2)(layers.Dense(12, "relu")(inputs))
    model = keras.Model(inputs, layers.Dense(3, "softmax")(hidden))
    if kind is not keras.Sequential:
        model = kind(inputs, model.output)
    options = {"optimizer": "adam", "loss": "sparse_categorical_crossentropy", **options}
    model.compile(**options)
    return model


def fit(trainer, xy, **options):
    build_ahead(getattr(trainer, "model", trainer), *xy)
    return trainer.fit(*xy, **{"batch_size": 16, "epochs": 2, "verbose": 0, **options}).history


def weights(model):
    return np.concatenate([host(v).ravel() for v in model.variables])


# What it composes


def drawn_by(trainer):
    """How many samples its sampler has drawn by index."""
    return saved_state(trainer)[1]["sampler/_drawn"]


def few_are_hard(**compiled):
    """A model, and data of which the first 30 of 640 rows are near the boundary."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(640, 1)).astype("float32")
    x += np.sign(x)
    x[:30] *= 0.01
    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.3), "binary_crossentropy", **compiled)
    return model, x, (x > 0).astype("float32")


@pytest.mark.parametrize(
    ("options", "compiled", "sampler"),
    [
        ({}, {}, "ReshuffleSampler"),
        (dict(presample=4.0), {}, "PoolSampler"),
        (dict(tau_th=1.5), {}, "PoolSampler"),
        (dict(sampler="pool"), {}, "PoolSampler"),
        (dict(sampler="reshuffle", tau_th=1.5), {}, "ReshuffleSampler"),
        pytest.param({}, dict(steps_per_execution=2), "ReshuffleSampler", marks=needs("several steps per execution")),
    ],
)
def test_data_in_memory_are_reshuffled_unless_pools_are_asked_for(options, compiled, sampler):
    model, x, y = few_are_hard(**compiled)
    x, y = np.tile(x, (8, 1)), np.tile(y, (8, 1))  # so long that the gate opens in the first epoch
    seen, drawn = set(), []

    def listen(sender, indices, weights, scores):
        seen.add(type(sender).__name__)
        if np.isfinite(scores).all():
            drawn.extend(indices % 640)

    trainer = ImportanceTraining(model, **options)
    validation_data = (x[:640], y[:640])
    history = fit(trainer, (x, y), epochs=3, batch_size=64, validation_data=validation_data, on_sample=listen)
    assert seen == {sampler}
    shares = [share for share in history["importance"] if share]  # not of an epoch that only measures scores
    assert 0 < shares[0] < 1 == shares[-1]
    assert np.mean(np.array(drawn) < 30) > 2 * 30 / 640


def test_the_default_gate_of_pools_closes_when_the_learning_rate_falls():
    model, *xy = few_are_hard()
    xy = [np.tile(part, (4, 1)) for part in xy]
    trainer = ImportanceTraining(model, sampler="pool")
    falls = keras.callbacks.LearningRateScheduler(lambda epoch: 0.3 if epoch < 3 else 0.03)
    *_, before, after = fit(trainer, xy, epochs=4, batch_size=64, callbacks=[falls])["importance"]
    assert before == 1 and after <= 17 / 40  # until it is looked at, at every 17th of 40 steps
    assert re.search(r"  learning rate +10%  of its peak", trainer.summary())


def test_the_peak_of_the_learning_rate_is_that_of_the_optimizer_compiled_last():
    model, *xy = few_are_hard()
    trainer = ImportanceTraining(model)
    fit(trainer, xy, epochs=1)
    model.compile(keras.optimizers.Adam(0.03), "binary_crossentropy")
    fit(trainer, xy, epochs=1)
    assert trainer.condition.context.relative_learning_rate == 1.0


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="needs a later Keras")
@pytest.mark.parametrize("scaled", [False, True])
def test_optimizers_that_are_several_in_one_have_a_rate_for_the_gate(scaled):
    model, *xy = few_are_hard()
    xy = [np.tile(part, (4, 1)) for part in xy]
    of_most, of_biases, of_none = (keras.optimizers.Adam(rate) for rate in (0.3, 0.2, 9.0))
    rates = keras.optimizers.OptimizerMap(of_most, {".*bias": of_biases, "none": of_none})
    several = keras.optimizers.MultiOptimizer(rates)
    model.compile(keras.optimizers.LossScaleOptimizer(several) if scaled else several, "binary_crossentropy")

    def fall(epoch, logs):
        if epoch == 3:
            of_most.learning_rate = of_biases.learning_rate = 0.02

    trainer = ImportanceTraining(model, sampler="pool")
    callbacks = [keras.callbacks.LambdaCallback(fall)]
    *_, before, after = fit(trainer, xy, epochs=4, batch_size=64, callbacks=callbacks)["importance"]
    assert before == 1 and after <= 17 / 40
    assert trainer.condition.context.relative_learning_rate == pytest.approx(0.08)


@pytest.mark.parametrize("tau_th", [None, 0])
def test_the_gate_of_a_reshuffle_knows_the_uniform_share(tau_th):
    model, *xy = few_are_hard()
    trainer = ImportanceTraining(model, sampler="reshuffle", alpha=1.0, tau_th=tau_th)
    fit(trainer, xy, epochs=3)
    _, gain, _ = saved_state(trainer)[1]["averages"]
    assert gain == pytest.approx(1.0, rel=1e-4)
    assert trainer.importance_steps == (0 if tau_th is None else 120)


def test_the_state_is_that_of_the_sampler_used_last():
    model, *xy = few_are_hard()
    trainer = ImportanceTraining(model, sampler="reshuffle", tau_th=0)
    for batch_size in (16, 32, 16):
        fit(trainer, xy, epochs=1, batch_size=batch_size)
    assert drawn_by(trainer) == 1280  # the other drew 640


def test_a_trainer_keeps_no_data_of_fits_of_several_sizes(xy):
    trainer = ImportanceTraining(build(), sampler="reshuffle", tau_th=0)
    for rows in (96, 160, 192, 96):
        left = columns_left(lambda rows=rows: fit(trainer, [part[:rows] for part in xy], epochs=1))
        assert left == [None, None]


@pytest.mark.fast
def test_the_sampler_reshuffle_refuses_streams():
    with pytest.raises(ValueError, match=r'by index .* with sampler="reshuffle"; streams are for the pools'):
        ImportanceTraining(build(), sampler="reshuffle").fit((batch for batch in [()]), verbose=0)


# What it refuses


@pytest.mark.fast
def test_fit_has_the_arguments_of_model_fit_in_the_same_order():
    ours = list(inspect.signature(ImportanceTraining.fit).parameters.values())
    kept = [(p.name, p.default, p.kind) for p in ours if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert kept == [(p.name, p.default, p.kind) for p in inspect.signature(keras.Model.fit).parameters.values()]
    assert [p.name for p in ours][-2:] == ["on_sample", "on_scores"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(presample=0.5), r"`presample` must be .*at least 1.*Received: presample=0.5"),
        (dict(presample="3"), r"`presample` must be .*Received: presample='3'"),
        (dict(sampler="table"), r"`sampler` must be one of .*'reshuffle'.*Received: sampler='table'"),
        (dict(alpha=0), r"`alpha` must be .*\(0, 1\].*Received: alpha=0"),
        (dict(alpha=1.5), r"`alpha` must be .*Received: alpha=1.5"),
        (dict(score="norm"), r"`score` must be one of .*'gnorm'.*Received: score='norm'"),
        (dict(layer="nowhere"), r"`layer` must be a layer of the model.*Received: layer='nowhere'"),
        (dict(layer=99), r"`layer` must be .*Received: layer=99"),
        (dict(resampling="x"), r"`resampling` must be one of .*Received: resampling='x'"),
        (dict(tau_th=float("nan")), r"`tau_th` must be a number.*Received: tau_th=nan"),
        (dict(seed=-1), r"`seed` must be an int.*Received: seed=-1"),
        (dict(forward_batch_size=0), r"`forward_batch_size` must be .*Received: forward_batch_size=0"),
    ],
)
@pytest.mark.fast
def test_arguments_out_of_range_are_refused_by_the_constructor(options, message):
    with pytest.raises(ValueError, match=message):
        ImportanceTraining(build(), **options)


@pytest.mark.fast
def test_a_model_that_is_not_compiled_is_refused(xy):
    model = keras.Sequential([layers.Dense(3)])
    with pytest.raises(ValueError, match=r"`model` must be compiled.*Received: model="):
        fit(ImportanceTraining(model), xy)


@pytest.mark.parametrize("tau_th", [None, 0])
@pytest.mark.fast
def test_arrays_of_different_lengths_are_refused_before_the_first_step(xy, tau_th):
    model = build()
    before = weights(model)
    with pytest.raises(ValueError, match=r"(?s)same number of samples.*'x' sizes: 192.*'y' sizes: 190"):
        fit(ImportanceTraining(model, tau_th=tau_th), (xy[0], xy[1][:-2]))
    np.testing.assert_array_equal(weights(model), before)


@pytest.mark.parametrize("tau_th", [None, 0])
def test_negative_losses_are_refused_as_scores_before_the_first_step(xy, tau_th):
    model = build(loss=keras.losses.CosineSimilarity())
    before = weights(model)
    targets = keras.utils.to_categorical(xy[1])
    with pytest.raises(ValueError, match=r'`score` must not be negative.*use score="gnorm".*smallest value of -'):
        fit(ImportanceTraining(model, tau_th=tau_th, score="loss"), (xy[0], targets))
    np.testing.assert_array_equal(weights(model), before)


@pytest.mark.fast
def test_a_presample_at_which_the_default_gate_never_opens_warns():
    with pytest.warns(UserWarning, match="presample=1.5 the default gate never opens.*`tau_th`"):
        ImportanceTraining(build(), presample=1.5)
    ImportanceTraining(build(), presample=1.5, tau_th=1.2)


# What it trains plainly


class Adding(layers.Layer):
    def call(self, x):
        self.add_loss(0.01 * keras.ops.mean(keras.ops.square(x)))
        return x


class AddingToLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return super().compute_loss(x, y, y_pred, sample_weight, training) + keras.ops.mean(keras.ops.square(y_pred))


class OwnLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_pred))


class Passing(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 2.0 * super().compute_loss(x, y, y_pred, sample_weight, training)


def scalar_loss(y_true, y_pred):
    return keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y_true, y_pred))


def with_layer(layer, seed=3):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((6,)), layer(), layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def divided():
    return keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight")


PLAIN = {
    "scalar loss": (lambda: build(loss=scalar_loss), "not one per sample"),
    "divided by weights": (lambda: build(loss=divided()), "mean_with_sample_weight"),
    "own loss": (lambda: build(kind=OwnLoss), "doesn't use the compiled loss"),
    "adds to the loss": (lambda: build(kind=AddingToLoss), "a term to the compiled loss that depends on the data"),
    "add_loss": (lambda: with_layer(Adding), "adds a loss with `add_loss`"),
    "activity regulariser": (
        lambda: with_layer(lambda: layers.Dense(4, activity_regularizer="l2")),
        "an activity regulariser",
    ),
}


FOUND_BY_TRACING = ("scalar loss", "divided by weights", "own loss")


@pytest.mark.parametrize("name", PLAIN)
def test_a_loss_that_cannot_be_weighted_trains_as_model_fit_does_with_one_warning(xy, name):
    make, reason = PLAIN[name]

    def made():
        model = make()
        model.run_eagerly = name not in FOUND_BY_TRACING  # quicker than three traces
        return model

    plain = made()
    plain_history = fit(plain, xy)
    for tau_th in (None, 0):
        model = made()
        trainer = ImportanceTraining(model, tau_th=tau_th)
        with pytest.warns(UserWarning, match=f"trains as `model.fit` trains it: .*{reason}") as captured:
            history = fit(trainer, xy)
        assert sum(issubclass(warning.category, UserWarning) for warning in captured) == 1
        np.testing.assert_array_equal(weights(model), weights(plain))
        assert history["loss"] == plain_history["loss"]
        assert history["importance"] == [0.0, 0.0]
        assert reason in trainer.summary()


@pytest.mark.fast
def test_a_compute_loss_that_passes_the_sample_weights_on_is_importance_sampled(xy):
    assert fit(ImportanceTraining(build(kind=Passing), tau_th=0), xy)["importance"] == [1.0, 1.0]


@needs("stateful networks")
def test_a_stateful_network_trains_uniformly_with_a_warning():
    x = np.random.default_rng(0).normal(size=(32, 4, 2)).astype("float32")

    def make():
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((4, 2), batch_size=8), layers.LSTM(3, stateful=True), layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    plain, model, off = make(), make(), make()
    options = dict(batch_size=8, shuffle=False)
    fit(plain, (x, x[:, 0, :1]), **options)
    with pytest.warns(UserWarning, match="is a stateful RNN"):
        fit(ImportanceTraining(model), (x, x[:, 0, :1]), **options)
    fit(ImportanceTraining(off, tau_th=float("inf")), (x, x[:, 0, :1]), **options)
    np.testing.assert_array_equal(weights(model), weights(plain))
    np.testing.assert_array_equal(weights(off), weights(plain))


def test_fewer_rows_than_a_pool_train_as_model_fit_does(xy):
    small = (xy[0][:40], xy[1][:40])
    plain, model = build(), None
    fit(plain, small)
    model = build()
    trainer = ImportanceTraining(model, tau_th=0)
    assert fit(trainer, small)["importance"] == [0.0, 0.0]
    np.testing.assert_array_equal(weights(model), weights(plain))
    assert "fewer rows (40) than a pool" in trainer.summary()


# The model comes back


class Interrupting(keras.callbacks.Callback):
    def __init__(self, error, epoch=0):
        super().__init__()
        self.error, self.epoch = error, epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise self.error


@pytest.mark.parametrize("tau_th", [None, 0])
def test_the_model_its_layers_and_the_callbacks_are_restored_after_fit_and_after_an_error(xy, tau_th, tmp_path):
    model = build()
    fit(model, xy)
    trainer = ImportanceTraining(model, tau_th=tau_th)
    for error in (RuntimeError("stop"), KeyboardInterrupt(), None):
        function, attributes = model.train_function, set(vars(model))
        inner = [dict(vars(layer)) for layer in model.layers]
        callbacks = keras.callbacks.CallbackList([Interrupting(error)] if error else [], add_history=True, model=model)
        callbacks.set_params(dict(epochs=2, steps=12, verbose=0))
        listed = list(callbacks.callbacks)
        with pytest.raises(type(error)) if error else contextlib.nullcontext():
            fit(trainer, xy, callbacks=callbacks)
        assert model.train_function is function and set(vars(model)) - attributes <= {"_eval_epoch_iterator"}
        for layer, before in zip(model.layers, inner, strict=True):
            assert vars(layer).keys() == before.keys()
            assert vars(layer).get("activation") is before.get("activation")
        assert callbacks.callbacks == listed
        model.evaluate(*xy, verbose=0)
        model.save(tmp_path / "model.keras")
        fit(model, xy)
    fit(trainer, xy)


def test_a_model_that_was_compiled_again_is_trained_as_compiled_last(xy):
    model = build()
    trainer = ImportanceTraining(model, tau_th=0)
    fit(trainer, xy)
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", metrics=["accuracy"])
    before = weights(model)
    assert "accuracy" in fit(trainer, xy)
    for tau_th in (0, float("inf")):
        fit(ImportanceTraining(model, tau_th=tau_th), xy)
    kept = [v for v in range(len(before))]
    assert np.isclose(weights(model), before).sum() >= len(kept) - 4  # but for the seeds of dropout


class Counting(layers.Layer):
    traces = 0

    def call(self, x):
        Counting.traces += 1
        return x


@needs("compiled steps")
@pytest.mark.fast
def test_fit_in_a_loop_compiles_once(xy):
    model = with_layer(Counting)
    trainer = ImportanceTraining(model, tau_th=0)
    fit(trainer, xy)
    Counting.traces = 0
    for _ in range(3):
        fit(trainer, xy, epochs=1)
    assert Counting.traces == 0


@needs("tf.function")
@pytest.mark.parametrize("steps", [1, 2])
def test_data_of_every_size_use_the_same_compiled_steps(xy, steps):
    model = with_layer(Counting)
    model.steps_per_execution = steps
    trainer = ReshuffleTraining(model, seed=1)
    for rows in (160, 144):
        fit(trainer, [part[:rows] for part in xy], epochs=2)
    Counting.traces = 0
    for rows in (112, 96, 128):
        history = fit(trainer, [part[:rows] for part in xy], epochs=2)
        assert history["importance"] == [0.0, 1.0]
    assert Counting.traces == 0


def test_train_on_batch_in_a_callback_is_a_step_of_keras_that_the_trainer_does_not_count(xy):
    model = build()
    extra = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: model.train_on_batch(xy[0][:16], xy[1][:16]))
    trainer = ImportanceTraining(model, tau_th=0)
    fit(trainer, xy, callbacks=extra)
    assert int(model.optimizer.iterations) == 2 * 12 + 2
    assert counters_of(trainer)["steps"] == 24


# The same seed, the same weights


def test_the_same_seed_gives_the_same_weights(xy):
    runs = []
    for seed in (1, 1, 2):
        model = build()
        fit(ImportanceTraining(model, seed=seed, tau_th=0), xy)
        runs.append(weights(model))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()


SCRIPT = """
import keras, numpy as np
from importance_sampling import ImportanceTraining
keras.utils.set_random_seed(5)
x = np.random.default_rng(0).normal(size=(192, 6)).astype("float32")
model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")])
model.compile("adam", "sparse_categorical_crossentropy")
ImportanceTraining(model, tau_th=0).fit(x, x[:, :3].argmax(1), batch_size=16, epochs=2, verbose=0)
print("weights", [w.tolist() for w in model.get_weights()])
"""


def test_two_processes_with_the_same_seed_of_keras_end_with_the_same_weights(capsys):
    exec(SCRIPT, {})
    here = capsys.readouterr().out
    there = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    assert here == there and here.startswith("weights")


# What it tells


@pytest.mark.parametrize("steps", [1, pytest.param(5, marks=needs("several steps per execution"))])
def test_listeners_receive_the_pool_and_the_weighted_batch_of_every_importance_step(xy, steps):
    heard, pools = [], []
    model = build(steps_per_execution=steps)
    fit(
        ImportanceTraining(model, tau_th=0, alpha=0.2),
        xy,
        validation_split=0.25,
        on_sample=lambda *args: heard.append(args),
        on_scores=lambda *args: pools.append(args),
    )
    assert len(heard) == len(pools) == 2 * 9
    for (sampler, indices, weight, scores), (_, pool) in zip(heard, pools, strict=True):
        assert sampler.pool_size == 48 and indices.shape == weight.shape == scores.shape == (16,)
        assert pool.shape == (48,) and set(scores) <= set(pool)
        assert indices.max() < 144 and indices.min() >= 0
        expected = 1 / (48 * (0.8 * scores / pool.sum() + 0.2 / 48))
        np.testing.assert_allclose(weight, expected, rtol=1e-4)
        assert weight.max() <= 1 / 0.2 + 1e-4


@pytest.mark.fast
def test_listeners_receive_the_indices_of_the_rows_that_were_trained_on(xy):
    x = np.arange(ROWS, dtype="float32")[:, None] * np.ones((1, 6), "float32")
    seen, told = [], []

    def score(model, x, y):
        return x[:, 0] + 1

    model = build(optimizer=keras.optimizers.SGD(0.0))
    trainer = ImportanceTraining(model, tau_th=0, score=score)
    fit(trainer, (x, xy[1]), on_sample=lambda s, i, w, scores: (told.append(i), seen.append(scores)))
    np.testing.assert_allclose(np.concatenate(seen), np.concatenate(told) + 1)


@pytest.mark.fast
def test_listeners_receive_the_rows_of_uniform_steps_with_weights_of_one(xy):
    heard = []
    plain, model = build(), None
    fit(plain, xy)
    model = build()
    fit(ImportanceTraining(model, tau_th=float("inf")), xy, on_sample=lambda *args: heard.append(args[1:]))
    np.testing.assert_array_equal(weights(model), weights(plain))
    indices = np.concatenate([i for i, _, _ in heard])
    np.testing.assert_array_equal(np.sort(indices), np.repeat(np.arange(ROWS), 2))
    assert all((w == 1).all() and np.isnan(s).all() for _, w, s in heard)


def test_signals_are_sent_to_whoever_connects_and_nothing_is_handed_out_otherwise(xy, monkeypatch):
    heard = dict(sample=0, score=0, training=0)

    def count(name):
        def hear(sender, **values):
            heard[name] += 1

        return hear

    handed_out, record = set(), PoolStep.record

    def watch(step, *arguments):
        draws = record(step, *arguments)
        handed_out.add(len(draws))
        return draws

    monkeypatch.setattr(PoolStep, "record", watch)
    trainer = ImportanceTraining(build(), tau_th=0)
    fit(trainer, xy, epochs=1)
    assert handed_out == {0}
    hears = [count(name) for name in heard]
    for signal, hear in zip((SAMPLE, SCORE, TRAINING), hears, strict=True):
        signal.connect(hear)
    try:
        fit(trainer, xy, epochs=1)
    finally:
        for signal, hear in zip((SAMPLE, SCORE, TRAINING), hears, strict=True):
            signal.disconnect(hear)
    assert heard == dict(sample=12, score=12, training=12)


@pytest.mark.fast
def test_callbacks_after_history_receive_the_figures_of_importance_sampling(xy, caplog):
    ahead, seen = [], []
    callbacks = [
        keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: ahead.append(set(logs))),
        keras.callbacks.History(),
        keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(set(logs))),
        keras.callbacks.EarlyStopping(monitor="tau", mode="min", patience=0),
    ]
    trainer = ImportanceTraining(build(metrics=["accuracy"]), tau_th=0)
    assert "not been called" in trainer.summary()
    with caplog.at_level(logging.INFO, "importance_sampling"):
        history = fit(trainer, xy, epochs=8, callbacks=callbacks)
    assert all(keys == {"loss", "accuracy"} for keys in ahead)
    assert all(keys == {"loss", "accuracy", "score", "tau", "importance"} for keys in seen) and seen
    assert len(history["tau"]) <= 8
    assert trainer.importance_steps == len(seen)
    summary = trainer.summary()
    for words in ("Importance sampling ran for 100% of", "largest weight", "effective batch size", "dropout"):
        assert words in summary
    assert summary.splitlines()[0] in caplog.text
    closed = ImportanceTraining(build(), tau_th=50)
    fit(closed, xy)
    assert closed.summary().startswith("Uniform training throughout (24 steps): the scores are too equal")
    assert "the threshold 50.00" in closed.summary()


# What it remembers


@pytest.mark.parametrize("sampler", ["pool", "reshuffle"])
def test_a_fit_resumed_from_a_backup_ends_with_the_weights_and_counters_of_one_without_a_break(xy, tmp_path, sampler):
    xy = [part[:-10] for part in xy]  # not full batches: the reshuffle is in the middle of its plan as epochs end

    def run(trainer, folder, error=None):
        callbacks = [keras.callbacks.BackupAndRestore(folder, delete_checkpoint=False)]
        callbacks += [Interrupting(error, 1)] if error else []
        fit(trainer, xy, epochs=4, callbacks=callbacks)

    def model(seed=3):
        return with_layer(lambda: layers.Dense(8, "relu"), seed)  # no dropout: Keras doesn't back its seed up

    unbroken = ImportanceTraining(model(), tau_th=0, seed=1, sampler=sampler)
    run(unbroken, tmp_path / "unbroken")
    with pytest.raises(RuntimeError):
        broken = ImportanceTraining(model(), tau_th=0, seed=1, sampler=sampler)
        run(broken, tmp_path / "broken", RuntimeError("power cut"))
    resumed = ImportanceTraining(model(seed=9), tau_th=0, seed=2, sampler=sampler)
    run(resumed, tmp_path / "broken")
    np.testing.assert_array_equal(weights(resumed.model), weights(unbroken.model))
    assert counters_of(resumed) == counters_of(unbroken)


@pytest.mark.fast
def test_a_state_saved_beside_a_checkpoint_or_by_save_state_is_loaded(xy, tmp_path):
    trainer = ImportanceTraining(build(), tau_th=0, seed=1)
    fit(trainer, xy, callbacks=keras.callbacks.ModelCheckpoint(tmp_path / "model.keras"))
    trainer.save_state(tmp_path / "state.npz")
    for name in ("model.keras.importance_sampling.npz", "state.npz"):
        other = ImportanceTraining(build(), tau_th=0)
        other.load_state(tmp_path / name)
        assert counters_of(other) == counters_of(trainer)
        for name, array in saved_state(trainer)[1].items():
            np.testing.assert_array_equal(saved_state(other)[1][name], array)


@pytest.mark.fast
def test_save_state_before_the_first_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match="call `fit` first"):
        ImportanceTraining(build()).save_state(tmp_path / "state.npz")


@pytest.mark.fast
def test_load_state_refuses_other_files(tmp_path):
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(ValueError, match=r"must be a file that `save_state` of version 1\.0 or later wrote"):
        ImportanceTraining(build()).load_state(tmp_path / "other.npz")


@pytest.mark.parametrize("tau_th", [0, 1.005])
def test_a_resumed_fit_continues_with_an_open_gate_and_its_summary_counts_its_own_steps(xy, tmp_path, tau_th):
    def run(error=None):
        callbacks = [keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)]
        callbacks += [Interrupting(error, 1)] if error else []
        trainer = ImportanceTraining(with_layer(lambda: layers.Dense(8, "relu")), tau_th=tau_th, seed=1)
        return trainer, fit(trainer, xy, epochs=4, callbacks=callbacks)

    with pytest.raises(RuntimeError):
        run(RuntimeError("power cut"))
    trainer, history = run()
    steps = 12 * len(history["loss"])
    assert history["importance"] == [1.0] * len(history["loss"])
    assert f"Importance sampling ran for 100% of the {steps} steps" in trainer.summary()


class Rebuilding(keras.Model):
    def make_train_function(self, force=False):
        return super().make_train_function(force=True)


def test_a_model_that_overrides_make_train_function_trains_as_model_fit_does_with_a_warning(xy):
    plain = build(kind=Rebuilding)
    fit(plain, xy)
    model = build(kind=Rebuilding)
    with pytest.warns(UserWarning, match="overrides `make_train_function`"):
        fit(ImportanceTraining(model), xy, on_sample=lambda *_: None)
    np.testing.assert_array_equal(weights(model), weights(plain))


def test_the_state_beside_the_best_model_is_that_of_the_best_epoch(xy, tmp_path):
    class Falling(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs):
            logs["figure"] = [1.0, 0.5, 2.0, 3.0][epoch]  # the second is the best

    best = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="figure", mode="min", save_best_only=True)
    fit(ImportanceTraining(build(), tau_th=0, seed=1), xy, epochs=4, callbacks=[Falling(), best])
    header, _ = read_state(tmp_path / "best.keras.importance_sampling.npz")
    assert header["counters"]["steps"] == 2 * 12


def test_a_state_saved_before_the_first_probe_has_the_decision_of_the_gate(xy, tmp_path):
    trainer = ImportanceTraining(build(), tau_th=0)
    fit(trainer, (xy[0][:128], xy[1][:128]), epochs=1)  # 8 steps; the first look comes after 17
    trainer.save_state(tmp_path / "state.npz")
    published = ImportanceTraining(build(), tau_th=1.01)
    published.load_state(tmp_path / "state.npz")
    assert published.condition.satisfied


def test_a_state_saved_closed_does_not_close_a_gate_that_is_always_open(xy, tmp_path):
    closed = ImportanceTraining(build(), tau_th=1e9)
    fit(closed, xy)
    closed.save_state(tmp_path / "state.npz")
    trainer = ImportanceTraining(build(), tau_th=0)
    trainer.load_state(tmp_path / "state.npz")
    assert fit(trainer, xy)["importance"] == [1.0, 1.0]


def test_a_second_fit_continues_the_reshuffle_on_equal_rows_and_starts_afresh_on_others(xy, tmp_path):
    x, y = (part[:96] for part in xy)
    trainer = ReshuffleTraining(build())
    fit(trainer, (x, y))
    fit(trainer, (x.copy(), y.copy()), epochs=1)
    assert drawn_by(trainer) == 3 * 96
    trainer.save_state(tmp_path / "state.npz")
    for other in ((x[::-1], y), (x, y[::-1])):
        fit(trainer, other, epochs=1)
        assert drawn_by(trainer) == 96
    parts = {name.partition("/")[0] for name in saved_state(trainer)[1] if "/" in name}
    assert parts == {"entries", "sampler"}  # of the data at hand alone
    # A state that is of other rows than the last ones waits for its own, and makes room for others.
    trainer.load_state(tmp_path / "state.npz")
    fit(trainer, (x, y), epochs=1)
    assert drawn_by(trainer) == 4 * 96
    trainer.load_state(tmp_path / "state.npz")
    fit(trainer, other, epochs=1)
    assert drawn_by(trainer) == 96


def test_a_backup_made_on_other_rows_does_not_restore_the_reshuffle(xy, tmp_path):
    def run(rows, epochs):
        backup = keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
        trainer = ReshuffleTraining(with_layer(lambda: layers.Dense(8, "relu")))
        fit(trainer, rows, epochs=epochs, callbacks=[backup])
        return drawn_by(trainer)

    x, y = (part[:96] for part in xy)
    assert run((x, y), epochs=1) == 96
    assert run((x[::-1], y), epochs=2) == 96  # one of them is done
    assert run((x[::-1], y), epochs=3) == 2 * 96


def test_the_first_epoch_on_other_rows_begins_with_uniform_steps():
    model, *xy = few_are_hard()
    trainer = ImportanceTraining(model)
    other = [part[::-1] for part in xy]
    first, *_, last = fit(trainer, xy, epochs=5)["importance"]
    assert first < 1 == last
    assert fit(trainer, xy, epochs=1)["importance"] == [1]
    assert fit(trainer, other, epochs=5)["importance"][0] < 1


def test_a_state_of_another_kind_of_trainer_is_refused(xy, tmp_path):
    trainer = ReshuffleTraining(build())
    fit(trainer, xy, epochs=1)
    trainer.save_state(tmp_path / "state.npz")
    with pytest.raises(
        ValueError, match=r"another HistoryImportanceTraining wrote.*state.npz', of a ReshuffleTraining"
    ):
        HistoryImportanceTraining(build()).load_state(tmp_path / "state.npz")


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.fast
def test_the_summary_mentions_dropout_if_the_model_has_some(dropout):
    inputs = keras.Input((4, 2))
    hidden = layers.GRU(2, dropout=dropout)(layers.LSTM(2, return_sequences=True)(inputs))
    model = keras.Model(inputs, layers.Dropout(0.0)(hidden))
    assert [
        line.startswith("The model has dropout") for line in layer_notes(model, in_training=False, is_weighted=True)
    ] == [True] * bool(dropout)


# The house


FILES = {path: path.read_text(encoding="utf-8") for path in Path(importance_sampling.__file__).parent.rglob("*.py")}


@pytest.mark.fast
def test_no_module_has_more_than_320_lines_or_350_in_the_backend():
    for file, text in FILES.items():
        assert len(text.splitlines()) <= (350 if "backend" in file.parts else 320), file


@pytest.mark.fast
def test_no_module_prints():
    for file, text in FILES.items():
        assert "print(" not in text.replace(">>> print(", "").replace("`print(", ""), file


@pytest.mark.fast
def test_no_module_outside_the_backend_imports_a_framework():
    for file, text in FILES.items():
        if "backend" not in file.parts:
            assert "import tensorflow" not in text and "import jax" not in text and "import torch" not in text, file


def test_the_example_of_version_0_10_runs():
    x_train, labels = np.random.default_rng(0).random((256, 784), "float32"), np.arange(256) % 10
    y_train = keras.utils.to_categorical(labels, 10)
    model = keras.Sequential()
    with pytest.warns(UserWarning, match="Do not pass an `input_shape`"):  # Keras's
        model.add(keras.layers.Dense(512, activation="relu", input_shape=(784,)))
    model.add(keras.layers.Dropout(0.2))
    model.add(keras.layers.Dense(512, activation="relu"))
    model.add(keras.layers.Dropout(0.2))
    model.add(keras.layers.Dense(10, activation="softmax"))
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    history = ImportanceTraining(model).fit(
        x_train, y_train, batch_size=128, epochs=2, verbose=0, validation_data=(x_train[:10], y_train[:10])
    )
    assert {"accuracy", "loss", "val_accuracy", "val_loss", "importance", "tau", "score"} == set(history.history)
