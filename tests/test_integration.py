"""Real clients of `fit`, each once, against the real package; `pip install -e '.[integration]'` installs them."""

import keras
import numpy as np
import pytest
from frameworks import needs, tf
from keras import layers

from importance_sampling.labels import label_suspicion, out_of_sample
from importance_sampling.training import ImportanceTraining

# The clients' own.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
    pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer"),  # into a model that never trained
]


def client(name):
    """A package of the extra `integration`, without which the test is skipped."""
    return pytest.importorskip(name, reason=f"{name} isn't installed: pip install -e '.[integration]'")


def rows(count=96):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 8)).astype("float32")
    return x, x[:, :3].argmax(1)


def build(units=8, classes=3, loss="sparse_categorical_crossentropy"):
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(units, activation="relu"), layers.Dense(classes, activation="softmax")]
    )
    model.compile("adam", loss, metrics=["accuracy"])
    return model


@pytest.mark.parametrize("tau_th", [None, 0], ids=["closed", "open"])
def test_a_tuner_searches_over_the_presample(tmp_path, tau_th):
    keras_tuner = client("keras_tuner")
    trainers = []

    class Sampled(keras_tuner.HyperModel):
        def build(self, hp):
            return build(hp.Int("units", 4, 8, step=4))

        def fit(self, hp, model, *args, **kwargs):
            trainers.append(ImportanceTraining(model, presample=hp.Choice("presample", [2.0, 3.0]), tau_th=tau_th))
            return trainers[-1].fit(*args, **kwargs)

    tuner = keras_tuner.RandomSearch(
        Sampled(), objective="val_accuracy", max_trials=2, directory=tmp_path, project_name="search", seed=1
    )
    x, y = rows()
    tuner.search(x, y, batch_size=16, epochs=2, validation_split=0.25, verbose=0)
    assert [trainer.importance_steps for trainer in trainers] == ([0, 0] if tau_th is None else [10, 10])
    best = tuner.oracle.get_best_trials(1)[0]
    assert best.hyperparameters.get("presample") in (2.0, 3.0)
    assert set(best.metrics.metrics) >= {"loss", "accuracy", "val_loss", "val_accuracy"}
    # The checkpoint of the best epoch is the user's own model.
    restored = tuner.get_best_models(1)[0].evaluate(x[72:], y[72:], verbose=0, return_dict=True)
    assert restored["accuracy"] == pytest.approx(best.score)


@pytest.mark.parametrize("tau_th", [None, 0], ids=["closed", "open"])
def test_a_tracker_logs_the_run(tmp_path, monkeypatch, tau_th):
    mlflow = client("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    mlflow.keras.autolog(log_models=False, log_datasets=False)
    try:
        x, y = rows()
        with mlflow.start_run() as run:
            trainer = ImportanceTraining(build(), tau_th=tau_th)
            history = trainer.fit(x, y, batch_size=16, epochs=2, verbose=0).history
    finally:
        mlflow.keras.autolog(disable=True)
    logged = mlflow.get_run(run.info.run_id).data
    assert logged.params["batch_size"] == "16" and logged.params["epochs"] == "2"
    assert logged.metrics["loss"] == pytest.approx(history["loss"][-1])
    assert logged.metrics["accuracy"] == pytest.approx(history["accuracy"][-1])
    assert logged.metrics["importance"] == (0.0 if tau_th is None else 1.0)
    assert trainer.importance_steps == (0 if tau_th is None else 12)


@needs("TensorFlow")  # with which Keras writes the files
@pytest.mark.parametrize("tau_th", [None, 0], ids=["closed", "open"])
def test_tensorboard_shows_the_metrics_of_the_model(tmp_path, tau_th):
    client("tensorboard")
    x, y = rows()
    board = keras.callbacks.TensorBoard(tmp_path, update_freq=1, histogram_freq=1, write_graph=False)
    ImportanceTraining(build(), tau_th=tau_th).fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[board])
    (file,) = (tmp_path / "train").glob("*.tfevents*")
    events = tf.compat.v1.train.summary_iterator(str(file))
    steps = {value.tag: event.step for event in events for value in event.summary.value}
    assert {"batch_loss", "epoch_loss", "epoch_accuracy"} <= set(steps)
    assert any(tag.endswith("kernel/histogram") for tag in steps)
    assert not any(name in tag for tag in steps for name in ("tau", "importance", "score"))
    assert steps["batch_loss"] == 12


class Sampled(keras.Sequential):
    """A model that trains by importance sampling by itself, for clients that call the `fit` of a model."""

    def fit(self, *args, **kwargs):
        self.trainer = ImportanceTraining(self, tau_th=0)
        return self.trainer.fit(*args, **kwargs)


def by_class(model):
    inner = Sampled(model.layers)
    inner.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return inner


def by_attribute(model):
    model.trainer = ImportanceTraining(model, tau_th=0)
    model.fit = model.trainer.fit
    return model


@pytest.mark.parametrize("own", [by_class, by_attribute])
def test_a_classifier_of_scikit_learn_trains_a_model_that_samples(own):
    client("sklearn")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def make(X, y):
        return own(build(classes=y.shape[1], loss="categorical_crossentropy"))

    x, y = rows(288)
    classifier = keras.wrappers.SKLearnClassifier(make, fit_kwargs=dict(batch_size=16, epochs=20, verbose=0))
    pipeline = make_pipeline(StandardScaler(), classifier).fit(x, np.array(["a", "b", "c"])[y])
    assert classifier.history_.history["importance"] == [1.0] * 20
    assert classifier.model_.trainer.importance_steps == 20 * 18
    assert pipeline.score(x, np.array(["a", "b", "c"])[y]) > 0.5


def test_cleanlab_finds_wrong_labels_from_predictions_out_of_sample():
    filters = client("cleanlab.filter")
    x, y = rows(300)
    random = np.random.default_rng(3)
    wrong = random.random(len(y)) < 0.2
    labels = np.where(wrong, (y + random.integers(1, 3, len(y))) % 3, y)
    keras.utils.set_random_seed(2)
    model = build()
    model.optimizer.learning_rate = 0.02
    predicted = out_of_sample(model, x, labels, batch_size=16, epochs=30, seed=1)
    found = filters.find_label_issues(
        labels, predicted.probabilities, return_indices_ranked_by="normalized_margin", n_jobs=1
    )
    # Of 300 labels 20 % are wrong, so that 20 found at random would have 4 +- 1.8 wrong ones.
    assert wrong[found[:20]].sum() >= 15
    suspicious = np.argsort(-label_suspicion(labels, predicted.probabilities))
    assert wrong[suspicious[:20]].sum() >= 15
