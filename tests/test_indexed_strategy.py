"""Importance steps on rows by index: several steps in one execution, and scores that wait on the device."""

import keras
import numpy as np
import pytest
from frameworks import needs, several
from keras import layers
from saved_states import saved_state

from importance_sampling import ImportanceTraining
from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import ReshuffleSampler
from importance_sampling.training import HistoryImportanceTraining, ReshuffleTraining, SamplerTraining

ROWS, BATCH = 160, 8
_rng = np.random.default_rng(3)
X = _rng.normal(size=(ROWS, 5)).astype("float32")
Y = (X[:, 0] > 1.2).astype("int64") + 2 * (X[:, 1] > 1.5)
WAYS = {
    "reshuffle, scored": lambda model: ImportanceTraining(model, tau_th=0.0, sampler="reshuffle", seed=1),
    "reshuffle": lambda model: ReshuffleTraining(model, seed=1),
    "history": lambda model: HistoryImportanceTraining(model, seed=1),
}


def build(steps_per_execution=1, **options):
    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(8, "relu"), layers.Dropout(0.2), layers.Dense(4, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", steps_per_execution=steps_per_execution, **options)
    return model


def fit(trainer, **options):
    return trainer.fit(X, Y, **{"batch_size": BATCH, "epochs": 3, "verbose": 0, **options}).history


@needs("several steps per execution")
@pytest.mark.parametrize("steps", [3, 8, 20, 64])
@pytest.mark.parametrize("way", WAYS)
def test_several_steps_in_one_execution_give_the_weights_of_single_steps(way, steps):
    single, several = build(), build(steps)
    histories = [fit(WAYS[way](model)) for model in (single, several)]
    assert histories[1]["importance"] == [0.0 if way == "reshuffle" else 1.0, 1.0, 1.0]
    np.testing.assert_allclose(histories[1]["loss"], histories[0]["loss"], rtol=1e-5)
    for one, other in zip(single.get_weights(), several.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6)


def test_data_in_memory_are_reshuffled_whatever_the_number_of_steps_in_an_execution():
    trainer, samplers = ImportanceTraining(build(several(8))), []
    fit(trainer, epochs=1)
    trainer.condition.restore(True)
    fit(trainer, epochs=1, on_sample=lambda sampler, *_: samplers.append(sampler))
    assert {type(sampler) for sampler in samplers} == {ReshuffleSampler}


@pytest.mark.parametrize("way", WAYS)
def test_scores_that_wait_on_the_device_reach_the_sampler_as_those_read_at_once(way):
    silent, heard = WAYS[way](build()), WAYS[way](build())
    keras.utils.set_random_seed(4)  # dropout on torch draws from the generator that all layers share
    fit(silent)
    keras.utils.set_random_seed(4)
    fit(heard, on_scores=lambda sampler, scores: None)  # a listener has every step's scores read
    (waiting_header, waiting), (read_header, read) = saved_state(silent), saved_state(heard)
    assert waiting_header == read_header and waiting.keys() == read.keys()
    for name in waiting:
        np.testing.assert_array_equal(waiting[name], read[name], err_msg=name)


def test_a_state_saved_within_an_epoch_has_the_scores_of_all_steps_before():
    states = []

    class Save(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 6:
                states.append(saved_state(trainer)[1])

    for options in ({}, {"on_scores": lambda sampler, scores: None}):
        keras.utils.set_random_seed(4)
        trainer = WAYS["reshuffle"](build())
        fit(trainer, epochs=1, callbacks=[Save()], **options)
    scores = states[0]["sampler/_scores"]
    assert np.isfinite(scores).sum() == 7 * BATCH
    np.testing.assert_array_equal(scores, states[1]["sampler/_scores"])


def test_the_sampler_is_updated_at_most_once_in_an_epoch_without_listeners(monkeypatch):
    when, steps = [], []
    update = ReshuffleSampler.update
    counts = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))

    def record(self, indices, scores):
        when.append(len(steps))
        update(self, indices, scores)

    monkeypatch.setattr(ReshuffleSampler, "update", record)
    trainer = WAYS["reshuffle"](build())
    fit(trainer, epochs=2, callbacks=[counts])
    assert len(when) == 2 * ROWS // BATCH
    # As the second epoch is planned, after its first step, and at the end.
    assert set(when) == {0, 20, 40}


class TwiceTheWeights(ReshuffleSampler):
    """Draws weights that aren't those of its policy."""

    def draw(self, batch_size):
        drawn = super().draw(batch_size)
        return drawn._replace(weights=2.0 * drawn.unbiased_weights)


def test_the_loss_is_unbiased_if_a_sampler_draws_other_weights_than_those_of_its_policy():
    def sampler(dataset, model, seed):
        return TwiceTheWeights(dataset, UNBIASED, model, 1, seed=seed)

    model = keras.Sequential([keras.Input((5,)), layers.Dense(4, "softmax")])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    losses = np.array(fit(SamplerTraining(model, sampler, seed=1), epochs=20)["loss"])
    error = losses.std(ddof=1) / np.sqrt(len(losses))
    assert abs(losses.mean() - model.evaluate(X, Y, verbose=0)) < 5 * error + 1e-6
