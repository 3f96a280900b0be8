"""What importance sampling can't be done for and only shows once `fit` has built the model."""

import keras
import numpy as np
import pytest
from keras import layers

from importance_sampling import ImportanceTraining

X = np.random.default_rng(0).normal(size=(96, 4)).astype("float32")
Y = X[:, :3].argmax(1)


@pytest.mark.parametrize("options", [dict(tau_th=0), dict(tau_th=0, sampler="reshuffle")])
def test_a_frozen_model_that_is_built_by_fit_has_nothing_to_train(options):
    losses = []
    for wrap in (lambda model: model, lambda model: ImportanceTraining(model, **options)):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([layers.Dense(3, "softmax")])
        model.trainable = False
        model.compile("adam", "sparse_categorical_crossentropy")
        trainer = wrap(model)
        with pytest.warns(UserWarning) as caught:
            losses.append(trainer.fit(X, Y, batch_size=16, epochs=2, verbose=0).history["loss"])
        said = [str(warning.message) for warning in caught]
        assert any("any trainable weights" in message for message in said)  # Keras's own
    assert any("stays off" in message for message in said)
    assert trainer.open_steps == 0 and "it has no trainable weights" in trainer.summary()
    assert losses[0] == losses[1]
