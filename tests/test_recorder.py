"""The recorder counts draws, weights and scores by row, and refuses data without row indices."""

import sys
import weakref

import keras
import numpy as np
import pytest
from frameworks import several
from toys import stream

from importance_sampling.callbacks import SamplingCallback, SamplingRecorder
from importance_sampling.callbacks.epoch_draws import EpochDraws, weighted_quantiles
from importance_sampling.events import SAMPLE, SCORE
from importance_sampling.training import SVRG, BiasedImportanceTraining, ImportanceTraining, ReshuffleTraining

ROWS, BATCH = 50, 8
RNG = np.random.default_rng(5)
X = RNG.normal(size=(ROWS, 4)).astype("float32")
Y = X[:, :3].argmax(1)


def build(**options):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", **options)
    return model


def fit(trainer, recorder, x=X, y=Y, **options):
    trainer.fit(x, y, **{"batch_size": BATCH, "verbose": 0, "callbacks": [recorder], **options})


def record(recorder, indices, weights, scores):
    recorder.on_sample(None, np.array(indices), np.array(weights, "float32"), np.array(scores, "float32"))


# Numbers


def test_draws_weights_and_last_scores_are_recorded_by_row():
    recorder = SamplingRecorder()
    recorder.connect(4, dict)
    record(recorder, [3, 1, 3], [0.5, 2.0, 0.5], [4.0, 1.0, 4.0])
    record(recorder, [1, 0, 2], [1.0, 1.0, 1.0], [np.nan] * 3)  # a uniform step
    record(recorder, [3, 1, 1], [0.25, 4.0, 4.0], [8.0, 0.5, 0.5])
    assert recorder.draws.tolist() == [1, 4, 1, 3]
    assert recorder.weights.tolist() == [1.0, 11.0, 1.0, 1.25]
    np.testing.assert_array_equal(recorder.last_score, np.array([np.nan, 0.5, np.nan, 8.0], "float32"))


def test_a_nan_score_does_not_replace_the_last_score():
    recorder = SamplingRecorder()
    recorder.connect(2, dict)
    record(recorder, [0, 1], [1.0, 1.0], [3.0, 5.0])
    record(recorder, [0, 1], [1.0, 1.0], [np.nan, 7.0])
    assert recorder.last_score.tolist() == [3.0, 7.0] and recorder.draws.tolist() == [2, 2]


def test_quantiles_count_every_sample_by_its_weight():
    # Cumulative shares of 6: 1 to 1/6, 2 to 5/6, 9 to 1. So the 5 % quantile is 1; those of 25, 50 and 75 % are 2.
    assert weighted_quantiles(np.array([9.0, 1.0, 2.0]), np.array([1.0, 1.0, 4.0])).tolist() == [1, 2, 2, 2, 9]


def test_epoch_draws_collect_batches_with_scores_and_their_mean_effective_size():
    epoch = EpochDraws()
    assert not epoch and np.isnan(epoch.quantiles()).all()
    epoch.add(np.array([1.0, 3.0]), np.array([6.0, 2.0]))  # 16 / 10
    epoch.add(np.array([2.0, 2.0]), np.array([1.0, 4.0]))  # 16 / 8
    epoch.add(np.ones(2), np.full(2, np.nan))  # a uniform step
    assert epoch.effective_size == pytest.approx(1.8)
    assert epoch.scores.tolist() == [6, 2, 1, 4] and epoch.weights.tolist() == [1, 3, 2, 2]
    epoch.reset()
    assert not epoch


def test_quantiles_exclude_batches_of_an_interrupted_epoch():
    recorder = SamplingRecorder()
    recorder.connect(4, dict)
    recorder.on_epoch_begin(0)
    record(recorder, [0, 1], [1.0, 1.0], [100.0, 100.0])
    recorder.on_epoch_begin(0)  # of another `fit`
    record(recorder, [2, 3], [1.0, 1.0], [2.0, 2.0])
    recorder.on_epoch_end(0)
    assert recorder.draws.tolist() == [1, 1, 1, 1] and recorder.score_quantiles.tolist() == [[2.0] * 5]


def test_batches_are_counted_many_at_a_time_without_loss():
    recorder = SamplingRecorder()
    recorder.connect(3, dict)
    batches = []
    for batch in range(100):
        indices = np.array([0, batch % 2 + 1])
        batches.append(weakref.ref(indices))
        recorder.on_sample(None, indices, np.array([0.5, 2.0], "float32"), np.array([batch, 1], "float32"))
    del indices
    assert sum(batch() is not None for batch in batches) == 36  # 64 were counted at once
    assert recorder.draws.tolist() == [100, 50, 50] and recorder.last_score.tolist() == [99, 1, 1]
    assert recorder.weights.tolist() == [50.0, 100.0, 100.0]
    assert all(batch() is None for batch in batches)


# Trainers

TRAINERS = {
    "pool, executions of three steps": (lambda m: BiasedImportanceTraining(m, presample=16, seed=1), several(3)),
    "uniform": (lambda m: ImportanceTraining(m, tau_th=float("inf"), seed=1), 1),
    "reshuffle": (lambda m: ReshuffleTraining(m, seed=1), 1),
    "variance-reduced": (lambda m: SVRG(m, B=0, B_over_b=4, seed=1), 1),
}


@pytest.mark.parametrize("name", TRAINERS)
@pytest.mark.slow
def test_the_recorder_counts_the_samples_of_several_fits(name):
    make, steps_per_execution = TRAINERS[name]
    trainer = make(build(steps_per_execution=steps_per_execution))
    recorder, received = SamplingRecorder(), []
    for epochs in (1, 3):
        fit(trainer, recorder, epochs=epochs, on_sample=lambda *args: received.append(args[1:]))
    assert len(received) == 4 * -(-ROWS // BATCH)
    indices, weights, scores = map(np.concatenate, zip(*received, strict=True))
    np.testing.assert_array_equal(recorder.draws, np.bincount(indices, minlength=ROWS))
    np.testing.assert_allclose(recorder.weights, np.bincount(indices, weights, ROWS))
    scored = ~np.isnan(scores)
    last = dict(zip(indices[scored], scores[scored], strict=True))
    np.testing.assert_array_equal(
        recorder.last_score, np.array([last.get(row, np.nan) for row in range(ROWS)], "float32")
    )
    assert recorder.score_quantiles.shape == recorder.weight_quantiles.shape == (4, 5)
    assert (
        np.isfinite(recorder.score_quantiles[-1]).all() == scored[-1] == (name not in ("uniform", "variance-reduced"))
    )
    assert not SAMPLE.receivers and not SCORE.receivers


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.slow
def test_the_recorder_goes_on_counting_after_a_resumed_fit(tmp_path, is_first):
    class Stop(Exception):
        pass

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 16:  # in the third epoch of seven steps
                raise Stop

    def run(*callbacks):
        keras.utils.set_random_seed(2)
        recorder, trainer = SamplingRecorder(), ReshuffleTraining(build(), seed=1)
        callbacks = [recorder, *callbacks] if is_first else [*callbacks, recorder]
        fit(trainer, recorder, epochs=4, callbacks=callbacks)
        return recorder

    whole = run()
    with pytest.raises(Stop):
        run(keras.callbacks.BackupAndRestore(tmp_path / "backup"), Interrupt())
    resumed = run(keras.callbacks.BackupAndRestore(tmp_path / "backup"))
    # The third epoch, which was interrupted, is counted once.
    np.testing.assert_array_equal(resumed.draws, whole.draws)
    np.testing.assert_allclose(resumed.weights, whole.weights, rtol=1e-6)
    assert resumed.score_quantiles.shape == (4, 5)
    np.testing.assert_allclose(resumed.score_quantiles[:2], whole.score_quantiles[:2])


@pytest.mark.slow
def test_a_recorder_of_other_rows_is_not_restored(tmp_path):
    trainer, recorder = ImportanceTraining(build(), tau_th=0, seed=1), SamplingRecorder()
    fit(trainer, recorder)
    trainer.save_state(tmp_path / "state.npz")
    other = ImportanceTraining(build(), tau_th=0, seed=1)
    other.load_state(tmp_path / "state.npz")
    with pytest.raises(ValueError, match="Received: a state of 50 rows, for 40"):
        fit(other, SamplingRecorder(), X[:40], Y[:40])


def test_rows_of_the_validation_split_are_not_counted():
    recorder = SamplingRecorder()
    fit(ImportanceTraining(build(), tau_th=float("inf")), recorder, validation_split=0.2)
    assert recorder.draws.tolist() == [1] * 40


@pytest.mark.slow
def test_the_draws_of_another_trainer_are_not_recorded():
    recorder, other = SamplingRecorder(), ImportanceTraining(build(), tau_th=float("inf"))
    meanwhile = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: other.fit(X[:8], Y[:8], verbose=0, on_sample=lambda *_: None)
    )
    fit(ImportanceTraining(build(), tau_th=float("inf")), recorder, callbacks=[[recorder, meanwhile], recorder])
    assert recorder.draws.tolist() == [1] * ROWS


def test_only_callbacks_that_need_rows_receive_the_samples_of_uniform_steps():
    class CountsSteps(SamplingCallback):
        steps = 0

        def on_sample(self, sampler, indices, weights, scores):
            self.steps += 1

    class NeedsRows(CountsSteps):
        needs_rows = True

    counts, needs = CountsSteps(), NeedsRows()
    trainer = ImportanceTraining(build(), tau_th=float("inf"))
    fit(trainer, counts)
    assert counts.steps == 0
    fit(trainer, needs)
    assert needs.steps == 7
    fit(trainer, counts, callbacks=[counts, NeedsRows()])  # whoever else listens
    assert counts.steps == 0
    fit(ImportanceTraining(build(), tau_th=0.0, sampler="reshuffle"), counts)
    assert counts.steps == 7


# Errors and warnings


def test_the_recorder_warns_in_the_fit_of_a_model_also_after_a_failed_fit_of_a_trainer():
    def fail(batch, logs):
        raise ZeroDivisionError("on purpose")

    recorder, model = SamplingRecorder(), build()
    trainer = ImportanceTraining(model, tau_th=float("inf"))
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        fit(trainer, recorder, callbacks=[recorder, keras.callbacks.LambdaCallback(on_train_batch_end=fail)])
    with pytest.warns(
        UserWarning, match=r"SamplingRecorder receives no samples: .* Received: the `fit` of a model"
    ) as caught:
        fit(model, recorder)
    assert caught[0].filename == __file__
    assert recorder.draws.sum() == BATCH


def test_the_recorder_refuses_streams():
    model = build()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"SamplingRecorder needs row indices: .* a stream"):
        ImportanceTraining(model).fit(stream(X, Y, BATCH), verbose=0, callbacks=[SamplingRecorder()])
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


def test_the_recorder_refuses_another_training_set():
    recorder, trainer = SamplingRecorder(), ImportanceTraining(build(), tau_th=float("inf"))
    fit(trainer, recorder)
    with pytest.raises(ValueError, match=r"records a single training set. .* Received: 49 rows, after 50"):
        fit(trainer, recorder, X[1:], Y[1:])
    assert recorder.draws.tolist() == [1] * ROWS


def test_the_recorder_warns_if_the_model_has_its_own_train_function():
    class Own(keras.Sequential):
        def make_train_function(self, force=False):
            return super().make_train_function(force)

    model = Own([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with (
        pytest.warns(UserWarning, match="SamplingRecorder records nothing: Own overrides `make_train_function`"),
        pytest.warns(UserWarning, match="Importance sampling stays off"),
    ):
        fit(ImportanceTraining(model), SamplingRecorder())


# Results


@pytest.fixture
def recorded():
    recorder = SamplingRecorder()
    recorder.connect(3, dict)
    record(recorder, [2, 0, 2], [0.5, 1.5, 0.25], [1.25, 0.1, 1.25])
    return recorder


def test_the_recorder_saves_npz_and_csv_files(recorded, tmp_path):
    recorded.save(tmp_path / "draws.npz")
    with np.load(tmp_path / "draws.npz") as saved:
        for name, array in recorded.arrays().items():
            np.testing.assert_array_equal(saved[name], array)
    recorded.save(str(tmp_path / "draws.csv"))
    lines = (tmp_path / "draws.csv").read_text().splitlines()
    assert lines == ["row,draws,weights,last_score", "0,1,1.5,0.1", "1,0,0,", "2,2,0.75,1.25"]
    with pytest.raises(ValueError, match=r"`path` must end in .npz or .csv. Received: path='draws.txt'"):
        recorded.save("draws.txt")


def test_the_recorder_returns_a_pandas_frame_if_pandas_is_installed(recorded, monkeypatch):
    pandas = pytest.importorskip("pandas")
    frame = recorded.frame()
    assert isinstance(frame, pandas.DataFrame) and frame.index.name == "row"
    assert frame.loc[2, ["draws", "weights", "last_score"]].tolist() == [2, 0.75, 1.25]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"`frame` needs pandas: pip install pandas"):
        recorded.frame()
