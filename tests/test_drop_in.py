"""The swap, as a table: every case by `model.fit` and by the trainer, closed (equal, bit for bit) and open."""

import numpy as np
import pytest
from drop_in_cases import CASES, ROWS, SWITCHED_OFF, Plain, cases, state_of_the_world, train

# Plain `fit` says so too, in the case of fewer steps an epoch than there are batches.
pytestmark = pytest.mark.filterwarnings("ignore:Your input ran out of data")


@pytest.fixture(scope="module", params=cases(CASES))
def plain(request, tmp_path_factory):
    return Plain(request.param, CASES[request.param][1](tmp_path_factory.mktemp("data")))


@pytest.mark.parametrize("plain", cases(SWITCHED_OFF), indirect=True, scope="module")
def test_switched_off_training_equals_model_fit_bit_for_bit(plain):
    trained, history, called = train(plain.name, plain.arrays, float("inf"))
    assert state_of_the_world() == plain.world
    plain.assert_equals(trained)
    assert {key: history[key] for key in plain.history} == plain.history and called == plain.called


def test_with_a_closed_gate_that_is_probed_training_equals_model_fit(plain):
    trained, history, called = train(plain.name, plain.arrays, 1e9)
    plain.assert_equals(trained)
    assert {key: history[key] for key in plain.history} == plain.history and called == plain.called
    assert np.isfinite(history["tau"]).all() and history["importance"] == [0.0] * len(history["tau"])


def test_with_an_open_gate_training_takes_the_steps_of_model_fit_and_the_loss_falls(plain):
    trained, history, called = train(plain.name, plain.arrays, 0)
    if plain.name != "half precision":  # there an overflow skips a step, and not the same ones
        assert int(trained.optimizer.iterations) == plain.steps
    assert set(history) == set(plain.history) | {"score", "tau", "importance"}
    assert called == plain.called
    assert history["importance"] == [1.0] * len(plain.history["loss"])
    assert np.isfinite(history["loss"]).all() and history["loss"][-1] < history["loss"][0]
    assert min(history["tau"]) >= 1.0
    assert trained.train_function is None


TOLD = [
    "lazily built",
    "two outputs, one weight",
    "dict inputs",
    "class weights, split",
    "several steps",
    "xla",
    "xla, several steps",
    "eager",
    "more steps than batches",
    "weights by output",
    "sparse tensors",
    "ragged",
    "texts",
]


@pytest.mark.parametrize("plain", cases(TOLD), indirect=True, scope="module")
def test_with_a_listener_to_rows_and_a_closed_gate_training_equals_model_fit(plain):
    told = []
    trained, history, called = train(
        plain.name,
        plain.arrays,
        1e9,
        on_sample=lambda sampler, indices, weights, scores: told.append(indices),
    )
    plain.assert_equals(trained)
    assert {key: history[key] for key in plain.history} == plain.history and called == plain.called
    assert len(told) == int(trained.optimizer.iterations)
    rows = int(ROWS * (1 - CASES[plain.name][2].get("validation_split", 0)))
    np.testing.assert_array_equal(np.sort(np.concatenate(told)), np.repeat(np.arange(rows), 3))
