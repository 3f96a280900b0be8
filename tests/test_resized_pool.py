"""Pools whose sizes change during training, and the option presample="auto", which is gone."""

import json

import keras
import numpy as np
import pytest
from frameworks import HAS_TENSORFLOW, lacks
from toys import stream

from importance_sampling.callbacks import SamplingCallback
from importance_sampling.training import ImportanceTraining
from importance_sampling.training.constant import ResizedPoolTrainer

BATCH = 16


class TakingTurns(ResizedPoolTrainer):
    """Pools of 2 and of 3 batches in turns of 7 steps."""

    def __init__(self, model, score="gnorm", seed=1):
        super().__init__(model, 0.0, score, None, None, 0.1, "systematic", seed)

    def _rows_needed(self, plan, batch_size):
        return 3 * batch_size

    def _sizes(self, vr, batch_size):
        return (2 + self._state.counters.steps // 7 % 2) * batch_size, batch_size


def build(rows=480, **options):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((rows, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.3), "binary_crossentropy", **options)
    return model, x, (x[:, 0] > 0).astype("float32")


def fit(trainer, *data, **options):
    return trainer.fit(*data, **{"batch_size": BATCH, "verbose": 0, **options}).history


class ReadingFigures(SamplingCallback):
    """Reads the figures from the device after every step."""

    def on_train_batch_end(self, batch, logs=None):
        self._figures()


def test_every_pool_size_is_traced_once_and_a_callback_that_reads_figures_changes_no_weight():
    weights = []
    for callback in (keras.callbacks.Callback(), ReadingFigures()):
        keras.utils.set_random_seed(3)
        model, *xy = build()
        traces, call = [], model.call
        model.call = lambda *args, call=call, traces=traces, **more: traces.append(1) or call(*args, **more)
        trainer, pools = TakingTurns(model), []
        fit(trainer, *xy, callbacks=[callback], on_scores=lambda _, scores, pools=pools: pools.append(len(scores)))
        assert set(pools) == {2 * BATCH, 3 * BATCH}
        before = len(traces)
        fit(trainer, *xy, callbacks=[callback], on_scores=lambda *_: None)
        assert len(traces) == before or lacks("compiled steps")
        weights.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    np.testing.assert_array_equal(*weights)


def test_a_stream_is_read_further_from_where_pools_of_another_size_had_stopped():
    model, x, y = build(run_eagerly=True)
    x[:, 3] = np.arange(len(x))
    data, seen = stream(x, y, BATCH), []

    def score(model, x, y):
        seen.append(x[:, 3])
        return keras.ops.abs(x[:, 0])

    fit(TakingTurns(model, score), data, batch_size=None, shuffle=False, epochs=3)
    assert set(map(len, seen)) == {BATCH, 2 * BATCH, 3 * BATCH}  # of the check, and of pools
    candidates = np.concatenate([np.asarray(rows)[BATCH:] for rows in seen if len(rows) > BATCH]).astype(int)
    # After Keras's own 16 come those of the second reading: round and round, none twice in a round.
    assert len(candidates) > 2 * 480
    rounds = candidates[: len(candidates) // 480 * 480].reshape(-1, 480)
    np.testing.assert_array_equal(np.sort(rounds), [np.arange(480)] * len(rounds))
    if HAS_TENSORFLOW:  # in order: only batches of a `PyDataset` are shuffled
        np.testing.assert_array_equal(candidates, np.arange(len(candidates)) % 480)


def test_presample_auto_warns_and_is_the_default():
    model, *_ = build()
    with pytest.warns(DeprecationWarning, match='`presample="auto"` is gone .* The default is used') as warned:
        trainer = ImportanceTraining(model, presample="auto")
    assert warned[0].filename == __file__ and (trainer.presample, trainer.sampler) == (3.0, "auto")
    with pytest.raises(ValueError, match=r"`presample` must be a finite number .* Received: presample='all'"):
        ImportanceTraining(model, presample="all")


def test_states_saved_with_presample_auto_are_refused_and_others_of_that_version_are_loaded(tmp_path):
    model, *xy = build()
    trainer, path = ImportanceTraining(model, tau_th=0), tmp_path / "state.npz"
    fit(trainer, *xy)
    trainer.save_state(path)
    with np.load(path) as saved:
        arrays = dict(saved)
    header = json.loads(str(arrays["header"]))
    header["counters"]["presample"] = 0.0  # as the version that had the option saved it
    np.savez(path, **{**arrays, "header": np.array(json.dumps(header))})
    other = ImportanceTraining(model, tau_th=0)
    other.load_state(path)
    assert other.importance_steps == trainer.importance_steps == 30
    header["kind"] = 'ImportanceTraining with presample="auto"'
    averages = np.zeros(7, "float32")
    np.savez(path, **{**arrays, "header": np.array(json.dumps(header)), "averages": averages})
    with pytest.raises(ValueError, match=r'`save_state` of another ImportanceTraining wrote.*presample="auto"'):
        other.load_state(path)
