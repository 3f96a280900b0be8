"""The state of a trainer: averages, totals, counters, its own random stream; and how it is saved."""

import json
import random
from pathlib import Path

import keras
import numpy as np
import pytest
from frameworks import host, needs
from saved_states import read_state

from importance_sampling import ImportanceTraining
from importance_sampling.conditions import GainCondition, Signals
from importance_sampling.fit.counters import LastDecision
from importance_sampling.fit.held_out_losses import HeldOutLosses
from importance_sampling.fit.state import TrainerState
from importance_sampling.fit.state_file import load_state, save_state


def signals(*values):
    return Signals(*(np.float32(value) for value in values))


def draw(state):
    return keras.ops.convert_to_numpy(keras.random.uniform((3,), seed=state.generator))


def test_averages_start_at_the_first_value_and_decay_by_the_steps_elapsed():
    state = TrainerState(1)
    assert np.isnan(state.signals).all()
    state.update_averages(signals(2, 3, np.nan, 0), 1)
    np.testing.assert_array_equal(state.signals, [2, 3, np.nan, 0])
    state.update_averages(signals(4, np.nan, np.nan, 1), 3)
    # 0.9^3 = 0.729 is kept; what isn't measured stays.
    np.testing.assert_allclose(state.signals, [0.729 * 2 + 0.271 * 4, 3, np.nan, 0.271], rtol=1e-5)


def test_the_discount_is_the_harmonic_mean_of_at_least_17_steps_that_measured_it():
    state = TrainerState(1)
    for discount in [0.5, 1.0] * 8:
        state.update_averages(signals(2, 3, discount, 0), 1)
    state.update_averages(signals(2, 3, np.nan, 0), 1)  # a step that doesn't measure it
    assert np.isnan(state.signals.discount)  # after 16
    state.update_averages(signals(2, 3, 0.5, 0), 1)
    # The last step counts once, the one before it 0.99 times, the first 0.99^16 times.
    decays = 0.99 ** np.arange(16, -1, -1)
    expected = decays.sum() / (decays[0::2].sum() / 0.5 + decays[1::2].sum())
    assert state.signals.discount == pytest.approx(expected, rel=1e-5)
    state.reset_discount()
    assert np.isnan(state.signals.discount) and state.signals.gain == pytest.approx(3)


def test_totals_count_steps_effective_sizes_the_largest_weight_and_unusable_scores():
    state = TrainerState(1)
    # (sum w)^2 / sum(w^2): 16 / 16 = 1 for a single one, 4 for four equal ones.
    state.record_weights(keras.ops.array([0.0, 4.0, 0.0, 0.0]), True)
    state.record_weights(keras.ops.array([1.0, 1.0, 1.0, 1.0]), False)
    np.testing.assert_allclose(state.totals.value, [2, 5, 4, 1])
    state.counters.steps = 9
    state.reset_totals()
    np.testing.assert_array_equal(state.totals.value, np.zeros(4))
    assert state.counters.steps == 9


def test_a_saved_state_is_restored_with_its_random_stream(tmp_path):
    state = TrainerState(5, momentum=0.8)
    draw(state)
    for _ in range(17):
        state.update_averages(signals(2, 3, 0.75, 0), 1)
    state.record_weights(keras.ops.array([1.0, 2.0]), False)
    state.add_steps(7, 30.0, batches_per_pass=2)
    state.counters.add_importance(4, 3)
    state.decision.gate_is_open = True
    state.losses.record_validation(0.5, 0.4, True, True)
    save_state(state, tmp_path / "state.npz")
    other = TrainerState(6)
    load_state(other, tmp_path / "state.npz")
    assert (other.counters, other.decision, other.losses) == (state.counters, state.decision, state.losses)
    assert (other.counters.importance_steps, other.counters.last_importance_step) == (3, 11)
    assert (other.decision.steps_since_probe, other.losses.min_validation_loss) == (7, 0.5)
    assert (other.seed, other.momentum) == (5, 0.8)
    np.testing.assert_array_equal(other.signals, state.signals)
    assert other.signals.discount == pytest.approx(0.75)
    np.testing.assert_array_equal(host(other.totals), host(state.totals))
    np.testing.assert_array_equal(draw(other), draw(state))


@pytest.mark.parametrize("name", ["state", "state.npz", "ünïcode '\"#%&{epoch}*?[a]\n .npz", "-", "x" * 200])
def test_a_state_is_written_to_exactly_the_path_that_was_given(tmp_path, name):
    save_state(TrainerState(5), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    state = TrainerState(6)
    load_state(state, str(tmp_path / name))
    assert state.seed == 5


def test_an_incomplete_write_of_a_state_leaves_the_former_file(tmp_path):
    resource = pytest.importorskip("resource")
    save_state(TrainerState(5), tmp_path / "state.npz")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_state(TrainerState(6), tmp_path / "state.npz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]
    state = TrainerState(7)
    load_state(state, tmp_path / "state.npz")
    assert state.seed == 5


WRONG = {
    "text": lambda path: path.write_text("not a state"),
    "empty": lambda path: path.write_bytes(b""),
    "a cut archive": lambda path: path.write_bytes(b"PK\x03\x04 and no more"),
    "one array": lambda path: np.save(path.open("wb"), np.arange(3)),
    "other arrays": lambda path: np.savez(path.open("wb"), weights=np.arange(3)),
    "another header": lambda path: np.savez(path.open("wb"), header=np.array('{"format": 4}')),
    "no arrays": lambda path: np.savez(path.open("wb"), header=np.array('{"format": 1}')),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_files_that_are_no_states_are_refused_and_change_nothing(tmp_path, kind):
    path = tmp_path / "wrong.npz"
    WRONG[kind](path)
    state = TrainerState(5)
    state.update_averages(signals(2, 3, np.nan, 0), 1)
    with pytest.raises(
        ValueError, match=r"must be a file that `save_state` of version 1\.0 or later wrote.*wrong\.npz"
    ):
        load_state(state, path)
    assert state.seed == 5
    np.testing.assert_array_equal(state.signals, [2, 3, np.nan, 0])


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_the_error_for_a_file_of_a_later_version_asks_to_upgrade(tmp_path):
    np.savez((tmp_path / "later.npz").open("wb"), header=np.array('{"format": 99}'))
    with pytest.raises(ValueError, match=r"of this version.*or an earlier one.*later\.npz', of format 99"):
        load_state(TrainerState(5), tmp_path / "later.npz")


def test_a_state_of_another_step_of_the_optimizer_is_refused_and_one_without_the_step_is_not(tmp_path):
    save_state(TrainerState(5), tmp_path / "state.npz", 8)
    assert (
        load_state(TrainerState(6), tmp_path / "state.npz", 8)
        == load_state(TrainerState(6), tmp_path / "state.npz")
        == 8
    )
    with pytest.raises(ValueError, match=r"with the model, after 9 steps.*state\.npz', saved after 8 steps"):
        load_state(TrainerState(6), tmp_path / "state.npz", 9)
    assert load_state(TrainerState(6), STATE_OF_1_0_0, 9) is None


def test_a_missing_file_raises_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npz"):
        load_state(TrainerState(5), tmp_path / "nowhere.npz")


def test_without_a_seed_the_state_follows_pythons_random_and_does_not_advance_it():
    random.seed(11)
    before = random.getstate()
    first, second = TrainerState(None), TrainerState(None)
    assert random.getstate() == before
    assert first.seed == second.seed
    np.testing.assert_array_equal(draw(first), draw(second))
    random.seed(12)
    assert TrainerState(None).seed != first.seed


def test_a_given_seed_is_used_also_if_it_is_zero():
    assert TrainerState(0).seed == 0
    assert (draw(TrainerState(0)) == draw(TrainerState(0))).all()
    assert (draw(TrainerState(0)) != draw(TrainerState(1))).any()


# Written by version 1.0.0 after two epochs of the training below, with seed 5.
STATE_OF_1_0_0 = Path(__file__).parent / "data" / "state_of_1.0.0.npz"
WEIGHTS_OF_1_0_0 = (
    [
        [0.5459717512130737, -0.8365365862846375, 0.2108183205127716],
        [0.4120176136493683, 0.6818585991859436, 0.7495262622833252],
        [0.7372709512710571, -0.5959917902946472, -0.4216696321964264],
        [-0.23774130642414093, 0.06211385875940323, -0.7808476686477661],
    ],
    [-0.0065635028295218945, -0.01158673595637083, 0.018150238320231438],
)
# What 1.0.0 made of them in two more epochs.
CONTINUED_BY_1_0_0 = (
    [
        [0.5648933053016663, -0.835782527923584, 0.19114263355731964],
        [0.4133971631526947, 0.7030816674232483, 0.7269237041473389],
        [0.699942409992218, -0.6048905849456787, -0.3754425346851349],
        [-0.24690304696559906, 0.04622667282819748, -0.7557986378669739],
    ],
    [-0.012368648312985897, -0.0225618127733469, 0.034930456429719925],
)


@needs("weights of 1.0.0")
def test_a_state_that_version_1_0_0_saved_is_continued_with_the_same_weights():
    x = np.random.default_rng(7).normal(size=(48, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.set_weights([np.array(weights, "float32") for weights in WEIGHTS_OF_1_0_0])
    trainer = ImportanceTraining(model, tau_th=0.0, sampler="reshuffle", seed=9)
    trainer.load_state(STATE_OF_1_0_0)
    trainer.fit(x, x[:, :3].argmax(1), batch_size=8, epochs=2, verbose=0)
    for value, expected in zip(model.get_weights(), CONTINUED_BY_1_0_0, strict=True):
        np.testing.assert_allclose(value, np.array(expected, "float32"), rtol=1e-5, atol=1e-6)
    assert (trainer.importance_steps, trainer.forward_equivalents) == (24, 96.0)


def test_losses_are_saved_for_each_group_of_samples_and_read_as_earlier_files_have_them(tmp_path):
    state = TrainerState(1)
    random = np.random.default_rng(0)
    for steps in range(17, 102, 17):
        state.losses.record_within_epoch("training samples", *random.exponential(1.0, (2, 512)), steps)
    save_state(state, tmp_path / "state.npz")
    loaded = TrainerState(2)
    load_state(loaded, tmp_path / "state.npz")
    assert loaded.losses == state.losses
    assert len(state.losses.within_epochs.held_out.recent) == 20

    header, arrays = read_state(tmp_path / "state.npz")
    mean = state.losses.within_epochs.held_out.mean
    header["counters"]["within_epochs"]["held_out"]["recent"] = mean  # one number
    np.savez(tmp_path / "earlier.npz", header=np.array(json.dumps(header)), **arrays)
    load_state(loaded, tmp_path / "earlier.npz")
    held_out = loaded.losses.within_epochs.held_out
    assert held_out.mean == pytest.approx(mean)
    held_out.record(np.full(20, mean))
    assert held_out.mean == pytest.approx(mean) and len(held_out.recent) == 20


def test_losses_of_other_held_out_samples_than_before_begin_a_new_series():
    losses = HeldOutLosses()
    losses.begin("training samples")
    for loss in (4.0, 3.0, 2.5, 2.0):
        losses.begin("training samples")
        losses.within_epochs.record(loss, 0.75 * loss, ratio_error=0.1)
    within_epochs = losses.within_epochs
    assert within_epochs.held_out.count == 4 and within_epochs.held_out.change < 0
    assert within_epochs.ratio == pytest.approx(0.75 * np.exp(0.1))
    within_epochs.record(2.0, 1.5, ratio_error=800.0)
    assert within_epochs.ratio == 0  # an error as large says nothing
    within_epochs.record(2.0, 0.0)
    losses.begin("validation data")
    assert losses.within_epochs.held_out.count == 0


def test_a_learning_rate_between_decisions_does_not_change_the_peak():
    decision = LastDecision(peak_learning_rate=0.2)
    assert decision.relative_learning_rate(0.4) == 1.0 and decision.relative_learning_rate(0.1) == 0.5
    assert decision.peak_learning_rate == 0.2


def test_a_decision_begins_the_count_of_steps_until_the_next_and_counts_decisions_that_left_the_gate_closed():
    decision, gate = LastDecision(steps_since_probe=17), GainCondition()
    for tau, closed in ((1.5, 1), (float("nan"), 2)):
        decision.record(gate, tau, 0.5)
        assert (decision.steps_since_probe, decision.closed_probes, decision.epochs_at_decision) == (0, closed, 0.5)
        assert decision.tau == (1.5 if closed == 1 else 1.0)
    gate.restore_decision(True, False)
    decision.record(gate, 2.0, 1.5)
    assert (decision.gate_is_open, decision.gate_rescores, decision.closed_probes) == (True, False, 0)
    other = GainCondition()
    decision.apply_to(other)
    assert other.satisfied and not other.rescores
