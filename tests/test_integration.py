"""Real clients of `fit`, each once, against the real package; `pip install -e '.[integration]'` installs them."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from frameworks import needs, tf
from keras import layers

from importance_sampling.labels import label_suspicion, out_of_sample
from importance_sampling.training import ImportanceTraining

RECIPES = Path(__file__).parents[1] / "docs" / "pages" / "recipes.md"

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


def test_the_recipe_for_a_tuner_makes_the_way_to_train_a_choice(tmp_path, monkeypatch):
    keras_tuner = client("keras_tuner")
    monkeypatch.chdir(tmp_path)
    build_model, recipe = (
        next(
            code
            for code in re.findall(r"^```py(?:thon)?\n(.*?)^```$", RECIPES.read_text("utf-8"), re.M | re.S)
            if word in code
        )
        for word in ("def build_model", "import keras_tuner")
    )
    for long, short in {"max_trials=20": "max_trials=4, seed=1", "epochs=10": "epochs=2, verbose=0"}.items():
        assert long in recipe
        recipe = recipe.replace(long, short)
    trained = []

    class Recorded(ImportanceTraining):
        def fit(self, *args, **kwargs):
            trained.append(self)
            return super().fit(*args, **kwargs)

    random = np.random.default_rng(0)
    x, y = random.random((160, 784), "float32"), np.eye(10)[random.integers(10, size=160)]
    names = dict(x_train=x[:128], y_train=y[:128], x_test=x[128:], y_test=y[128:])
    exec(build_model, names)
    names["ImportanceTraining"] = Recorded
    exec(recipe, names)
    trials = names["tuner"].oracle.get_best_trials(4)
    ways = [trial.hyperparameters.get("way") for trial in trials]
    assert len(ways) == 4 and set(ways) == {"uniform", "importance"}
    assert len(trained) == ways.count("importance")
    # The choice alone decides, also in a search that has fixed it.
    for way, count in (("uniform", 0), ("importance", 1)):
        trained.clear()
        fixed = keras_tuner.HyperParameters()
        fixed.Fixed("way", way)
        search = names["Search"]()
        history = search.fit(fixed, search.build(fixed), x, y, epochs=1, verbose=0)
        assert len(trained) == count and ("importance" in history.history) == bool(count)


class WandbStyleLogger(keras.callbacks.Callback):
    """Logs what the callback of Weights & Biases does: the logs of every batch and epoch, and the learning rate."""

    def __init__(self):
        super().__init__()
        self.logged = []

    def log(self, prefix, step, logs):
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.logged.append({f"{prefix}/{name}": value for name, value in logs.items()})
        self.logged[-1] |= {f"{prefix}/{prefix}_step": step, f"{prefix}/learning_rate": rate}

    def on_train_batch_end(self, batch, logs=None):
        self.log("batch", batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self.log("epoch", epoch, logs)


@pytest.mark.parametrize("tau_th", [None, 0], ids=["closed", "open"])
@pytest.mark.parametrize("after_history", [False, True])
def test_a_callback_in_the_style_of_weights_and_biases_logs_every_batch_and_epoch(tau_th, after_history):
    x, y = rows()
    logger, own = WandbStyleLogger(), keras.callbacks.History()
    trainer = ImportanceTraining(build(), tau_th=tau_th)
    callbacks = [own, logger] if after_history else [logger]
    history = trainer.fit(x, y, batch_size=16, epochs=2, validation_split=0.25, verbose=0, callbacks=callbacks).history
    batches, epochs = ([logs for logs in logger.logged if f"{kind}/loss" in logs] for kind in ("batch", "epoch"))
    assert [logs["batch/batch_step"] for logs in batches] == [0, 1, 2, 3, 4] * 2
    own_figures = {"importance", "tau", "score"} if after_history else set()
    of_batches = {"loss", "accuracy", *own_figures}
    assert set(batches[0]) == {f"batch/{name}" for name in (*of_batches, "batch_step", "learning_rate")}
    measured = {"loss", "accuracy", "val_loss", "val_accuracy", *own_figures}
    assert set(epochs[0]) == {f"epoch/{name}" for name in (*measured, "epoch_step", "learning_rate")}
    for name in measured:
        assert [logs[f"epoch/{name}"] for logs in epochs] == pytest.approx(history[name], nan_ok=True)
    # Trackers take numbers, and the last batch has the means of its epoch, as with `model.fit`.
    assert all(isinstance(value, (int, float, np.floating)) for logs in logger.logged for value in logs.values())
    assert [batches[4]["batch/loss"], batches[9]["batch/loss"]] == pytest.approx(history["loss"])
    assert trainer.importance_steps == (0 if tau_th is None else 10)


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
