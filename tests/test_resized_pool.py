"""Pools of the size with the largest variance gain over cost."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from importance_sampling import conditions
from importance_sampling.callbacks import SamplingCallback
from importance_sampling.core.pool_step import pool_signals
from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import PoolSampler, resampling
from importance_sampling.strategies.resized_pool import PRESAMPLES, BestPoolStrategy, best_size
from importance_sampling.training import ImportanceTraining

COSTS = [1 + size / 3 for size in PRESAMPLES]


def hard_few(rows=1280, hard=20):
    """A few rows are hard, and a model that soon knows the others, which are far from the border."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((rows, 4)).astype("float32")
    x[:, 0] += 2 * np.sign(x[:, 0])
    y = (x[:, 0] > 0).astype("float32")
    y[:hard] = 1 - y[:hard]
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.3), "binary_crossentropy")
    return model, x, y


def fit(trainer, *data, **options):
    return trainer.fit(*data, **{"batch_size": 16, "verbose": 0, **options}).history


def test_the_size_with_the_largest_variance_gain_over_cost_is_chosen():
    # Gains: 1.2 1.5 1.875 2.18; 1.14 1.2 1.16 0.95.
    assert best_size([2.0, 3.0, 5.0, 8.0], COSTS, current=1) == 3
    assert best_size([1.9, 2.4, 3.1, 3.5], COSTS, current=3) == 1
    assert best_size([2.0], COSTS[:1], current=0) == 0


def test_the_size_is_kept_until_another_gains_five_per_cent_more():
    # Gains 1.2, 1.25: 4 % more; 1.2, 1.275: 6 % more.
    assert best_size([2.0, 2.5], COSTS[:2], current=0) == 0
    assert best_size([2.0, 2.55], COSTS[:2], current=0) == 1
    assert best_size([np.nan] * 4, COSTS, current=1) == 1


def test_signals_have_the_variance_gain_of_every_size():
    scores = np.array([0.1, 0.2, 0.1, 9.0, 0.3, 0.1, 2.0, 0.2], "float32")
    sampler = PoolSampler(6, 2, 0.1, resampling.get("systematic"), UNBIASED)
    gains = keras.ops.convert_to_numpy(pool_signals(scores, sampler, PRESAMPLES).gain)
    expected = [conditions.variance_gain(scores, size, 0.1, sampler.resampling) for size in PRESAMPLES]
    np.testing.assert_allclose(gains, expected, rtol=1e-5)
    assert float(pool_signals(scores, sampler).gain) == pytest.approx(float(expected[1]), rel=1e-5)


def test_rare_hard_samples_ask_for_the_largest_pools_and_the_summary_says_so():
    model, *xy = hard_few()
    trainer, pools = ImportanceTraining(model, presample="auto", seed=1), []
    listen = dict(on_scores=lambda _, scores: pools.append(len(scores)))
    history = fit(trainer, *xy, epochs=5, **listen)
    assert history["importance"][-1] == 1
    assert pools[-1] == 8 * 16 and set(pools) <= {16, *(int(size * 16) for size in PRESAMPLES)}
    assert "Pools had 8 batches at the end." in trainer.summary()
    assert "cost 3.67" in trainer.summary()
    # The variance gain shown is that of the size in use.
    (strategy,) = trainer._compiled.strategies.values()
    assert 3.67 * 0.95 < strategy.gate_context(trainer._state.signals)[0].gain <= 8
    # The discount is that of the size in use: without dropout training measures what was predicted.
    assert trainer._state.signals.discount == pytest.approx(1.0, abs=0.15)


def test_sizes_that_the_data_have_no_rows_for_are_left_out():
    model, x, y = hard_few(rows=100, hard=4)
    trainer, pools = ImportanceTraining(model, presample="auto", tau_th=0), []
    fit(trainer, x, y, epochs=6, on_scores=lambda _, scores: pools.append(len(scores)))
    assert pools[-1] == 80 == max(pools)  # 8 * 16 exceeds 100
    model, x, y = hard_few(rows=40, hard=4)
    trainer, pools = ImportanceTraining(model, presample="auto", tau_th=0), []
    fit(trainer, x, y, epochs=2, on_scores=lambda _, scores: pools.append(len(scores)))
    assert set(pools) == {32}
    model, x, y = hard_few(rows=24, hard=4)
    trainer = ImportanceTraining(model, presample="auto", tau_th=0)
    assert set(fit(trainer, x, y, epochs=2)["importance"]) == {0}
    assert "fewer rows" in trainer.summary()


def test_streams_are_cut_to_the_size_chosen():
    model, x, y = hard_few()
    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(1280, seed=1).batch(16).repeat()
    trainer, pools = ImportanceTraining(model, presample="auto", seed=1), []
    history = fit(
        trainer,
        data,
        batch_size=None,
        shuffle=False,
        steps_per_epoch=80,
        epochs=5,
        on_scores=lambda _, scores: pools.append(len(scores)),
    )
    assert history["importance"][-1] == 1 and pools[-1] == 8 * 16


def test_a_run_that_is_broken_off_goes_on_with_the_size_it_had(tmp_path):
    model, *xy = hard_few()
    trainer = ImportanceTraining(model, presample="auto", seed=1)
    fit(trainer, *xy, epochs=3)
    trainer.save_state(tmp_path / "state.npz")
    other = ImportanceTraining(model, presample="auto", seed=2)
    other.load_state(tmp_path / "state.npz")
    pools = []
    fit(other, *xy, epochs=1, on_scores=lambda _, scores: pools.append(len(scores)))
    assert set(pools) == {8 * 16}
    with pytest.raises(ValueError, match=r'`save_state` of another ImportanceTraining wrote.*presample="auto"'):
        ImportanceTraining(model, presample=5).load_state(tmp_path / "state.npz")


def test_a_size_is_traced_once_and_whoever_asks_for_figures_changes_nothing():
    weights = []
    for asks in (False, True):
        keras.utils.set_random_seed(3)
        model, *xy = hard_few()
        traces, call = [], model.call
        model.call = lambda *args, call=call, traces=traces, **more: traces.append(1) or call(*args, **more)
        trainer = ImportanceTraining(model, presample="auto", seed=1)
        recorder = Asking() if asks else keras.callbacks.Callback()
        fit(trainer, *xy, epochs=3, callbacks=[recorder])
        (steps,) = trainer._compiled.strategies.values()
        before, sizes = len(traces), len(steps._made)
        fit(trainer, *xy, epochs=1, callbacks=[recorder])
        assert len(steps._made) > sizes or len(traces) == before
        weights.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    np.testing.assert_array_equal(*weights)


class Asking(SamplingCallback):
    """Reads the figures anew after every step."""

    def on_train_batch_end(self, batch, logs=None):
        self._figures()


def test_a_stream_is_read_on_where_pools_of_another_size_had_read_to(monkeypatch):
    model, x, y = hard_few(rows=480)
    x[:, 3] = np.arange(len(x))
    sizes = iter([2.0, 3.0, 2.0, 3.0] * 50)

    def take_turns(self, signals):
        self.state.counters.presample = next(sizes)

    monkeypatch.setattr(BestPoolStrategy, "update_sizes", take_turns)
    data, seen = tf.data.Dataset.from_tensor_slices((x, y)).batch(16), []

    def score(model, x, y):
        seen.append(x[:, 3])
        return keras.ops.abs(x[:, 0])

    model.compile("adam", "binary_crossentropy", run_eagerly=True)
    trainer = ImportanceTraining(model, presample="auto", tau_th=0, score=score)
    fit(trainer, data, batch_size=None, shuffle=False, epochs=3)
    assert set(map(len, seen)) == {16, 32, 48}  # of the check, and of pools
    candidates = np.concatenate([np.asarray(rows)[16:] for rows in seen if len(rows) > 16]).astype(int)
    # Behind Keras's own 16 come those of the second reading: in order, round and round, none twice in a round.
    assert len(candidates) > 3 * 480  # of 60 steps; the size changed at each 17th
    np.testing.assert_array_equal(candidates, np.arange(len(candidates)) % 480)


def test_presample_has_no_effect_on_a_reshuffle_and_says_so():
    model, *xy = hard_few()
    with pytest.warns(UserWarning, match="`presample` and `resampling` are options of pools.*Received: presample=auto"):
        trainer = ImportanceTraining(model, presample="auto", sampler="reshuffle", tau_th=0)
    assert fit(trainer, *xy, epochs=2)["importance"] == [1.0, 1.0]
