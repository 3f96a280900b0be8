"""What a trainer remembers: averages, totals, its own random stream; and how it is saved."""

import random

import keras
import numpy as np
import pytest

from importance_sampling.conditions import Signals
from importance_sampling.state import TrainerState


def signals(*values):
    return Signals(*(np.float32(value) for value in values))


def draw(state):
    return keras.ops.convert_to_numpy(keras.random.uniform((3,), seed=state.generator))


def test_averages_start_at_the_first_value_and_decay_by_the_steps_elapsed():
    state = TrainerState(1)
    assert np.isnan(state.signals).all()
    state.observe(signals(2, 3, np.nan, 0), 1)
    np.testing.assert_array_equal(state.signals, [2, 3, np.nan, 0])
    state.observe(signals(4, np.nan, 0.5, 1), 3)
    # 0.9^3 = 0.729 is kept; what isn't measured stays.
    np.testing.assert_allclose(state.signals, [0.729 * 2 + 0.271 * 4, 3, 0.5, 0.271], rtol=1e-5)


def test_totals_count_steps_effective_sizes_the_largest_weight_and_useless_scores():
    state = TrainerState(1)
    # (sum w)^2 / sum(w^2): 16 / 16 = 1 for a single one, 4 for four equal ones.
    state.count(keras.ops.array([0.0, 4.0, 0.0, 0.0]), True)
    state.count(keras.ops.array([1.0, 1.0, 1.0, 1.0]), False)
    np.testing.assert_allclose(state.totals.value, [2, 5, 4, 1])
    state.counters.update(opened_at=3, steps=9)
    state.begin()
    np.testing.assert_array_equal(state.totals.value, np.zeros(4))
    assert state.counters["opened_at"] == -1 and state.counters["steps"] == 9


def test_a_saved_state_comes_back_and_goes_on_with_its_random_stream(tmp_path):
    state = TrainerState(5, momentum=0.8)
    draw(state)
    state.observe(signals(2, 3, np.nan, 0), 1)
    state.count(keras.ops.array([1.0, 2.0]), False)
    state.counters.update(steps=7, open_steps=4, satisfied=1)
    state.save(tmp_path / "state.npz")
    other = TrainerState(6)
    other.load(tmp_path / "state.npz")
    assert other.counters == state.counters
    assert (other.seed, other.momentum) == (5, 0.8)
    np.testing.assert_array_equal(other.signals, state.signals)
    np.testing.assert_array_equal(other.totals.value, state.totals.value)
    np.testing.assert_array_equal(draw(other), draw(state))


def test_a_state_is_written_to_the_very_path_that_was_given(tmp_path):
    TrainerState(5).save(tmp_path / "state")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    TrainerState(6).load(str(tmp_path / "state"))


WRONG = {
    "text": lambda path: path.write_text("not a state"),
    "empty": lambda path: path.write_bytes(b""),
    "a cut archive": lambda path: path.write_bytes(b"PK\x03\x04 and no more"),
    "one array": lambda path: np.save(path.open("wb"), np.arange(3)),
    "other arrays": lambda path: np.savez(path.open("wb"), weights=np.arange(3)),
    "another header": lambda path: np.savez(path.open("wb"), header=np.array('{"format": 99}')),
    "no arrays": lambda path: np.savez(path.open("wb"), header=np.array('{"format": 1}')),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_files_of_another_kind_are_refused_and_change_nothing(tmp_path, kind):
    path = tmp_path / "wrong.npz"
    WRONG[kind](path)
    state = TrainerState(5)
    state.observe(signals(2, 3, 1, 0), 1)
    with pytest.raises(ValueError, match=r"`path` must be a file that `save_state` of this version wrote.*wrong\.npz"):
        state.load(path)
    assert state.seed == 5
    np.testing.assert_array_equal(state.signals, [2, 3, 1, 0])


def test_a_file_that_is_not_there_is_not_called_a_wrong_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npz"):
        TrainerState(5).load(tmp_path / "nowhere.npz")


def test_without_a_seed_pythons_random_is_read_and_not_moved():
    random.seed(11)
    before = random.getstate()
    first, second = TrainerState(None), TrainerState(None)
    assert random.getstate() == before
    assert first.seed == second.seed
    np.testing.assert_array_equal(draw(first), draw(second))
    random.seed(12)
    assert TrainerState(None).seed != first.seed


def test_a_seed_is_used_as_it_is_even_zero():
    assert TrainerState(0).seed == 0
    assert (draw(TrainerState(0)) == draw(TrainerState(0))).all()
    assert (draw(TrainerState(0)) != draw(TrainerState(1))).any()
