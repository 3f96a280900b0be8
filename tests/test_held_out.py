"""Held-out samples: importance steps leave them out, and the default gate closes once their loss rises."""

import re
import types

import keras
import numpy as np
import pytest
from saved_states import counters_of

from importance_sampling import ImportanceTraining
from importance_sampling.conditions import GainCondition, GateContext, Signals
from importance_sampling.data.arrays import ArraySource
from importance_sampling.datasets import InMemoryDataset
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.gating import Gating
from importance_sampling.fit.held_out_losses import HeldOutLosses
from importance_sampling.fit.progress import Progress
from importance_sampling.fit.state import TrainerState
from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import ReshuffleSampler
from importance_sampling.strategies.held_out import compared_rows, hold_out

ROWS, BATCH_SIZE = 10000, 64
EPOCHS = 8


def build(learning_rate=0.01, features=8):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((features,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(2, "softmax")]
    )
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, EPOCHS * ROWS // BATCH_SIZE)
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy")
    return model


def data(rows=ROWS, seed=0, can_generalise=True):
    """Return inputs, and labels that follow from them; or random ones, which can only be learnt by heart."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 8 if can_generalise else 200)).astype("float32")
    y = x[:, 0] * x[:, 1] + x[:, 2] > 0 if can_generalise else random.random(rows) < 0.1
    return x, y.astype("int64")


def trained(x, y, epochs=EPOCHS, model=None, **arguments):
    """Return a trainer, its History, and the rows of its uniform and of its importance steps."""
    trainer, uniform, importance = ImportanceTraining(model or build(), seed=5), [], []

    def on_sample(sampler, indices, weights, scores):
        is_uniform = np.isnan(scores).all() and not sampler.is_measuring
        (uniform if is_uniform else importance).append(indices)

    arguments = dict(batch_size=BATCH_SIZE, epochs=epochs, verbose=0, on_sample=on_sample) | arguments
    history = trainer.fit(x, y, **arguments)
    return trainer, history.history, np.concatenate(uniform), np.concatenate(importance or [np.zeros(0, "int64")])


@pytest.mark.fast
def test_two_per_cent_of_the_samples_are_held_out_at_least_100_and_at_most_512():
    assert [len(hold_out(size, 0).samples) for size in (1, 4999, 5000, 10000, 10**6)] == [0, 0, 100, 200, 512]


@pytest.mark.fast
def test_the_held_out_samples_are_a_uniform_choice_that_depends_on_the_seed_alone():
    chosen = np.concatenate([hold_out(5000, seed).samples for seed in range(400)])
    counts = np.bincount(chosen, minlength=5000)
    assert np.array_equal(hold_out(5000, 7), hold_out(5000, 7))
    assert all(len(np.unique(np.concatenate(hold_out(5000, seed)))) == 200 for seed in range(5))
    # 400 draws of 100 out of 5000: 8 times each, with a variance of 8 * 0.98.
    assert abs(counts[:2500].sum() - 20000) < 5 * np.sqrt(40000 * 0.25)
    assert counts.max() < 8 + 6 * np.sqrt(7.84)


@pytest.mark.fast
def test_a_reshuffled_epoch_leaves_held_out_samples_out_and_its_weights_represent_the_others():
    scores, size = np.array([1.0, 8.0, 2.0, 5.0, 4.0, 0.5]), 6
    x, y = np.zeros((size, 1)), np.zeros(size)
    sampler = ReshuffleSampler(InMemoryDataset(x, y, x, y, categorical=False), UNBIASED, alpha=0.2, seed=0)
    sampler.held_out = [1, 4]
    sampler.draw(size)
    sampler.update(np.arange(size), scores)
    totals, epochs = np.zeros(size), 4000
    for _ in range(epochs):
        drawn = sampler.draw(size)
        np.add.at(totals, drawn.indices, drawn.weights)
    assert not totals[[1, 4]].any()
    # Each of the four others has a total weight of size / 4 an epoch; no weight exceeds 1 / alpha.
    expected = np.array([1.5, 0, 1.5, 1.5, 0, 1.5])
    np.testing.assert_allclose(totals / epochs, expected, atol=5 * 5.0 * np.sqrt(0.25 / epochs))


def test_without_validation_data_importance_steps_leave_the_held_out_samples_out_in_the_first_half_of_a_fit():
    trainer, history, uniform, importance = trained(*data(), epochs=8)
    held_out = hold_out(ROWS, 5).samples
    steps_per_epoch = -(-ROWS // BATCH_SIZE)
    assert history["importance"][2:] == [1.0] * 6  # one epoch only measures scores
    first_half = importance[: 4 * steps_per_epoch * BATCH_SIZE - len(uniform)]
    assert not np.isin(first_half, held_out).any() and len(np.unique(first_half)) > 0.9 * ROWS
    assert np.isin(held_out, importance).mean() > 0.5  # in the second half
    assert np.isin(uniform, held_out).any()  # before the gate opened
    assert re.search("  held-out training samples +200  ", trainer.summary())


def test_held_out_samples_are_not_held_out_again_once_the_model_has_been_trained_on_them():
    x, y = data()
    trainer, *_ = trained(x, y)
    indices = []
    arguments = dict(on_sample=lambda sampler, rows, weights, scores: indices.append(rows))
    history = trainer.fit(x, y, batch_size=BATCH_SIZE, epochs=2, verbose=0, **arguments)
    assert history.history["importance"] == [1.0, 1.0]  # by the losses measured before
    assert np.isin(hold_out(ROWS, 5).samples, np.concatenate(indices)).mean() > 0.3
    assert "  held-out training samples " not in trainer.summary()


def test_with_validation_data_no_training_sample_is_held_out():
    x, y = data()
    trainer, history, _, importance = trained(x, y, epochs=4, validation_data=data(500, seed=1))
    assert history["importance"][2] == 1.0
    assert np.isin(hold_out(ROWS, 5).samples, importance).mean() > 0.9
    assert "  held-out training samples " not in trainer.summary()


@pytest.mark.parametrize("has_validation_data", [False, True])
def test_the_gate_stays_open_while_training_generalises_and_closes_when_labels_are_learnt_by_heart(has_validation_data):
    shares, losses = {}, {}
    for can_generalise in (True, False):
        arguments = {}
        if has_validation_data:
            arguments = dict(validation_data=data(1000, seed=1, can_generalise=can_generalise))
        model = build(features=8 if can_generalise else 200)
        _, history, *_ = trained(*data(can_generalise=can_generalise), model=model, **arguments)
        shares[can_generalise], losses[can_generalise] = history["importance"], history["loss"]
    # Validation samples are few, too, and some measurements of them are noisy.
    assert np.mean(shares[True][2:]) > (0.5 if has_validation_data else 0.999)
    assert losses[True][-1] < 0.5 * losses[True][1]
    assert losses[False][-1] < losses[False][1]  # the training loss alone doesn't show it
    assert 0 < sum(shares[False]) < 0.75 * sum(shares[True])
    assert has_validation_data or shares[False][-1] == 0.0  # once closed, it can open again only with validation data


def test_data_too_small_to_hold_samples_out_are_trained_uniformly_at_a_falling_rate_unless_there_are_validation_data():
    x, y = data(rows=1600)
    trainer, history, *_ = trained(x, y, epochs=4)
    assert history["importance"] == [0.0] * 4
    assert "Pass validation data to `fit`" in trainer.summary()
    _, history, *_ = trained(x, y, epochs=4, validation_split=0.25)
    assert history["importance"][-1] == 1.0


def test_a_saved_state_has_the_losses_of_the_held_out_samples(tmp_path):
    x, y = data()
    trainer, *_ = trained(x, y)  # after the first half, they aren't measured any more
    trainer.save_state(tmp_path / "state.npz")
    resumed = ImportanceTraining(build(), seed=8)
    resumed.load_state(tmp_path / "state.npz")
    resumed.fit(x, y, batch_size=BATCH_SIZE, epochs=2, verbose=0)
    for name in ("held_out_change", "loss_ratio"):
        assert getattr(resumed.condition.context, name) == getattr(trainer.condition.context, name) != 0


def test_scoring_passes_and_held_out_samples_are_scored_in_the_same_fit():
    x, y = data()
    model = build()
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")  # scoring passes need a constant rate
    trainer = ImportanceTraining(model, seed=5)
    trainer.fit(x, y, batch_size=BATCH_SIZE, epochs=8, verbose=0)
    assert trainer.condition.satisfied and trainer.condition.rescores
    assert "times less gradient noise, and cost 1.3" in trainer.summary().splitlines()[0]  # not "worth"
    assert trainer.condition.context.loss_ratio > 0


def test_the_measured_losses_are_those_that_keras_reports_also_with_loss_weights():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, [keras.layers.Dense(2, "softmax")(inputs), keras.layers.Dense(1)(inputs)])
    losses = ["sparse_categorical_crossentropy", "mse"]
    model.compile(keras.optimizers.SGD(0.0), losses, loss_weights=[1.0, 0.25])  # it stays as it is
    x, y = data()
    y = [y, 10.0 * x[:, :1] ** 3]
    trainer = ImportanceTraining(model, seed=5)
    trainer.fit(x, y, batch_size=BATCH_SIZE, epochs=2, verbose=0)
    counters = counters_of(trainer)
    for name, rows in zip(("held_out", "training"), hold_out(ROWS, 5), strict=True):
        expected = model.evaluate(x[rows], [part[rows] for part in y], batch_size=200, verbose=0)[0]
        assert np.mean(counters["within_epochs"][name]["recent"]) == pytest.approx(expected, rel=1e-4)
    measurements = counters["within_epochs"]["held_out"]["count"]
    assert measurements >= 4
    # A measurement is a forward pass of 2 * 200 samples.
    assert trainer.forward_equivalents > 3 * 2 * 157 + measurements * 2 * 200 / BATCH_SIZE


@pytest.mark.parametrize(
    ("arguments", "epochs"), [(dict(epochs=8), 4), (dict(epochs=10, initial_epoch=6), 2), (dict(epochs=4), 2)]
)
def test_samples_are_held_out_in_the_first_half_of_the_epochs_of_a_fit(arguments, epochs):
    x, y = data()
    _, _, uniform, importance = trained(x, y, **arguments)
    drawn = np.isin(importance, hold_out(ROWS, 5).samples)
    first = len(uniform) + np.flatnonzero(drawn)[0]
    assert epochs * ROWS <= first < (epochs + 1.3) * ROWS


def test_after_a_fit_with_validation_data_no_training_samples_are_held_out():
    x, y = data()
    trainer, *_ = trained(x, y, epochs=3, validation_data=data(500, seed=1))
    history = trainer.fit(x, y, batch_size=BATCH_SIZE, epochs=3, verbose=0)
    assert history.history["importance"] == [1.0] * 3  # by the validation losses of before
    assert "  held-out training samples " not in trainer.summary()


def test_a_figure_that_a_callback_calls_val_loss_is_no_validation_loss():
    x, y = data()
    writes = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(val_loss=float(epoch)))
    _, history, *_ = trained(x, y, epochs=4, callbacks=[writes])
    assert history["importance"][2:] == [1.0] * 2


def test_a_resumed_fit_has_the_validation_losses_of_the_uninterrupted_one(tmp_path):
    x, y = data()
    # Unshuffled: on JAX and PyTorch, Keras shuffles the rest of the epochs in another order after a restart.
    arguments = dict(batch_size=BATCH_SIZE, epochs=4, verbose=0, shuffle=False, validation_data=data(500, seed=1))

    def counted(name, stop):
        trainer = ImportanceTraining(build(), seed=5)
        backup = keras.callbacks.BackupAndRestore(tmp_path / name, delete_checkpoint=False)
        stopping = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: 1 / (epoch != stop))
        try:
            trainer.fit(x, y, callbacks=[backup, stopping], **arguments)
        except ZeroDivisionError:
            return counted(name, None)
        counters = counters_of(trainer)
        return counters["validation"], counters["within_epochs"]

    assert counted("whole", None) == counted("stopped", 2)


def constant(learning_rate=0.0):
    """Return a model that predicts 0, whose loss is the square of the target."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(learning_rate), "mse")
    return model


def squares(rows, target):
    # A fifth of the targets are zero, so that scores are unequal; of the others the mean square is target^2.
    y = np.where(np.arange(rows) % 5, target * np.sqrt(1.25), 0.0)
    return np.ones((rows, 3), "float32"), np.random.default_rng(0).permutation(y)[:, None].astype("float32")


def trained_on_squares(*validation_weights, validation_data=None, **arguments):
    x, y = squares(2000, 2.0)
    trainer = ImportanceTraining(constant(), seed=3)
    if validation_data is None:
        validation_data = (*squares(600, 2.5), *validation_weights)
    trainer.fit(x, y, batch_size=40, epochs=3, verbose=0, validation_data=validation_data, **arguments)
    return trainer, counters_of(trainer)


@pytest.mark.parametrize(
    ("validation_weights", "arguments", "losses"),
    [
        ([], {}, (6.25, 4.0)),
        # Weights count if both have them.
        ([np.full(600, 0.5)], dict(sample_weight=np.full(2000, 3.0)), (3.125, 12.0)),
        ([], dict(sample_weight=np.full(2000, 3.0)), (6.25, 4.0)),
        ([np.full(600, 0.5)], {}, (6.25, 4.0)),
    ],
)
def test_the_losses_of_validation_and_training_samples_are_measured_within_the_epochs(
    validation_weights, arguments, losses
):
    trainer, counters = trained_on_squares(*validation_weights, **arguments)
    assert "only at the ends of epochs" not in trainer.summary()
    within_epochs = counters["within_epochs"]
    # Of each 100 samples are measured, whose squares vary by half of their mean: five standard errors.
    for name, expected in zip(("held_out", "training"), losses, strict=True):
        assert np.mean(within_epochs[name]["recent"]) == pytest.approx(expected, rel=5 * 0.5 / np.sqrt(100))
    assert within_epochs["ratio"] == pytest.approx(losses[1] / losses[0], rel=0.5)
    assert counters["validation"]["held_out"]["count"] == 3
    assert trainer.forward_equivalents > 3 * 150 + within_epochs["held_out"]["count"] * 200 / 40


@pytest.mark.parametrize(
    "validation_data",
    [
        squares(60, 2.0),  # too few
        (np.ones((600, 3)), np.full((600, 1, 1), 2.0, "float32")),  # of another shape, which Keras broadcasts
    ],
)
def test_where_validation_samples_cannot_be_compared_the_loss_that_keras_measures_counts(validation_data):
    trainer, counters = trained_on_squares(validation_data=validation_data)
    assert "The gate knew the validation loss only at the ends of epochs" in trainer.summary()
    assert counters["within_epochs"]["held_out"]["count"] == 0
    assert counters["validation"]["held_out"]["count"] == 3
    assert counters["validation"]["held_out"]["recent"] == [pytest.approx(4.0)]


@pytest.mark.fast
def test_the_rows_compared_are_chosen_at_random_and_large_rows_are_fewer():
    def rows(x, y, seed=0, wanted=50):
        training = ArraySource(({"a": np.arange(1000.0)[:, None]}, np.zeros(1000), None))
        found = compared_rows(({"a": x}, y), training, wanted, seed)
        return None if found is None else keras.ops.convert_to_numpy(found.read(np.arange(found.num_rows))[0]["a"])

    validation = -np.arange(1.0, 301.0)[:, None]
    first, second = rows(validation, np.zeros(300)), rows(validation, np.zeros(300), seed=1)
    assert first.shape == (100, 1)
    for chosen in (first, second):
        assert len(np.unique(chosen)) == 100 and (chosen[:50] < 0).all() and (chosen[50:] >= 0).all()
    assert not np.array_equal(first, second)
    assert abs(first[:50].mean() + 150.5) < 5 * 86.6 / np.sqrt(50)
    assert rows(validation[:20], np.zeros(20)).shape == (40, 1)
    assert rows(np.zeros((300, 2)), np.zeros(300)) is None  # other rows than those of the training data
    assert rows(validation.astype("int8"), np.zeros(300, "int32"))[:50].min() < -100  # other numbers
    image = np.broadcast_to(np.float32(1), (64, 2**20))
    training = ArraySource((image, np.zeros(64), None))
    assert compared_rows((image, np.zeros(64)), training, 50, 0).num_rows == 2 * 2**25 // 2**20


@pytest.mark.fast
def test_a_closed_gate_may_open_again_when_the_validation_loss_has_a_new_minimum():
    losses = HeldOutLosses()
    losses.begin("validation data")
    for loss in (1.0, 0.8, 0.9, 1.0, 1.1):  # it rises
        losses.within_epochs.record(loss, 0.4)
    losses.min_validation_loss = 0.7

    def after(loss, gate_is_open=False):
        losses.record_validation(loss, 0.5, gate_is_open, only_here=False)
        return losses.context(has_validation_data=True, are_held_out=False)

    assert after(0.75)["held_out_change"] > 0  # not a minimum
    assert after(0.65, gate_is_open=True)["held_out_change"] > 0  # an open gate has to close
    assert after(0.66)["loss_ratio"] == pytest.approx(0.4, rel=0.1)
    again = after(0.64)
    assert again["held_out_change"] <= 0 and again["loss_ratio"] == pytest.approx(0.73, rel=0.1)


@pytest.mark.fast
def test_losses_within_epochs_and_validation_losses_both_have_to_fall():
    for name in ("validation", "within_epochs"):
        losses = HeldOutLosses()
        losses.begin("validation data")
        for step in range(5):
            for series in (losses.validation, losses.within_epochs):
                rises = series is getattr(losses, name)
                series.record(1.0 + 0.1 * step * (1 if rises else -1), (0.9 if rises else 0.5) - 0.1 * step)
        context = losses.context(has_validation_data=True, are_held_out=False)
        assert context["held_out_change"] > 0
        assert context["loss_ratio"] < 0.6  # the smaller one
        assert context["generalised_share"] == pytest.approx(-1.0 if name == "within_epochs" else 1.0)


@pytest.mark.fast
def test_the_order_of_the_names_of_inputs_does_not_matter_and_other_names_cannot_be_compared():
    def found(*names):
        inputs = {name: np.full((200, 1), float(ord(name))) for name in names}
        training = ArraySource(({name: np.zeros((200, 1)) for name in "ab"}, np.zeros(200, "float32"), None))
        return compared_rows((inputs, np.ones(200, "int64")), training, 100, 0)

    rows = found("b", "a").read(np.arange(100))
    assert all((keras.ops.convert_to_numpy(rows[0][name]) == ord(name)).all() for name in "ab")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(rows[1]), 1)
    assert found("a", "c") is None


def test_validation_weights_do_not_count_beside_class_weights():
    x, y = data()
    arguments = dict(validation_data=(*data(500, seed=1), np.full(500, 1000.0)), class_weight={0: 1.0, 1: 2.0})
    trainer, *_ = trained(x, y, epochs=2, **arguments)
    assert 0 < np.mean(counters_of(trainer)["within_epochs"]["held_out"]["recent"]) < 10


@pytest.mark.fast
def test_a_validation_loss_that_is_not_finite_is_no_minimum_and_hides_none():
    losses = HeldOutLosses()
    for loss in (1.0, 0.5, float("nan"), 0.9):
        losses.record_validation(loss, 0.5, gate_is_open=False, only_here=True)
    assert losses.min_validation_loss == 0.5
    assert losses.validation.held_out.count == losses.validation.training.count == 3
    losses.begin("training samples")
    assert losses.min_validation_loss == float("inf")


@pytest.mark.fast
@pytest.mark.parametrize("steps, last, is_reset", [(50, 0, False), (199, 100, False), (200, 100, True)])
def test_a_probe_measures_the_discount_anew_once_training_is_twice_as_long(steps, last, is_reset):
    state = TrainerState(1)
    for _ in range(17):
        state.update_averages(Signals(2.0, 3.0, 0.5, 1.0), 1)
    state.counters.steps, state.counters.last_importance_step = steps, last
    model = types.SimpleNamespace(optimizer=keras.optimizers.SGD(0.1))
    strategy = types.SimpleNamespace(
        check=lambda batch: None, probe=lambda batch, steps: "scored", gate_context=GateContext
    )
    plan = FitPlan({})
    gating = Gating(model, GainCondition(), plan, state, Progress())
    assert gating.probe(strategy, ()) == "scored"
    assert np.isnan(state.signals.discount) == is_reset
    assert np.isnan(gating.signals.discount) == is_reset  # before the gate decides
