"""The cost of a step, by arithmetic and by a clock that the tests set."""

import warnings

import keras
import numpy as np
import pytest

from importance_sampling.conditions import Cost, GainCondition, GateContext, MeasuredCost, Signals
from importance_sampling.training import ImportanceTraining


class SetClock:
    """A clock that returns the time that a test has set."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def timed():
    clock = SetClock()
    cost = MeasuredCost(clock)

    def call(seconds, is_open=False, steps=1, scored=0.0, times=1):
        for _ in range(times):
            clock.now += seconds
            cost.stop(is_open, steps, scored)

    call(99.0)  # the start of the first call is not known
    call(50.0)  # the second call includes tracing
    return cost, call


def test_by_arithmetic_a_scored_batch_costs_a_third_of_a_uniform_step():
    assert Cost()(0.0) == 1.0
    assert Cost()(1.0) == pytest.approx(4 / 3)
    assert Cost()(5.0) == pytest.approx(8 / 3)


def test_the_cost_is_by_arithmetic_until_five_uniform_steps_have_been_timed(timed):
    cost, call = timed
    call(2.0, times=4)
    assert cost(3.0) == 2.0
    call(2.0, is_open=True, times=9)
    assert cost(3.0) == 2.0  # no uniform steps to compare with
    call(2.0)
    assert cost(3.0) == 1.0 + 3 / 3 and cost(0.0) == 1.0  # importance steps took as long as uniform ones


def test_importance_steps_without_scoring_are_compared_with_uniform_steps(timed):
    cost, call = timed
    call(2.0, times=7)
    call(40.0, is_open=True)  # includes tracing
    call(3.0, is_open=True, times=5)
    assert cost(0.0) == 1.5
    assert cost(3.0) == 1.5 + 1  # scoring has not been timed


def test_the_cost_of_a_pool_is_the_additional_duration_of_its_call(timed):
    cost, call = timed
    call(2.0, times=7)
    call(40.0, is_open=True, scored=3.0)
    call(5.0, is_open=True, scored=3.0, times=5)  # 3 s for 3 batches, half a step each
    assert cost(3.0) == 2.5 and cost(5.0) == 3.5


def test_probes_time_scoring_before_the_first_pool(timed):
    cost, call = timed
    call(2.0, times=7)
    call(30.0, scored=1.0)
    call(2.5, scored=1.0, times=2)
    assert cost(4.0) == 1.0 + 4 * 0.25
    call(40.0, is_open=True, scored=4.0)
    call(4.0, is_open=True, scored=4.0)
    assert cost(4.0) == 2.0  # the pool's duration replaces that of probes


def test_a_probe_before_the_first_uniform_steps_counts_as_the_first_probe(timed):
    cost, call = timed
    call(30.0, scored=1.0)
    call(2.0, times=7)
    assert cost(3.0) == 2.0
    call(2.5, scored=1.0)
    assert cost(4.0) == 1.0 + 4 * 0.25


def test_the_scoring_of_an_epoch_is_separated_from_the_step_of_the_same_call(timed):
    cost, call = timed
    call(2.0, times=7)
    call(90.0, is_open=True, scored=10.0)
    call(3.0, is_open=True, times=6)
    call(3.0 + 10.0, is_open=True, scored=10.0)
    assert cost(1.0) == 1.5 + 0.5


def test_the_duration_of_an_execution_is_divided_by_its_steps(timed):
    cost, call = timed
    call(8.0, steps=4, times=7)
    call(9.0, is_open=True, steps=4, times=1)
    call(12.0, is_open=True, steps=4, times=6)
    assert cost(0.0) == 1.5


def test_the_duration_excludes_pauses_and_a_single_slow_call_has_no_effect(timed):
    cost, call = timed
    call(2.0, times=7)
    cost.pause()
    call(1000.0)
    call(100.0, times=2)
    call(30.0, is_open=True)
    call(2.0, is_open=True, times=5)
    assert cost(0.0) == 1.0


def test_a_call_after_a_pause_is_timed_from_its_start():
    clock = SetClock()
    cost = MeasuredCost(clock)
    for _ in range(7):  # as in epochs of one call
        cost.pause()
        clock.now += 1000.0
        cost.start()
        clock.now += 2.0
        cost.stop(False, 1, 0.0)
    clock.now += 1.0
    cost.start()
    clock.now += 3.0
    cost.stop(True, 1, 0.0)
    for _ in range(5):  # the time between two calls counts as part of the second
        clock.now += 1.0
        cost.start()
        clock.now += 3.0
        cost.stop(True, 1, 0.0)
    assert cost(0.0) == 2.0


def test_a_gate_is_closed_until_the_cost_has_been_measured():
    gate, signals = GainCondition(), Signals(2.0, 2.9, float("nan"), 1.0)
    assert not gate.observe(signals, GateContext(2.0, cost_is_known=False))
    assert gate.explain(signals) == "variance gain 2.90, cost 2.00 (not measured yet)"
    gate.observe(signals, GateContext(2.0, cost_is_measured=True))
    assert gate.explain(signals) == "variance gain 2.90, cost 2.00 (measured)"
    assert gate.observe(signals, GateContext(2.0))
    assert not gate.observe(signals, GateContext(2.0, cost_is_known=False))  # also if it was restored as open


def test_costs_due_at_the_start_of_an_epoch_are_shared_by_the_steps_left():
    ahead = GateContext(cost=1.5, is_paid_in_advance=True)
    assert ahead.opening_cost == ahead._replace(epochs_left=1.0).opening_cost == 1.5
    assert ahead._replace(epochs_left=0.25).opening_cost == 3.0
    assert ahead._replace(epochs_left=0.0).opening_cost == float("inf")
    assert GateContext(cost=1.5, epochs_left=0.25).opening_cost == 1.5  # the cost of pools is due in every step
    gate, signals = GainCondition(), Signals(2.0, 2.9, float("nan"), 1.0)
    assert not gate.observe(signals, ahead._replace(epochs_left=0.25))
    assert gate.explain(signals) == "variance gain 2.90, cost 1.50, 0.25 epochs left"
    assert gate.observe(signals, ahead._replace(epochs_left=0.5))
    assert gate.observe(signals, ahead._replace(epochs_left=0.1))  # an open gate has paid it


def hard_few():
    """Return a model and data of which 30 of 640 rows are hard and the others are learnt soon."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((640, 4)).astype("float32")
    y = (x[:, 0] > 0).astype("float32")
    y[:30] = 1 - y[:30]
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.3), "binary_crossentropy")
    return model, x, y


@pytest.mark.parametrize(("slow", "opens"), [("scoring", False), ("nothing", True)])
def test_the_default_gate_uses_the_measured_cost(slow, opens, monkeypatch):
    model, x, y = hard_few()
    ticks = MeasuredCost.stop

    def stop(self, is_importance, steps, scored):
        clock.now += steps + (20.0 if slow == "scoring" else 0.01) * scored
        ticks(self, is_importance, steps, scored)

    clock = SetClock()
    monkeypatch.setattr(MeasuredCost, "__init__", lambda self, real=MeasuredCost.__init__: real(self, clock))
    monkeypatch.setattr(MeasuredCost, "stop", stop)
    trainer = ImportanceTraining(model, sampler="pool", cost="measured")
    trainer.fit(x, y, batch_size=16, epochs=4, verbose=0)
    assert (trainer.importance_steps > 0) == opens
    assert trainer.condition.context.cost == pytest.approx(61.0 if slow == "scoring" else 1.03, rel=1e-3)
    assert f"cost {trainer.condition.context.cost:.2f} (measured)" in trainer.summary()


def test_a_gate_restored_as_open_measures_the_cost_first(tmp_path):
    model, x, y = hard_few()
    trainer = ImportanceTraining(model, sampler="pool", cost="measured")
    trainer.fit(x, y, batch_size=16, epochs=3, verbose=0)
    trainer.condition.restore(True)
    trainer.fit(x, y, batch_size=20, epochs=3, verbose=0)
    (steps,) = (steps for steps in trainer._compiled.strategies.values() if steps.batch_size == 20)
    assert steps.cost.is_known


@pytest.mark.parametrize("steps_per_epoch", [None, 8])
def test_the_gate_receives_the_number_of_epochs_left(steps_per_epoch):
    model, x, y = hard_few()
    trainer, seen = ImportanceTraining(model), []
    observe = trainer.condition.observe

    def watch(signals, context=None):
        seen.append((trainer._state.counters.steps, context.epochs_left))
        return observe(signals, context)

    trainer.condition.observe = watch
    epochs = 6 if steps_per_epoch is None else 20
    trainer.fit(x, y, batch_size=16, epochs=epochs, initial_epoch=2, steps_per_epoch=steps_per_epoch, verbose=0)
    # An epoch is 40 batches; there are 160 or 144 steps. An open gate decides after a step, before it is counted.
    total = (epochs - 2) * (steps_per_epoch or 40)
    assert len(seen) > 4
    assert all(left == pytest.approx((total - steps) / 40, abs=1e-6) for steps, left in seen)


def test_the_cost_is_by_arithmetic_by_default_and_by_the_clock_if_measured():
    model, x, y = hard_few()
    assert ImportanceTraining(model).cost == "arithmetic"
    for sampler in ("pool", "reshuffle"):
        trainer = ImportanceTraining(model, sampler=sampler, cost="measured")
        trainer.fit(x, y, batch_size=16, epochs=3, verbose=0)
        assert trainer.condition.context.cost not in (4 / 3, 2.0)


def test_an_unused_cost_warns_and_an_unknown_cost_is_refused():
    model, *_ = hard_few()
    with pytest.raises(ValueError, match=r"`cost` must be one of .*arithmetic.*measured.* Received: cost='mine'"):
        ImportanceTraining(model, cost="mine")
    with pytest.warns(UserWarning, match="With `tau_th` the gate doesn't use the cost of a step"):
        ImportanceTraining(model, cost="measured", tau_th=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImportanceTraining(model, cost="measured")
