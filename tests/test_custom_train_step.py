"""Models that define `train_step`: they are given importance weights as sample weights, if they use them rightly."""

import contextlib

import keras
import numpy as np
import pytest
from frameworks import dtype_policy
from keras import layers, ops

with contextlib.suppress(ImportError):
    import tensorflow as tf
with contextlib.suppress(ImportError):
    import jax

from importance_sampling import ImportanceTraining
from importance_sampling.core.train_step_check import check_train_step
from importance_sampling.training import HistoryImportanceTraining, ReshuffleTraining, SelectiveBackprop

compiled = {"tensorflow": lambda f: tf.function(f), "jax": lambda f: jax.jit(f), "torch": lambda f: f}[
    keras.config.backend()
]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 6)).astype("float32")
Y = (X[:, :3] + 0.3 * RNG.normal(size=(96, 3))).argmax(1)
WEIGHTS = np.linspace(0.5, 2.0, 96, dtype="float32")
POOLS = {"sampler": "pool"}


class OwnStep(keras.Model):
    """Defines `train_step`, on each backend; `change` replaces `(x, y, sample_weight)`."""

    change = staticmethod(lambda *data: data)

    def train_step(self, *arguments):
        *state, data = arguments
        data = keras.utils.unpack_x_y_sample_weight(data)
        return super().train_step(*state, self.change(*data))


def changed(change):
    return type("Changed", (OwnStep,), {"change": staticmethod(change)})


def classifier(kind=keras.Model, **options):
    keras.utils.set_random_seed(3)
    x = keras.Input((6,))
    hidden = layers.Dense(8, "relu", kernel_regularizer=options.pop("regulariser", None))(x)
    if options.pop("dropout", False):
        hidden = layers.Dropout(0.3)(layers.BatchNormalization()(hidden))
    model = kind(x, layers.Dense(3, "softmax")(hidden))
    model.compile("sgd", "sparse_categorical_crossentropy", **options)
    return model


def regularised(kind=keras.Model):
    return classifier(kind, regulariser="l2")


def temporal(kind=keras.Model):
    """Two outputs, one of them with a loss value for each time step."""
    keras.utils.set_random_seed(3)
    x = keras.Input((6,))
    sequence = layers.Dense(2, name="sequence")(layers.Reshape((3, 2))(x))
    model = kind(x, {"sequence": sequence, "total": layers.Dense(1, name="total")(x)})
    model.compile("sgd", {"sequence": "mse", "total": "mse"})
    return model


TEMPORAL_Y = {"sequence": X.reshape(-1, 3, 2) ** 2, "total": X.sum(1, keepdims=True)}


def fit(trainer, y=Y, x=X, epochs=1, **arguments):
    return trainer.fit(x, y, batch_size=16, epochs=epochs, verbose=0, **arguments)


def assert_equal_weights(model, other, tolerance=2e-6):
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=tolerance)


@pytest.mark.parametrize("options", [{"sampler": "reshuffle"}, POOLS], ids=["rows", "pools"])
@pytest.mark.parametrize(
    ("build", "y", "arguments"),
    [
        (classifier, Y, {}),
        (classifier, Y, {"sample_weight": WEIGHTS}),
        (regularised, Y, {}),
        (temporal, TEMPORAL_Y, {}),
    ],
    ids=["plain", "sample weights", "weight regulariser", "two outputs in time"],
)
def test_an_importance_step_by_a_train_step_equals_the_step_of_the_library(options, build, y, arguments):
    own, standard = build(OwnStep), build()
    trainer = ImportanceTraining(own, tau_th=0, seed=1, **options)
    fit(trainer, y, **arguments)
    reference = ImportanceTraining(standard, tau_th=0, seed=1, **options)
    fit(reference, y, **arguments)
    assert trainer.importance_steps == reference.importance_steps > 0
    assert_equal_weights(own, standard)


def test_a_stream_is_drawn_from_by_pools_for_a_train_step():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            return X[16 * i : 16 * i + 16], Y[16 * i : 16 * i + 16]

    models = []
    for kind in (OwnStep, keras.Model):
        models.append(classifier(kind))
        trainer = ImportanceTraining(models[-1], tau_th=0, seed=1)
        trainer.fit(Batches(), verbose=0)
        assert trainer.importance_steps > 0
    assert_equal_weights(*models)


@pytest.mark.parametrize("make", [ReshuffleTraining, HistoryImportanceTraining])
def test_trainers_that_score_all_samples_regularly_train_by_a_train_step(make):
    trainer = make(classifier(OwnStep), recompute=1, seed=1)
    losses = fit(trainer, epochs=4).history["loss"]
    assert trainer.importance_steps == 24 and losses[-1] < losses[0]


@pytest.mark.parametrize(
    "options", [{"sampler": "reshuffle", "tau_th": 1e9}, {"tau_th": 1e9}, {"tau_th": float("inf")}]
)
def test_while_the_gate_is_closed_a_train_step_trains_as_fit_does_bit_for_bit(options):
    plain = classifier(OwnStep, dropout=True, metrics=["accuracy"])
    history = fit(plain, epochs=2).history
    model = classifier(OwnStep, dropout=True, metrics=["accuracy"])
    trainer = ImportanceTraining(model, **options)
    own = fit(trainer, epochs=2).history
    assert trainer.importance_steps == 0
    assert all(own[name] == values for name, values in history.items())
    assert_equal_weights(plain, model, tolerance=0)


def test_trying_a_train_step_changes_neither_the_model_nor_its_optimizer():
    model = classifier(OwnStep, dropout=True, metrics=["accuracy"])
    fit(model)
    before = [ops.convert_to_numpy(v) + 0 for v in (*model.variables, *model.optimizer.variables)]
    batch = tuple(ops.convert_to_tensor(part[:16]) for part in (X, Y)) + (None,)
    check_train_step(model, batch, [1])
    for one, other in zip(before, (*model.variables, *model.optimizer.variables), strict=True):
        np.testing.assert_array_equal(one, ops.convert_to_numpy(other))


class Noise:
    def __init__(self):
        self.random = np.random.default_rng(0)

    def __call__(self, x, y, w):
        return x + ops.convert_to_tensor(self.random.normal(size=(6,)).astype("float32")), y, w


REFUSED = {
    "ignores the weights": (lambda x, y, w: (x, y), "ignores sample weights"),
    "can't take them": (
        lambda x, y, w: (x, y, 1 / 0 if w is not None else None),
        "can't be called with sample weights",
    ),
    "divides by their mean": (lambda x, y, w: (x, y, w if w is None else w / ops.mean(w)), "aren't proportional"),
    "uses them as a mask": (
        lambda x, y, w: (x, y, w if w is None else ops.cast(w > 0, "float32")),
        "aren't proportional",
    ),
    "halves them": (lambda x, y, w: (x, y, w if w is None else 0.5 * w), "aren't proportional"),
    "adds a term": (lambda x, y, w: (x, y, w if w is None else (1 + w) / 2), "isn't multiplied by the sample weights"),
    "mixes rows": (lambda x, y, w: ((x + ops.flip(x, 0)) / 2, y, w), "depends on the other samples"),
    "draws its own numbers": (Noise(), "can't be repeated"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_train_step_that_does_not_weight_its_samples_trains_uniformly_with_one_warning(name):
    change, reason = REFUSED[name]
    trainer = ImportanceTraining(classifier(changed(change)), tau_th=0)
    with pytest.warns(UserWarning, match=f"trains as `model.fit` trains it: .*{reason}") as captured:
        history = fit(trainer)
    assert trainer.importance_steps == 0 and np.isfinite(history.history["loss"]).all()
    assert sum(issubclass(warning.category, UserWarning) for warning in captured) == 1
    assert trainer.summary().startswith("Uniform training throughout (6 steps): ")


def test_rows_that_a_train_step_mixes_are_found_beside_batch_normalisation():
    kind = changed(lambda x, y, w: ((x + ops.roll(x, 2, axis=0)) / 2, y, w))
    with pytest.warns(UserWarning, match="depends on the other samples"):
        fit(ImportanceTraining(classifier(kind, dropout=True), tau_th=0))


@pytest.mark.fast
def test_a_train_step_that_changes_weights_beside_the_optimizer_trains_uniformly():
    class Decaying(OwnStep):
        def train_step(self, *arguments):
            result = super().train_step(*arguments)
            if not isinstance(result, tuple):
                self.trainable_variables[0].assign(0.9 * self.trainable_variables[0])
                return result
            (first, *others), *rest = result[1]
            return result[0], ([0.9 * first, *others], *rest)

    with pytest.warns(UserWarning, match="changes trainable weights itself"):
        fit(ImportanceTraining(classifier(Decaying), tau_th=0))


def test_a_function_that_a_train_step_compiles_trains_the_model_after_the_trial():
    class Compiled(OwnStep):
        def train_step(self, *arguments):
            if not hasattr(self, "compiled_step"):
                self.compiled_step = compiled(super().train_step)
            return self.compiled_step(*arguments)

    own, standard = classifier(Compiled), classifier()
    for model in (own, standard):
        trainer = ImportanceTraining(model, tau_th=0, sampler="reshuffle", seed=1)
        fit(trainer)
        assert trainer.importance_steps == 6
    assert_equal_weights(own, standard)


@pytest.mark.fast
def test_a_train_step_is_not_tried_while_the_gate_is_closed():
    calls = []
    kind = changed(lambda *data: calls.append(1) or data)
    fit(ImportanceTraining(classifier(kind, run_eagerly=keras.config.backend() != "jax"), tau_th=1e9), epochs=2)
    assert len(calls) == (1 if keras.config.backend() == "jax" else 12)


@pytest.mark.parametrize("dtype", ["int32", "bool", "float16"])
def test_sample_weights_of_every_dtype_reach_a_train_step_with_the_importance_weights(dtype):
    own, standard = classifier(OwnStep), classifier()
    for model, weights in ((own, (WEIGHTS > 1).astype(dtype)), (standard, (WEIGHTS > 1).astype("float32"))):
        trainer = ImportanceTraining(model, tau_th=0, sampler="reshuffle", seed=1)
        fit(trainer, sample_weight=weights)
        assert trainer.importance_steps == 6
    assert_equal_weights(own, standard, tolerance=2e-3 if dtype == "float16" else 2e-6)


def test_a_train_step_in_mixed_precision_takes_importance_steps():
    with dtype_policy("mixed_float16"):
        model = classifier(OwnStep)
    trainer = ImportanceTraining(model, tau_th=0, sampler="reshuffle")
    fit(trainer)
    assert trainer.importance_steps == 6


def test_a_train_step_that_calls_the_optimizer_twice_trains_uniformly():
    class Twice(keras.Model):
        def train_step(self, *arguments):
            result = super().train_step(*arguments)
            return super().train_step(*((result[1], *arguments[1:]) if isinstance(result, tuple) else arguments))

    trainer = ImportanceTraining(classifier(Twice), tau_th=0)
    with pytest.warns(UserWarning, match="called optimizers 2 times"):
        fit(trainer)
    assert trainer.importance_steps == 0


def test_a_loss_over_the_valid_entries_of_a_mask_is_not_weighted_by_a_train_step():
    keras.utils.set_random_seed(3)
    x = keras.Input((4,), dtype="int32")
    model = OwnStep(x, layers.Dense(1)(layers.Embedding(5, 3, mask_zero=True)(x)))
    model.compile("sgd", "mse")
    tokens = RNG.integers(0, 5, (96, 4))
    with pytest.warns(UserWarning, match="number of valid entries of a mask"):
        fit(ImportanceTraining(model, tau_th=0), tokens[..., None].astype("float32"), tokens)


def test_a_trainer_that_needs_measured_scores_trains_a_train_step_uniformly_and_names_the_remedy():
    for trainer in (ReshuffleTraining(classifier(OwnStep)), SelectiveBackprop(classifier(OwnStep))):
        with pytest.warns(UserWarning, match="defines a training step.*Use `ImportanceTraining`.*`recompute=1`"):
            fit(trainer)
        assert trainer.importance_steps == 0


def test_one_warning_says_which_samples_the_training_metrics_are_of_and_the_summary_repeats_it():
    trainer = ImportanceTraining(classifier(OwnStep, metrics=["accuracy"]), tau_th=0)
    with pytest.warns(UserWarning, match="accuracy, are those of the drawn samples") as captured:
        fit(trainer, epochs=2)
    assert sum("drawn samples" in str(warning.message) for warning in captured) == 1
    assert "accuracy, are those of the drawn samples" in trainer.summary()


def test_the_loss_of_importance_steps_by_a_train_step_is_unbiased():
    model = classifier(OwnStep)
    model.optimizer.learning_rate = 0.0
    fit(model)
    trainer = ImportanceTraining(model, tau_th=0, sampler="reshuffle", seed=1)
    losses = fit(trainer, epochs=40).history["loss"]
    expected = model.evaluate(X, Y, verbose=0)
    error = np.std(losses, ddof=1) / np.sqrt(len(losses))
    assert trainer.importance_steps == 240
    assert abs(np.mean(losses) - expected) < 5 * error < 0.05 * expected
