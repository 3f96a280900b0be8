"""The summary of a trainer, why the gate is closed in the user's terms, and the representation of a trainer."""

import copy
import functools
import re

import keras
import numpy as np
import pytest

from importance_sampling import ImportanceTraining
from importance_sampling.conditions import GainCondition, GateContext, Signals
from importance_sampling.training import (
    SVRG,
    BiasedImportanceTraining,
    ConstantVarianceImportanceTraining,
    HistoryImportanceTraining,
    OnlineBatchSelection,
    ReshuffleTraining,
)

CONTEXT = GateContext(4 / 3, base_cost=1.0, required_gain=5.0, required_epochs=1.0, held_out_change=0.1)


def build():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax")], name="small")
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def trained(trainer, **arguments):
    x = np.random.default_rng(0).normal(size=(96, 6)).astype("float32")
    trainer.fit(x, x[:, :3].argmax(1), batch_size=16, verbose=0, **arguments)
    return trainer


@pytest.mark.parametrize(
    ("gain", "changes", "reason"),
    [
        (1.02, {}, "the samples are about equally hard: an importance step would be worth 1.01 uniform steps, and"),
        (2.0, {}, "^the loss of held-out samples no longer falls, so fitting the training .* would hardly help$"),
        (2.0, dict(relative_learning_rate=0.26), "would hardly help, and the learning rate is at 26% of its peak,"),
        (9.0, dict(relative_learning_rate=0.26, base_cost=9.0), "^the learning rate is at 26% of its peak,"),
        (
            2.0,
            dict(held_out_change=-0.1, loss_ratio=0.4),
            "the training loss is only 40% of the loss of held-out samples",
        ),
        (2.0, dict(held_out_change=-0.1, generalised_share=0.2), "falls by only 20% of the fall of the training loss"),
        (2.0, dict(held_out_change=-0.1, generalised_share=-0.2), "doesn't fall with the training loss"),
        (2.0, dict(held_out_change=-0.1, epochs_left=0.5, epochs_done=0.5), "Train for at least two epochs$"),
        (2.0, dict(held_out_change=-0.1, epochs_left=0.5, epochs_done=7.5), "too late in the training to be used"),
        (1.109, {}, "would be worth 1.09 uniform steps, and would have to be worth 1.10"),  # not rounded up
        (
            1.6,
            dict(cost=2.0, base_cost=2.0, required_gain=1.0),
            "the variance gain is 1.60, and would have to be above 2.00",
        ),
        (9.0, dict(epochs_done=0.5), "too late in the training to be used. Train for more epochs$"),
        (2.0, dict(held_out_change=float("nan")), "Pass validation data to `fit`$"),
        (
            9.0,
            dict(held_out_change=-0.1, relative_learning_rate=0.1, epochs_left=0.5),
            "^the learning rate is at 10% of its peak,",
        ),
        (float("nan"), {}, "too short to measure the scores"),
    ],
)
def test_a_closed_gate_explains_the_reason_and_the_remedy(gain, changes, reason):
    gate, signals = GainCondition(), Signals(2.0, gain, float("nan"), 1.0)
    assert not gate.observe(signals, CONTEXT._replace(**changes))
    assert re.search(reason, gate.explain(signals)), gate.explain(signals)


def test_a_step_is_worth_the_variance_gain_by_the_rule_on_noise_and_at_most_two_by_the_rule_on_learning():
    gate, signals = GainCondition(), Signals(2.0, 8.0, 0.5, 1.0)
    assert gate.worth(signals) == 1.75  # 2 - 1 / 4: the measured variance gain is half of the predicted one
    gate.rescores = True
    assert gate.worth(signals) == 4.0


def test_the_first_line_says_what_importance_sampling_did_and_the_others_explain_their_numbers():
    first, *others = trained(ImportanceTraining(build(), tau_th=0, seed=1)).summary().splitlines()
    assert first.startswith("Importance sampling ran for 100% of the 6 steps; each had ")
    assert first.endswith(" times less gradient noise, and cost 2.0 uniform steps.")
    names = [line[2:24].strip() for line in others[:-1]]
    assert names[:3] == ["first importance step", "variance gain", "cost"]
    assert {"tau", "largest weight", "effective batch size"} <= set(names)
    assert all(len(line[31:].strip()) > 5 for line in others[:-1])
    assert others[-1].endswith("docs/pages/summary.md.")


@pytest.mark.parametrize(
    "make",
    [
        lambda model: ReshuffleTraining(model),
        lambda model: ReshuffleTraining(model, recompute=1),
        lambda model: HistoryImportanceTraining(model, recompute=1),
        lambda model: OnlineBatchSelection(model, recompute=1),
        lambda model: ConstantVarianceImportanceTraining(model, tau_th=0),
        lambda model: ImportanceTraining(model, tau_th=0, score="full_gnorm"),
    ],
    ids=["reshuffle", "reshuffle, rescored", "history", "online batch selection", "constant variance", "exact norms"],
)
def test_the_cost_in_the_summary_is_what_the_importance_steps_have_cost(make):
    trainer = trained(make(build()), epochs=2)  # the gate is always open: there are no other costs
    lines = [line for line in trainer.summary().splitlines() if line.startswith("  cost ")]
    assert float(lines[0].split()[1]) == pytest.approx(trainer.forward_equivalents / 3 / 12, abs=0.005)


class OpenFor(GainCondition):
    """A gate that closes after a number of decisions."""

    def __init__(self, decisions):
        super().__init__()
        self.left = decisions

    def _decide(self, signals):
        self.left -= 1
        return self.left >= 0

    def explain(self, signals):
        return "it doesn't pay"


def opened_for(decisions):
    trainer = ImportanceTraining(build(), sampler="reshuffle", seed=1)
    trainer.condition = OpenFor(decisions)
    x = np.random.default_rng(0).normal(size=(960, 6)).astype("float32")
    history = trainer.fit(x, x[:, :3].argmax(1), batch_size=16, epochs=3, verbose=0).history
    return trainer, history["importance"]


def test_the_summary_says_with_which_step_importance_steps_ended_and_why():
    trainer, importance = opened_for(6)
    ended = re.search(r"Importance steps ended with step (\d+): (.*)\.", trainer.summary())
    assert 60 < int(ended[1]) < 120 and ended[2] == "it doesn't pay"
    # Until the first epoch of the sampler ends, all scores are unknown and equal.
    assert importance[0] == 0 and importance[1] > 0
    began = int(re.search(r"first importance step +(\d+)", trainer.summary())[1])
    assert 60 <= began < 70 and trainer.importance_steps == int(ended[1]) - began


def test_steps_that_only_measure_scores_are_no_importance_steps():
    trainer, importance = opened_for(2)
    assert trainer.importance_steps == 0 and importance == [0.0, 0.0, 0.0]
    assert trainer.summary().startswith("Uniform training throughout (180 steps): it doesn't pay.")
    one_epoch = trained(ReshuffleTraining(build()), epochs=1)
    assert one_epoch.summary() == (
        "ReshuffleTraining drew uniform batches in all of its 6 steps: the first pass over the data only measured the "
        "scores."
    )
    two_epochs = trained(ReshuffleTraining(build()), epochs=2).summary()
    assert "In 6 steps the sampler drew uniformly: the first pass over the data only measured" in two_epochs
    assert "NaN" not in two_epochs


def test_figures_in_inference_mode_are_announced_for_pools_alone():
    def summary(sampler):
        model = keras.Sequential(
            [keras.Input((6,)), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5), keras.layers.Dense(3)]
        )
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return trained(ImportanceTraining(model, tau_th=0, sampler=sampler, seed=1)).summary()

    in_inference, dropout = "the figures of importance steps are computed in inference mode", "The model has dropout"
    assert in_inference in summary("pool") and dropout in summary("pool")
    rows = summary("reshuffle")
    assert "its statistics count samples by importance weight." in rows
    assert "inference" not in rows and dropout not in rows


def test_the_same_noise_as_that_of_a_uniform_step_is_called_so():
    x = np.ones((96, 6), "float32")
    trainer = ImportanceTraining(build(), tau_th=0, seed=1)
    trainer.fit(x, np.zeros(96), batch_size=16, verbose=0)
    assert "each had about as much gradient noise, and cost 2.0 uniform steps." in trainer.summary()


def test_the_first_line_of_uniform_training_gives_the_number_of_steps_and_the_reason():
    summary = trained(ImportanceTraining(build(), seed=1)).summary()
    assert summary.startswith("Uniform training throughout (6 steps): ")
    off = trained(ImportanceTraining(build(), tau_th=float("inf")))
    assert off.summary() == "Uniform training throughout (6 steps): importance sampling is switched off by tau_th."


def test_a_trainer_shows_its_arguments_and_its_steps():
    trainer = BiasedImportanceTraining(build(), 0.5, score="loss")
    assert repr(trainer) == "BiasedImportanceTraining(<Sequential 'small'>, k=0.5, score='loss'), not trained yet"
    assert repr(trained(trainer, epochs=2)).endswith("trained for 12 steps, 0% importance steps")
    assert repr(ImportanceTraining(model=build(), score=np.linalg.norm)).startswith(
        "ImportanceTraining(<Sequential 'small'>, score=norm), "
    )
    assert repr(SVRG(build(), B=0)).startswith("SVRG(<Sequential 'small'>, B=0), ")


def test_a_notebook_shows_the_escaped_summary():
    trainer = ImportanceTraining(build())
    assert "&lt;Sequential" in trainer._repr_html_() and "<b>fit has not been called yet.</b>" in trainer._repr_html_()
    trained(trainer)
    assert trainer._repr_html_().count("Uniform training throughout") == 1


def test_a_copied_trainer_shows_the_same_arguments():
    trainer = ImportanceTraining(build(), alpha=0.2)
    assert repr(copy.copy(trainer)) == repr(trainer)


def test_wrong_arguments_raise_the_error_of_the_constructor():
    with pytest.raises(TypeError, match="alfa"):
        ImportanceTraining(build(), alfa=0.2)


def test_a_misspelt_argument_of_a_trainer_is_an_error_that_names_the_nearest_one():
    with pytest.raises(TypeError, match=r"ImportanceTraining got an unexpected argument. Did you mean `presample`"):
        ImportanceTraining(build(), presampel=3)
    with pytest.raises(TypeError, match=r"It has: model, k, .*Received: optimizer"):
        BiasedImportanceTraining(build(), optimizer="adam")


def test_a_constructor_of_a_subclass_takes_the_arguments_that_python_gives_it():
    class Noted(ImportanceTraining):
        @functools.wraps(ImportanceTraining.__init__)
        def __init__(self, model, *args, note="", **options):
            super().__init__(model, *args, **options)
            self.note = note

        @property
        def rate(self):
            return self.model.optimiser

    trainer = Noted(build(), note="first", seed=1)
    assert trainer.note == "first"
    with pytest.raises(AttributeError, match="'Sequential' object has no attribute 'optimiser'"):
        trainer.rate  # noqa: B018


def test_a_method_of_the_model_that_is_called_on_its_trainer_is_an_error_that_says_where_it_is():
    trainer = ImportanceTraining(build())
    with pytest.raises(
        AttributeError, match=r"has no attribute 'predict'. .* use `model.predict`, or `trainer.model.pred"
    ):
        trainer.predict(np.zeros((1, 6)))
    with pytest.raises(AttributeError, match=r"has no attribute 'nonsense'$"):
        trainer.nonsense  # noqa: B018
    assert not hasattr(trainer, "save_weights") and copy.copy(trainer).model is trainer.model


def test_the_summary_of_a_fit_without_a_decision_of_the_gate_tells_the_state_of_this_fit():
    model = build()
    trainer = trained(ImportanceTraining(model, seed=1), epochs=40)
    model.optimizer.learning_rate = 0.0005
    history = trainer.fit(np.zeros((16, 6)), np.zeros(16), batch_size=16, verbose=0, shuffle=False)
    assert history.history["importance"] == [0.0]
    assert re.search("learning rate +50%  of its peak", trainer.summary())
