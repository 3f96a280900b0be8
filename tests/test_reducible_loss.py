"""`ReducibleLossTraining`: which samples it selects, what its copies cost, and how it resumes."""

import keras
import numpy as np
import pytest
from frameworks import needs
from keras import layers
from toys import Stream

from importance_sampling.callbacks import SamplingRecorder
from importance_sampling.labels import OutOfSample
from importance_sampling.strategies.irreducible_loss import cross_fit
from importance_sampling.training import ReducibleLossTraining

ROWS, BATCH = 96, 8
_rng = np.random.default_rng(0)
X = _rng.normal(size=(ROWS, 4)).astype("float32")
Y = X[:, :3].argmax(1)


def build(rate=0.1, steps_per_execution=1):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax")])
    model.compile(
        keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", steps_per_execution=steps_per_execution
    )
    return model


def losses_of(model):
    return -np.log(model.predict(X, verbose=0)[np.arange(ROWS), Y])


def steps_of(trainer, **options):
    """Return `(indices, weights, scores)` of every step."""
    steps = []
    options = {"batch_size": BATCH, "epochs": 2, "verbose": 0, **options}
    trainer.fit(X, Y, on_sample=lambda _, *step: steps.append(step), **options)
    return steps


def test_a_step_trains_on_the_candidates_with_the_largest_loss_minus_irreducible_loss():
    irreducible = np.random.default_rng(1).normal(size=ROWS).astype("float32")
    model = build(rate=0.0)  # so that the losses stay as they are
    trainer = ReducibleLossTraining(model, presample=3, irreducible_loss=irreducible, seed=1)
    steps = steps_of(trainer, epochs=1)
    reducible = losses_of(model) - irreducible
    # Four pools of 24 make up a pass; each row is a candidate once.
    drawn = np.concatenate([indices for indices, *_ in steps[:4]])
    assert len(set(drawn)) == 4 * BATCH
    for indices, weights, scores in steps:
        np.testing.assert_array_equal(weights, 1.0)
        above = reducible[indices]
        np.testing.assert_allclose(scores, np.where(above >= 0, 1 + above, 1 / (1 - above)), rtol=1e-4)
        assert (np.diff(reducible[indices]) <= 1e-6).all()
    assert trainer.forward_equivalents == 12 * (3 + 3) and trainer.out_of_sample is None
    assert reducible[drawn].min() > np.sort(reducible)[ROWS // 6]


def test_samples_with_wrong_labels_are_left_out():
    wrong = np.arange(ROWS) % 4 == 0
    irreducible = np.where(wrong, 9.0, 0.1)
    drawn = np.concatenate(
        [
            indices
            for indices, *_ in steps_of(
                ReducibleLossTraining(build(), presample=4, irreducible_loss=irreducible, seed=1)
            )
        ]
    )
    assert not wrong[drawn].any()


@pytest.fixture(scope="module")
def trained():
    """A trainer whose copies were trained on the halves, for two epochs. Tests don't train it further."""
    trainer = ReducibleLossTraining(build(), copy_epochs=2, seed=1)
    trainer.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0)
    return trainer


def test_two_copies_measure_the_irreducible_loss_and_their_cost_is_counted(trained):
    predicted = trained.out_of_sample
    assert isinstance(predicted, OutOfSample) and len(predicted.epochs) == 2
    assert predicted.losses.shape == (ROWS,) and predicted.probabilities.shape == (ROWS, 3)
    copies = sum(predicted.epochs) * (3 * ROWS / 2 + ROWS / 2) / BATCH
    assert trained.forward_equivalents == pytest.approx(24 * (3 + 2) + copies)
    assert "trained two copies, each on one half of the data" in trained.summary()
    assert "each on the 8 of 16 candidates" in trained.summary()


def test_the_copies_are_not_trained_again_for_the_same_data_but_for_others():
    trainer = ReducibleLossTraining(build(), copy_epochs=1, seed=1)
    trainer.fit(X, Y, batch_size=BATCH, verbose=0)
    before = trainer.out_of_sample
    assert "trained two copies" in trainer.summary()
    trainer.fit(X, Y, batch_size=BATCH, verbose=0)
    assert trainer.out_of_sample is before and "trained two copies" not in trainer.summary()
    with pytest.warns(UserWarning, match="start from weights that have been trained"):
        trainer.fit(X[:80], Y[:80], batch_size=BATCH, verbose=0)
    assert len(trainer.out_of_sample.losses) == 80


def test_a_saved_state_has_the_irreducible_losses(trained, tmp_path, monkeypatch):
    trained.save_state(tmp_path / "state.npz")
    resumed = ReducibleLossTraining(build(), copy_epochs=2, seed=1)
    resumed.load_state(tmp_path / "state.npz")

    def fail(*arguments):
        raise AssertionError("the copies were trained again")

    monkeypatch.setattr("importance_sampling.strategies.irreducible_loss.cross_fit", fail)
    resumed.fit(X, Y, batch_size=BATCH, verbose=0)
    assert resumed.out_of_sample is None and resumed.importance_steps == trained.importance_steps + 12


def test_training_resumes_from_a_backup_as_if_it_had_not_stopped(tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise Stop

    def trainer():
        return ReducibleLossTraining(build(), copy_epochs=1, seed=1)

    def fit(one, *callbacks):
        keras.utils.set_random_seed(5)
        one.fit(X, Y, batch_size=BATCH, epochs=4, verbose=0, callbacks=list(callbacks))
        return one.model.get_weights()

    whole = fit(trainer())
    with pytest.raises(Stop):
        fit(trainer(), keras.callbacks.BackupAndRestore(tmp_path / "backup"), Interrupt())
    monkeypatch.delattr("importance_sampling.strategies.irreducible_loss.cross_fit")  # not needed again
    resumed = fit(trainer(), keras.callbacks.BackupAndRestore(tmp_path / "backup"))
    for one, other in zip(whole, resumed, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_a_copy_is_trained_on_a_holdout_set_instead():
    holdout = X[:32] + 0.1, Y[:32]
    trainer = ReducibleLossTraining(build(), holdout=holdout, copy_epochs=1, seed=1)
    trainer.fit(X, Y, batch_size=BATCH, verbose=0)
    assert trainer.out_of_sample.epochs == (1,) and len(trainer.out_of_sample.losses) == ROWS
    assert trainer.out_of_sample.cost == 3 * 32 + ROWS
    assert "trained a copy on the holdout set (1 epoch)" in trainer.summary()


def test_the_copies_start_from_the_weights_before_the_fit_and_take_a_quarter_of_its_epochs(monkeypatch):
    starts, most_epochs = [], []
    weights = build().get_weights()

    def record(copy, source, batch_size, epochs, seed):
        most_epochs.append(epochs)
        fit = copy.model.fit
        copy.model.fit = lambda *data, **options: starts.append(copy.model.get_weights()) or fit(*data, **options)
        return cross_fit(copy, source, batch_size, epochs, seed)

    monkeypatch.setattr("importance_sampling.strategies.irreducible_loss.cross_fit", record)
    for epochs, most in ((1, 1), (9, 2)):
        model = build()
        ReducibleLossTraining(model, seed=1).fit(X, Y, batch_size=48, epochs=epochs, verbose=0)
        assert most_epochs[-1] == most
    for one, other in zip(starts[0], weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_losses_that_can_be_negative_are_selected_in_their_order():
    model = build(rate=0.0)
    model.compile(keras.optimizers.SGD(0.0), lambda y, p: p[:, 0] - 5.0)
    irreducible = np.linspace(-6, 3000, ROWS)  # also far above the loss
    steps = steps_of(ReducibleLossTraining(model, irreducible_loss=irreducible, seed=1), epochs=1)
    reducible = model.predict(X, verbose=0)[:, 0] - 5.0 - irreducible
    assert len(steps) == 12 and all((np.diff(reducible[indices]) <= 1e-6).all() for indices, *_ in steps)


def test_samples_without_a_usable_loss_or_with_a_weight_of_0_are_selected_last():
    x, weight = X.copy(), np.ones(ROWS, "float32")
    x[5] = np.nan
    weight[::4] = 0.0
    trainer = ReducibleLossTraining(build(rate=0.0), irreducible_loss=np.where(weight > 0, 9.0, 0.0), seed=1)
    steps = []
    trainer.fit(
        x,
        Y,
        sample_weight=weight,
        batch_size=BATCH,
        epochs=3,
        verbose=0,
        on_sample=lambda _, *step: steps.append(step),
    )
    drawn = np.concatenate([indices for indices, *_ in steps])
    # Of sixteen candidates four have a weight of 0 on average, and eight can be left out.
    assert 5 not in drawn and (weight[drawn] == 0).mean() < 0.02


def test_samples_whose_irreducible_loss_is_not_finite_are_counted_in_the_summary():
    x = X.copy()
    x[5] = np.nan
    trainer = ReducibleLossTraining(build(rate=0.0), holdout=(X[10:50], Y[10:50]), copy_epochs=1, seed=1)
    trainer.fit(x, Y, batch_size=BATCH, verbose=0)
    assert "1 sample has no finite irreducible loss and is selected last" in trainer.summary()


def test_a_corrected_label_is_noticed_among_many_rows():
    x, y = np.tile(X, (20, 1)), np.tile(Y, 20)
    trainer = ReducibleLossTraining(build(), copy_epochs=1, seed=1)
    trainer.fit(x, y, batch_size=480, verbose=0)
    before, y = trainer.out_of_sample, y.copy()
    y[1003] = (y[1003] + 1) % 3
    with pytest.warns(UserWarning, match="weights that have been trained"):
        trainer.fit(x, y, batch_size=480, verbose=0)
    assert trainer.out_of_sample is not before


def test_your_own_losses_are_not_replaced_by_those_of_a_saved_state(tmp_path):
    first = ReducibleLossTraining(build(), irreducible_loss=np.zeros(ROWS), seed=1)
    first.fit(X, Y, batch_size=BATCH, verbose=0)
    first.save_state(tmp_path / "state.npz")
    trainer = ReducibleLossTraining(build(rate=0.0), irreducible_loss=50.0 * (np.arange(ROWS) % 2 == 0), seed=1)
    trainer.load_state(tmp_path / "state.npz")
    drawn = np.concatenate([indices for indices, *_ in steps_of(trainer)])
    assert (drawn % 2).mean() > 0.8


def test_copies_are_not_trained_for_a_model_whose_samples_can_not_be_weighted():
    class Penalised(layers.Layer):
        def call(self, x):
            self.add_loss(keras.ops.mean(x))
            return x

    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), Penalised(), layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    trainer = ReducibleLossTraining(model, seed=1)
    with pytest.warns(UserWarning, match="Importance sampling stays off"):
        trainer.fit(X, Y, batch_size=BATCH, verbose=0)
    assert trainer.out_of_sample is None and trainer.importance_steps == 0


@needs("several steps per execution")
def test_several_steps_per_execution_select_the_same_samples():
    drawn = []
    for steps_per_execution in (1, 4):
        model = build(steps_per_execution=steps_per_execution)
        trainer = ReducibleLossTraining(model, irreducible_loss=np.linspace(0, 1, ROWS), seed=1)
        drawn.append(np.concatenate([indices for indices, *_ in steps_of(trainer)]))
    np.testing.assert_array_equal(*drawn)


def test_class_weights_apply_to_a_holdout_set_also_while_a_recorder_reads_the_rows(monkeypatch):
    seen = []

    def record(copy, holdout, source, batch_size, epochs):
        seen.append(holdout.structure)
        return OutOfSample(np.zeros(source.num_rows, "float32"), None, (1,), 0.0)

    monkeypatch.setattr("importance_sampling.strategies.irreducible_loss.fit_holdout", record)
    for callbacks in ([], [SamplingRecorder()]):
        trainer = ReducibleLossTraining(build(), holdout=(X, Y), seed=1)
        trainer.fit(X, Y, batch_size=48, verbose=0, class_weight={0: 3.0, 1: 1.0, 2: 1.0}, callbacks=callbacks)
    assert seen == ["(True, True, True)"] * 2


def test_a_holdout_set_is_checked_before_training():
    model, begun = build(), []
    callback = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: begun.append(1))
    with pytest.raises(ValueError, match="cardinality"):
        ReducibleLossTraining(model, holdout=(X[:20], Y[:21])).fit(X, Y, verbose=0, callbacks=[callback])
    assert begun == []


def test_a_trainer_shows_the_shapes_of_arrays_and_not_their_numbers():
    shown = repr(ReducibleLossTraining(build(), holdout=(X, Y)))
    assert "holdout=(<array of shape (96, 4)>, <array of shape (96,)>)" in shown


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(presample=0.5), "`presample` must be.*presample=0.5"),
        (dict(copy_epochs=0), "`copy_epochs` must be"),
        (dict(irreducible_loss=np.array([1.0, np.nan])), "one finite number for each row"),
        (dict(irreducible_loss=np.zeros((4, 2))), r"shape \(4, 2\)"),
        (dict(holdout=X), "`holdout` must be a tuple"),
        (dict(holdout=(X, Y), irreducible_loss=np.zeros(ROWS)), "only one of"),
    ],
)
@pytest.mark.fast
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ReducibleLossTraining(build(), **options)


def test_irreducible_losses_of_another_number_of_rows_and_streams_are_refused_before_training():
    model = build()
    before = model.get_weights()
    with pytest.raises(ValueError, match="Received: 5 numbers for 96 rows"):
        ReducibleLossTraining(model, irreducible_loss=np.zeros(5)).fit(X, Y, batch_size=BATCH, verbose=0)
    with pytest.raises(ValueError, match="read by index"):
        ReducibleLossTraining(model).fit(Stream(X, Y, BATCH), verbose=0)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
