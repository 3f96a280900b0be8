"""The cost of a step, by arithmetic, and the epochs over which it is shared."""

import keras
import numpy as np
import pytest
from saved_states import counters_of

from importance_sampling.conditions import GainCondition, GateContext, Signals, step_cost
from importance_sampling.training import BiasedImportanceTraining, ImportanceTraining
from importance_sampling.training.constant import ResizedPoolTrainer


def test_a_scored_batch_costs_a_third_of_a_uniform_step():
    assert step_cost(0.0) == 1.0
    assert step_cost(1.0) == pytest.approx(4 / 3)
    assert step_cost(5.0) == pytest.approx(8 / 3)


@pytest.mark.parametrize("cost", ["arithmetic", "measured"])
@pytest.mark.slow
def test_the_argument_cost_warns_that_it_has_no_effect(cost):
    model, x, y = hard_few()
    with pytest.warns(DeprecationWarning, match="`cost` is gone .* It has no effect") as warned:
        trainer = ImportanceTraining(model, sampler="pool", cost=cost)
    assert warned[0].filename == __file__
    trainer.fit(x, y, batch_size=16, epochs=2, verbose=0)
    assert trainer.condition.context.cost == 2.0


def test_costs_due_at_the_start_of_an_epoch_are_shared_by_the_steps_left():
    ahead = GateContext(cost=1.5, is_paid_in_advance=True, held_out_change=-0.1)
    assert ahead.opening_cost == ahead._replace(epochs_left=1.0).opening_cost == 1.5
    assert ahead._replace(epochs_left=0.25).opening_cost == 3.0
    assert ahead._replace(epochs_left=0.0).opening_cost == float("inf")
    assert GateContext(cost=1.5, epochs_left=0.25).opening_cost == 1.5  # the cost of pools is due in every step
    gate, signals = GainCondition(), Signals(2.0, 2.9, float("nan"), 1.0)
    assert not gate.observe(signals, ahead._replace(epochs_left=0.25))
    assert "too late in the training to be used" in gate.explain(signals)
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


@pytest.mark.parametrize("steps_per_epoch", [None, 8])
def test_the_gate_receives_the_number_of_epochs_left(steps_per_epoch):
    model, x, y = hard_few()
    trainer, seen = ImportanceTraining(model), []
    observe = trainer.condition.observe

    def watch(signals, context=None):
        seen.append((counters_of(trainer)["steps"], context.epochs_left))
        return observe(signals, context)

    trainer.condition.observe = watch
    epochs = 6 if steps_per_epoch is None else 20
    trainer.fit(x, y, batch_size=16, epochs=epochs, initial_epoch=2, steps_per_epoch=steps_per_epoch, verbose=0)
    # An epoch is 40 batches; there are 160 or 144 steps. An open gate decides after a step, before it is counted.
    total = (epochs - 2) * (steps_per_epoch or 40)
    assert len(seen) > 4
    assert all(left == pytest.approx((total - steps) / 40, abs=1e-6) for steps, left in seen)


class Halving(ResizedPoolTrainer):
    """Draws half of a batch from a pool of two, once anything is known of the scores."""

    def __init__(self, model, tau_th):
        super().__init__(model, tau_th, "gnorm", None, None, 0.1, "systematic", 1)

    def _rows_needed(self, plan, batch_size):
        return 2 * batch_size

    def _sizes(self, vr, batch_size):
        return 2 * batch_size, batch_size // 2 if vr > 1 else batch_size


@pytest.mark.parametrize(
    ("make", "cost"),
    [
        (lambda model, tau_th: ImportanceTraining(model, presample=2.5, tau_th=tau_th), 1 + 2.5 / 3),
        (lambda model, tau_th: ImportanceTraining(model, tau_th=tau_th, score="full_gnorm"), 1 + 3 * 3 / 3),
        (lambda model, tau_th: BiasedImportanceTraining(model, presample=48, tau_th=tau_th), 1 + 3 / 3),
        (Halving, 2 / 3 + 1 / 2),
    ],
)
def test_the_cost_that_a_gate_assumes_is_the_cost_of_the_steps_that_are_taken(make, cost):
    for tau_th in (1e9, 0.0):  # closed and open
        model, x, y = hard_few()
        trainer = make(model, tau_th)
        for _ in range(2):  # the sizes of the first steps can't depend on scores yet
            trainer.fit(x, y, batch_size=16, verbose=0)
        (line,) = (line for line in trainer.summary().splitlines() if line.startswith("  cost "))
        assert line.split()[1] == f"{cost:.2f}"
