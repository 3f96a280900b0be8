"""Samplers, policies and conditions need NumPy only; Keras and its backend are imported for the rest."""

import subprocess
import sys

import keras
import numpy as np

import importance_sampling
from importance_sampling import reweighting

WITHOUT_KERAS = """
import sys

for blocked in ("keras", "tensorflow", "jax", "torch"):
    sys.modules[blocked] = None

import numpy as np

import importance_sampling
import importance_sampling.utils.numerics
from importance_sampling import conditions, events, reweighting, samplers


class Rows:
    def __len__(self):
        return 12

    def __getitem__(self, indices):
        return np.arange(12.0)[indices, None], np.arange(12)[indices]


class Data:
    train_data = Rows()


class Model:
    def score(self, x, y, batch_size=128):
        return x[:, 0] + 1.0


assert "ImportanceTraining" in dir(importance_sampling) and "WeightLayer" in dir(reweighting)
uniform = samplers.UniformSampler(Data, reweighting.UNBIASED, seed=0)
indices, (x, y), weights = uniform.sample(4)
assert (x[:, 0] == indices).all() and (y == indices).all() and (weights == 1).all()
history = samplers.HistorySampler(Data, reweighting.UNBIASED, Model(), seed=0)
for _ in range(3):
    drawn = history.draw(4)
    history.update(drawn.indices, drawn.indices + 1.0)
condition = conditions.VarianceReductionCondition(1.2)
assert condition.update(np.array([1.0, 1.0, 1.0, 5.0]))
assert reweighting.BiasedReweightingPolicy(0.5).weights(np.array([0.5, 0.125]), 4, np.array([4.0, 1.0])).shape == (2,)
loaded = [name for name in sys.modules if name.split(".")[0] in ("keras", "tensorflow") and sys.modules[name]]
assert not loaded, loaded
"""


def test_samplers_policies_and_conditions_work_without_keras_and_a_framework():
    run = subprocess.run([sys.executable, "-c", WITHOUT_KERAS], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


def test_names_that_are_imported_when_used_are_listed_and_others_are_refused():
    for module, name in ((importance_sampling, "ImportanceTraining"), (reweighting, "WeightLayer")):
        assert name in dir(module) and getattr(module, name).__name__ == name
        assert not hasattr(module, "Missing")


def test_a_model_with_a_weight_layer_is_loaded_with_its_policy(tmp_path):
    inputs = [keras.Input((2,)), keras.Input(())]
    policy = reweighting.CorrectingReweightingPolicy(0.5)
    keras.Model(inputs, policy.weight_layer()(inputs)).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").layers[-1]
    assert type(loaded.policy) is reweighting.CorrectingReweightingPolicy and loaded.policy.k == 0.5
    values = [np.array([[1.0, 2.0]], "float32"), np.array([1.0], "float32")]
    assert np.asarray(loaded(values)).tolist() == [2.0]
