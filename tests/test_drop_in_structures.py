"""The swap where inputs, outputs, losses or the `fit` itself are of a kind that few use."""

import keras
import numpy as np
import pytest
from drop_in_cases import WAYS, assert_equal, begin_anew, data, each_way
from drop_in_models import dense
from frameworks import TAKES_NONE, needs
from keras import layers

from importance_sampling import ImportanceTraining

X, Y = data(rows=64)


def fitted(make, data, batch_size=16):
    def train(way):
        begin_anew()
        model = make()
        trainer = WAYS[way](model)
        trainer.fit(*data(), batch_size=batch_size, verbose=0)
        return model, trainer

    return train


def test_a_loss_of_several_outputs_is_importance_sampled():
    def together(y_true, y_pred):
        return sum(keras.losses.mean_absolute_error(y_true[name], y_pred[name]) for name in ("a", "b"))

    def make():
        inputs = keras.Input((8,))
        model = keras.Model(inputs, {name: layers.Dense(1, name=name)(inputs) for name in ("a", "b")})
        model.compile("sgd", [together, {"a": "mse", "b": "mae"}], run_eagerly=True)
        return model

    _, _, trainer = each_way(fitted(make, lambda: (X, {"a": X[:, :1], "b": X[:, 1:2]})))
    assert trainer.importance_steps == 4


@pytest.mark.skipif(not TAKES_NONE, reason="Keras 3.8 takes no None in a batch")
@needs("batches drawn in a step")
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed, but will be ignored:UserWarning")
def test_a_model_with_an_input_that_is_none_is_importance_sampled():
    def batches():
        for first in range(0, 64, 16):
            yield {"a_missing": None, "x": X[first : first + 16]}, Y[first : first + 16]

    class Optional(keras.Model):
        def __init__(self):
            super().__init__()
            self.out = layers.Dense(3)

        def call(self, inputs):
            return self.out(inputs["x"] if inputs["a_missing"] is None else inputs["a_missing"])

    def make():
        model = Optional()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, metrics=["accuracy"], run_eagerly=True)
        return model

    (plain, _), (closed, _), (opened, trainer) = map(fitted(make, lambda: (batches(),), batch_size=None), WAYS)
    assert_equal(plain, closed)
    # The generator is read once: a pool of three batches, and the last one plainly.
    assert trainer.importance_steps == 1 and int(opened.optimizer.iterations) == 2
    assert np.isfinite(opened.get_weights()[0]).all()


@pytest.mark.parametrize("kind", [keras.Model, next(kind for kind in keras.Model.__mro__ if "fit" in vars(kind))])
def test_model_fit_can_be_replaced_by_a_trainer_in_a_whole_program(monkeypatch, kind):
    """One line for a whole program: whatever calls `model.fit` then trains by importance."""
    trainers = []

    def fit(self, *args, **kwargs):
        trainers.append(ImportanceTraining(self, tau_th=0))
        return trainers[-1].fit(*args, **kwargs)

    monkeypatch.setattr(kind, "fit", fit, raising=False)
    inner, model = dense(run_eagerly=True), dense(run_eagerly=True)
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: inner.fit(X, Y, batch_size=16, verbose=0))
    model.fit(X, Y, batch_size=16, verbose=0, callbacks=[callback])
    assert [trainer.importance_steps for trainer in trainers] == [4, 4]
    assert [trainer.model for trainer in trainers] == [model, inner]
    assert np.isfinite(model.evaluate(X, Y, verbose=0)[0])
