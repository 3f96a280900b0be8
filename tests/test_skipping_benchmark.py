"""The benchmark of skipping: its baselines take the steps and learning rates that they should, and its table."""

import keras
import numpy as np
import pytest
import skipping
from keras import layers
from skipping_baselines import Compressed, RandomSampler, cosine
from tasks import Task
from toys import SIZE, Toy

from importance_sampling.comparison import Data


def build():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1.0), "mse", metrics=["mae"])
    return model


def test_the_compressed_schedule_has_the_rates_of_all_epochs_in_fewer_steps():
    rates = []

    class Rates(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            rates.append(float(self.model.optimizer.learning_rate))

    x = np.zeros((10, 2), "float32")
    callbacks = [Compressed(7, 4, lambda epoch: 1.0 / (1 + epoch)), Rates()]
    build().fit(x, x[:, :1], batch_size=2, epochs=4, verbose=0, callbacks=callbacks)
    # The epochs of the steps 0, ..., 6 are floor(4 i / 7).
    assert rates == pytest.approx([1, 1, 1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 4])


def test_the_cosine_decays_by_epochs():
    assert [cosine(2.0, 4)(epoch) for epoch in (0, 2, 4)] == pytest.approx([2.0, 1.0, 0.0])


def test_random_epochs_have_the_given_sizes_and_equal_weights():
    sampler = RandomSampler(Toy(), [1.0, 0.4, 0.6], seed=1)
    for size in (60, 24, 36):
        assert sampler.begin_epoch(12) == size
        drawn = sampler.draw(size)
        assert len(set(drawn.indices)) == size
        np.testing.assert_allclose(drawn.weights, 1.0, rtol=1e-6)
        sampler.update(drawn.indices, drawn.indices.astype("float32"))


def test_the_benchmark_writes_a_table_of_all_ways_and_does_not_repeat_them(monkeypatch, tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(SIZE, 2)).astype("float32")
    data = Data(x, x[:, :1] ** 2, x, x[:, :1])
    task = Task(lambda path: data, build, 0.1, 0.1, batch_size=10, error=lambda figures: figures["mae"])
    monkeypatch.setattr(skipping.tasks, "get", lambda name: task)
    monkeypatch.setattr(skipping, "WAYS", ("uniform", "skipping", "random", "compressed", "compressed fast"))
    monkeypatch.setattr("sys.argv", ["x", "--quick", "--out", str(tmp_path)])
    skipping.main()
    table = (tmp_path / "table.md").read_text()
    assert all(f"`satellite`, {way} " in table for way in skipping.WAYS)
    assert capsys.readouterr().out.count(" steps, ") == len(skipping.WAYS)
    steps = {run["way"]: run["steps"] for run in skipping.Results(tmp_path / "results.jsonl").all()}
    assert steps["uniform"] == 24 > steps["skipping"] == steps["random"] == steps["compressed"]
    assert steps["compressed fast"] == steps["compressed"]
    skipping.main()
    assert " steps, " not in capsys.readouterr().out
