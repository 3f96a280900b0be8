"""Epochs with fewer steps in Keras's `fit`: their number, their weights, what callbacks see, and how they resume."""

import contextlib
import io

import keras
import numpy as np
import pytest
from frameworks import needs, several
from keras import layers

from importance_sampling.strategies.dataset_rows import DatasetRows
from importance_sampling.strategies.skipping import is_full_epoch, steps_of_epoch
from importance_sampling.training import SkippingTraining

ROWS, BATCH = 90, 8  # eleven batches, and one of two rows
X = np.random.default_rng(0).normal(size=(ROWS, 5)).astype("float32")
HARD = 10  # rows with high losses: the first ones
Y = np.where(np.arange(ROWS) < HARD, 3.0, 0.1).astype("float32")
FULL, SHORT = 12, 7  # steps: of 80 easy rows, 46 are included, which makes 7 batches


def build(rate=0.0, steps_per_execution=1):
    """A model whose loss is |y| at a learning rate of 0."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(1, kernel_initializer="zeros")])
    model.compile(
        keras.optimizers.SGD(rate),
        "mae",
        metrics=["mse"],
        steps_per_execution=steps_per_execution,
    )
    return model


def fit(trainer, **options):
    return trainer.fit(X, Y, **{"batch_size": BATCH, "epochs": 4, "verbose": 0, **options}).history


class Batches(keras.callbacks.Callback):
    """Records the batches of each epoch, and the order of the hooks."""

    def __init__(self):
        super().__init__()
        self.begun, self.ended, self.hooks = [], [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.begun.append(0)
        self.ended.append(0)
        self.hooks.append("epoch")

    def on_train_batch_begin(self, batch, logs=None):
        self.begun[-1] += 1

    def on_train_batch_end(self, batch, logs=None):
        self.ended[-1] = batch + 1

    def on_test_begin(self, logs=None):
        self.hooks.append("validation")

    def on_epoch_end(self, epoch, logs=None):
        self.hooks.append("epoch end")


@pytest.fixture(scope="module")
def used():
    """A trainer that knows all losses, which don't change: each `fit` has short epochs and full ones at its end."""
    trainer = SkippingTraining(build(), seed=1)
    fit(trainer, epochs=1)
    return trainer


@pytest.fixture(scope="module")
def whole():
    """The weights after four epochs without a break."""
    model = build(0.05)
    fit(SkippingTraining(model, seed=1))
    return model.get_weights()[0]


# The number of steps


def test_the_last_epochs_are_full_and_their_number_is_rounded_up():
    assert [is_full_epoch(epoch, 16, 0.125) for epoch in range(13, 16)] == [False, True, True]
    assert [is_full_epoch(epoch, 17, 0.125) for epoch in range(13, 17)] == [False, True, True, True]
    assert is_full_epoch(0, 1, 0.125) and not is_full_epoch(99, 100, 0.0)


def test_the_steps_of_an_epoch_are_whole_batches_or_a_share_of_the_steps_that_fit_asks_for():
    assert steps_of_epoch(included=56, rows=90, epoch_steps=12, batch_size=8) == 7
    assert steps_of_epoch(included=90, rows=90, epoch_steps=12, batch_size=8) == 12
    assert steps_of_epoch(included=56, rows=90, epoch_steps=5, batch_size=8) == 4  # 5 * 56 / 90


@pytest.mark.filterwarnings("error", "ignore:__array__ implementation:DeprecationWarning")  # of Keras on torch
def test_epochs_between_the_first_and_the_last_have_fewer_steps():
    per_execution = several(5)
    model, batches = build(steps_per_execution=per_execution), Batches()
    trainer = SkippingTraining(model, seed=1)
    history = fit(trainer, callbacks=[batches], validation_data=(X, Y))
    steps = [FULL, SHORT, SHORT, FULL]
    assert int(model.optimizer.iterations.value) == sum(steps)
    assert batches.begun == [-(-n // per_execution) for n in steps]
    assert batches.hooks == ["epoch", "validation", "epoch end"] * 4
    assert history["kept"] == pytest.approx([1, 56 / 90, 56 / 90, 1])
    np.testing.assert_allclose(history["loss"], 38 / 90, rtol=1e-5)  # the mean of all rows, in every epoch
    assert len(history["val_loss"]) == 4 and not model.stop_training
    assert trainer.summary() == "SkippingTraining skipped 21% of the steps of 4 epochs: 38 instead of 48."


def test_rows_are_weighted_by_their_inclusion_probability_and_none_are_scored_separately(monkeypatch):
    def fail(*_):
        raise AssertionError("rows were scored")

    for method in ("score", "score_rows", "losses"):
        monkeypatch.setattr(DatasetRows, method, fail)
    drawn = []
    trainer = SkippingTraining(build(), seed=1)
    fit(trainer, epochs=3, on_sample=lambda _, *sample: drawn.append(sample[:2]))
    epochs = [drawn[:FULL], drawn[FULL : FULL + SHORT], drawn[FULL + SHORT :]]
    for number, epoch in enumerate(epochs):
        indices, weights = map(np.concatenate, zip(*epoch, strict=True))
        assert len(set(indices)) == len(indices) == [90, 56, 90][number]
        expected = np.where(indices < HARD, 1, 80 / 46) if number == 1 else np.ones(90)
        np.testing.assert_allclose(weights, expected, rtol=1e-5)
        assert set(range(HARD)) <= set(indices)
    assert trainer.forward_equivalents == pytest.approx(3 * (90 + 56 + 90) / BATCH)


def test_a_fit_of_one_epoch_skips_nothing_and_says_why(used):
    assert fit(used, epochs=1)["kept"] == [1.0]
    assert used.summary() == (
        "SkippingTraining skipped nothing in 1 epoch (12 steps): samples are skipped by the losses of an earlier "
        "epoch, and the last 12.5% of the epochs of a `fit` have all samples."
    )


def test_the_gradient_of_a_shorter_epoch_is_unbiased_on_asymmetric_data():
    """The loss of a row is 1 + w x y, so its gradient is x y at all weights."""
    rng = np.random.default_rng(2)
    x = rng.exponential(size=(48, 1)).astype("float32")
    y = rng.exponential(size=(48, 1)).astype("float32") ** 2
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.01), lambda y, p: 1 + y * p, steps_per_execution=several(12))
    moves = []

    class Moves(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.layers[0].kernel.assign([[1.0]])

        def on_epoch_end(self, epoch, logs=None):
            moves.append(1.0 - float(self.model.get_weights()[0][0, 0]))

    trainer = SkippingTraining(model, 0.75, full_epochs=0.0, seed=1)
    history = trainer.fit(x, y, batch_size=4, epochs=100, verbose=0, callbacks=[Moves()]).history
    expected = 0.01 * 12 * (x * y).mean()  # that of the twelve steps of a full epoch
    assert moves[0] == pytest.approx(expected, rel=1e-4)
    error = np.std(moves[1:]) / np.sqrt(len(moves) - 1)
    assert error > 0 and abs(np.mean(moves[1:]) - expected) < 5 * error
    assert np.mean(history["kept"][1:]) < 0.8


# Keras's fit


def test_a_learning_rate_by_epochs_is_that_of_every_epoch(used):
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 1e-12 / (1 + epoch))
    history = fit(used, callbacks=[schedule])
    np.testing.assert_allclose(history["learning_rate"], [1e-12, 1e-12 / 2, 1e-12 / 3, 1e-12 / 4], rtol=1e-6)


def test_a_schedule_that_counts_steps_gives_one_warning():
    model = build()
    model.compile(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 48)), "mae", run_eagerly=True)
    with pytest.warns(
        UserWarning, match="`LearningRateSchedule` counts steps.*`keras.callbacks.LearningRateScheduler`"
    ):
        fit(SkippingTraining(model, seed=1), epochs=1)


@pytest.mark.parametrize("has_bar", [False, True], ids=["added by Keras", "of the user"])
def test_the_progress_bar_shows_the_steps_of_each_epoch(used, has_bar):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        fit(used, verbose=2, callbacks=[keras.callbacks.ProgbarLogger()] if has_bar else None)
    lines = [line.split(" - ")[0] for line in out.getvalue().splitlines() if "loss" in line]
    assert lines == ["7/7", "7/7", "7/7", "12/12"]


def test_an_epoch_of_fewer_steps_is_shortened_in_proportion():
    batches, model = Batches(), build()
    history = fit(SkippingTraining(model, seed=1, full_epochs=0.0), callbacks=[batches], steps_per_epoch=5, epochs=12)
    assert history["kept"][0] == 1.0 and batches.ended[0] == 5
    # By the twelfth epoch most rows have a loss.
    assert batches.ended[-1] == 4 and int(model.optimizer.iterations.value) == sum(batches.ended)


class Stop(keras.callbacks.Callback):
    """Stops training in the second epoch, at its last step or in its validation."""

    def __init__(self, hook):
        super().__init__()
        self.hook, self.epoch = hook, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.hook == "step" and self.epoch == 1 and batch + 1 == SHORT:
            self.model.stop_training = True

    def on_test_end(self, logs=None):
        if self.hook == "validation" and self.epoch == 1:
            self.model.stop_training = True


@pytest.mark.parametrize("hook", ["step", "validation"])
def test_a_callback_that_stops_training_at_the_end_of_a_shorter_epoch_stops_it(used, hook):
    history = fit(used, callbacks=[Stop(hook)], validation_data=(X, Y))
    assert len(history["loss"]) == 2


@pytest.mark.fast
def test_a_callback_list_of_the_user_sees_shorter_epochs(used):
    batches = Batches()
    callbacks = keras.callbacks.CallbackList(
        [batches], add_history=True, model=used.model, epochs=4, steps=FULL, verbose=0
    )
    fit(used, callbacks=callbacks)
    assert batches.ended == [SHORT, SHORT, SHORT, FULL] and callbacks.callbacks[0] is batches


def test_a_second_fit_skips_from_its_first_epoch_on_and_its_last_epochs_are_full(used):
    assert fit(used, epochs=2)["kept"] == pytest.approx([56 / 90, 1.0])
    assert fit(used, epochs=6, initial_epoch=3)["kept"] == pytest.approx([56 / 90, 56 / 90, 1.0])


# Data and losses of other kinds


def two_outputs(folder):
    inputs = keras.Input((5,))
    model = keras.Model(inputs, [layers.Dense(1)(inputs), layers.Dense(3, "softmax")(inputs)])
    model.compile(
        keras.optimizers.SGD(0.05),
        ["mae", "sparse_categorical_crossentropy"],
        loss_weights=[1.0, 2.0],
        run_eagerly=True,
    )
    return model, dict(x=X, y=[Y, X[:, :3].argmax(1)], sample_weight=np.linspace(0.1, 2, ROWS))


def masked(folder):
    words = np.random.default_rng(1).integers(0, 6, (ROWS, 4))
    model = keras.Sequential([keras.Input((4,)), layers.Embedding(6, 5, mask_zero=True), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", run_eagerly=True)
    return model, dict(x=words, y=words % 3)


def split_with_class_weights(folder):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", run_eagerly=True)
    y = X[:, :3].argmax(1)
    return model, dict(x=X, y=y, class_weight={0: 0.3, 2: 2.0}, validation_split=0.25)


def memory_map(folder):
    np.save(folder / "x.npy", X)
    return build(0.05), dict(x=np.load(folder / "x.npy", mmap_mode="r"), y=Y)


KINDS = [two_outputs, masked, split_with_class_weights, memory_map]


@pytest.mark.parametrize("kind", KINDS)
def test_with_full_batches_training_is_that_of_fit(kind, tmp_path):
    models = []
    for wrap in (lambda model: model, lambda model: SkippingTraining(model, seed=1)):
        keras.utils.set_random_seed(3)
        model, arguments = kind(tmp_path)
        wrap(model).fit(**arguments, batch_size=ROWS, epochs=5, verbose=0)
        models.append(model)
    for mine, theirs in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [two_outputs, masked])
def test_rows_are_skipped_by_the_losses_of_all_outputs_and_of_masked_sequences(kind, tmp_path):
    model, arguments = kind(tmp_path)
    model.run_eagerly = False
    trainer = SkippingTraining(model, full_epochs=0.0, seed=1)
    history = trainer.fit(**arguments, batch_size=BATCH, epochs=3, verbose=0).history
    steps = [-(-round(share * ROWS) // BATCH) for share in history["kept"]]
    assert steps[0] == FULL and max(steps[1:]) < FULL
    assert int(model.optimizer.iterations.value) == sum(steps)
    assert np.isfinite(history["loss"]).all()


def test_a_sample_weight_changes_which_rows_are_below_the_mean():
    weights = np.where(np.arange(ROWS) < HARD, 1 / 300, 1.0)  # losses of 0.01 and 0.1
    drawn = []
    fit(
        SkippingTraining(build(), 0.9, full_epochs=0.0, seed=1),
        sample_weight=weights,
        epochs=2,
        on_sample=lambda _, indices, *__: drawn.append(indices),
    )
    second = np.concatenate(drawn[FULL:])
    assert set(range(HARD, ROWS)) <= set(second) and len(second) < ROWS


# The state


@needs("several steps per execution")
def test_several_steps_in_one_execution_give_the_weights_of_single_steps(whole):
    model = build(0.05, steps_per_execution=5)
    fit(SkippingTraining(model, seed=1))
    np.testing.assert_allclose(model.get_weights()[0], whole, rtol=1e-4, atol=1e-7)


def test_a_fit_that_is_resumed_from_a_saved_state_gives_the_weights_of_one_without_a_break(whole, tmp_path):
    class Break(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    first, second = build(0.05), build(0.05)
    trainer = SkippingTraining(first, seed=1)
    fit(trainer, callbacks=[Break()])
    trainer.save_state(tmp_path / "state.npz")
    second.set_weights(first.get_weights())
    resumed = SkippingTraining(second, seed=9)
    resumed.load_state(tmp_path / "state.npz")
    history = fit(resumed, initial_epoch=2)
    assert history["kept"][0] < 1 and history["kept"][1] == 1
    np.testing.assert_array_equal(second.get_weights()[0], whole)


def test_a_fit_that_was_killed_resumes_from_its_backup_with_the_same_weights(whole, tmp_path):
    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    killed, resumed = build(0.05), build(0.05)
    with pytest.raises(KeyboardInterrupt):
        fit(SkippingTraining(killed, seed=1), callbacks=[keras.callbacks.BackupAndRestore(tmp_path), Kill()])
    fit(SkippingTraining(resumed, seed=8), callbacks=[keras.callbacks.BackupAndRestore(tmp_path)])
    np.testing.assert_array_equal(resumed.get_weights()[0], whole)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (dict(skip_probability=1.0), r"`skip_probability` must be a number in \[0, 1\). Received: skip_prob"),
        (dict(full_epochs=1.5), r"`full_epochs` must be a number in \[0, 1\). Received: full_epochs=1.5"),
        (dict(score="full_gnorm"), r"`score` must be one of \('gnorm', 'loss'\).*Received: score='full_gnorm'"),
    ],
)
@pytest.mark.fast
def test_arguments_out_of_range_are_refused(options, error):
    with pytest.raises(ValueError, match=error):
        SkippingTraining(build(), **options)
