"""The `floatx` and the dtype policy change the precision of the results, and nothing else."""

import functools

import keras
import numpy as np
import pytest
from frameworks import skip_without
from keras import layers, ops

from importance_sampling import ImportanceTraining
from importance_sampling.callbacks import SamplingRecorder
from importance_sampling.model_wrappers import OracleWrapper, SVRGWrapper
from importance_sampling.reweighting import BiasedReweightingPolicy
from importance_sampling.training import SVRG, HistoryImportanceTraining, Katyusha

# name: (floatx, dtype policy)
DTYPES = {
    "float64": ("float64", "float64"),
    "bfloat16": ("bfloat16", "bfloat16"),
    "float16": ("float16", "float16"),
    "policy float64": ("float32", "float64"),
    "policy bfloat16": ("float32", "bfloat16"),
    "policy float16": ("float32", "float16"),
    "mixed_bfloat16": ("float32", "mixed_bfloat16"),
    "mixed_float16": ("float32", "mixed_float16"),
}
HALVES = [name for name in DTYPES if "16" in name]
ROWS = 36
X = np.random.default_rng(3).normal(size=(ROWS, 4))
Y = (X[:, 0] + X[:, 1] > 0.3).astype("int64") + (X[:, 2] > 1.0)
W = np.random.default_rng(4).normal(size=(4, 3)) / 2
TOKENS = np.array([[1, 2, 0, 0], [3, 1, 2, 0], [2, 0, 0, 0], [4, 4, 1, 3], [1, 0, 0, 0], [2, 3, 3, 0]] * 2)


def tolerance(name):
    """Relative rounding error of a few operations in the narrowest dtype that a configuration computes in."""
    return 0.03 if "bfloat16" in name else 0.004 if "float16" in name else 1e-5


@pytest.fixture(autouse=True)
def float64_exists(request):
    """JAX has no float64 by default."""
    if "float64" in request.node.name:
        skip_without("float64")


@pytest.fixture(autouse=True)
def restored():
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    yield
    use("float32")
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


def use(name):
    floatx, policy = DTYPES.get(name, ("float32", "float32"))
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


def linear(loss="sparse_categorical_crossentropy", optimizer=None, units=3, activation="softmax", **options):
    keras.utils.set_random_seed(5)
    optimizer = optimizer or keras.optimizers.SGD(0.25)
    if keras.config.dtype_policy().name == "mixed_float16":  # by default Keras skips steps until the scale fits
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=16.0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(units, activation, **options)])
    model.compile(optimizer, loss, metrics=["accuracy"], run_eagerly=True)
    model.set_weights([W[:, :units], np.zeros(units)])
    return model


def tagger(*hidden, **options):
    keras.utils.set_random_seed(5)
    stack = [keras.Input((4,), dtype="int32"), layers.Embedding(5, 3, mask_zero=True), *hidden]
    model = keras.Sequential([*stack, layers.Dense(5, "softmax")])
    model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy", **options)
    values = np.random.default_rng(6)
    model.set_weights([values.normal(size=w.shape) / 2 for w in model.get_weights()])
    return model


def weights_of(model):
    return np.concatenate([np.asarray(w, "float64").ravel() for w in model.get_weights()])


def softmax(z):
    exponentials = np.exp(z - z.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def of_x(model, x, y):
    """A score that every dtype represents exactly, and that doesn't depend on the model's weights."""
    return ops.round(ops.abs(x[:, 0]) * 4) + 1


EXACT = np.round(X * 4) / 4

# Scores and steps


@pytest.mark.parametrize("name", DTYPES)
def test_scores_in_every_dtype_are_those_of_the_closed_form(name):
    p = softmax(X @ W)
    norms = np.linalg.norm(p - np.eye(3)[Y], axis=1)
    expected = {
        "loss": -np.log(p[np.arange(ROWS), Y]),
        "gnorm": norms,
        "full_gnorm": norms * np.sqrt(1 + np.square(X).sum(axis=1)),
    }
    use(name)
    for score, values in expected.items():
        scores = OracleWrapper(linear(), BiasedReweightingPolicy(), score).score(X, Y, batch_size=ROWS)
        assert scores.dtype == "float32"
        np.testing.assert_allclose(scores, values, rtol=tolerance(name), atol=tolerance(name), err_msg=score)


@pytest.mark.parametrize("name", DTYPES)
def test_a_step_in_every_dtype_applies_the_weighted_gradient(name):
    weights = np.linspace(0.1, 4, ROWS)
    gradient = X.T @ (weights[:, None] * (softmax(X @ W) - np.eye(3)[Y])) / ROWS
    use(name)
    model = linear(optimizer=keras.optimizers.SGD(1.0))
    losses, _, scores = OracleWrapper(model, BiasedReweightingPolicy(), "gnorm").train_batch(X, Y, weights)
    moved = W - np.asarray(model.get_weights()[0], "float64")
    np.testing.assert_allclose(moved, gradient, atol=tolerance(name))
    p = softmax(X @ W)
    np.testing.assert_allclose(losses, -np.log(p[np.arange(ROWS), Y]), rtol=tolerance(name), atol=tolerance(name))
    np.testing.assert_allclose(scores, np.linalg.norm(p - np.eye(3)[Y], axis=1), atol=tolerance(name))


@pytest.mark.parametrize("name", HALVES)
def test_scores_of_confident_mistakes_are_finite_in_half_precision(name):
    use(name)
    model = linear("binary_crossentropy", units=1, activation="sigmoid")
    model.set_weights([np.array([[1.0], [0], [0], [0]]), np.zeros(1)])
    x = np.zeros((3, 4))
    x[:, 0] = [12.0, 8.0, -12.0]  # logits
    y = np.array([[0], [0], [1]])
    scores = OracleWrapper(model, BiasedReweightingPolicy(), "gnorm").score(x, y)
    np.testing.assert_allclose(scores, [1.0, 1.0, 1.0], rtol=0.01)


@pytest.mark.parametrize(
    ("policy", "loss_dtype"), [("bfloat16", "float32"), ("mixed_bfloat16", "float64"), ("float32", "bfloat16")]
)
def test_the_dtype_of_a_layer_may_differ_from_that_of_the_loss(policy, loss_dtype):
    model = linear(keras.losses.SparseCategoricalCrossentropy(dtype=loss_dtype), dtype=policy)
    wrapper = OracleWrapper(model, BiasedReweightingPolicy(), "gnorm")
    norms = np.linalg.norm(softmax(X @ W) - np.eye(3)[Y], axis=1)
    np.testing.assert_allclose(wrapper.score(X, Y), norms, atol=0.02)
    np.testing.assert_allclose(wrapper.train_batch(X, Y, np.linspace(0.5, 2, ROWS))[2], norms, atol=0.02)


@pytest.mark.parametrize("name", ["float64", "policy bfloat16"])
def test_the_gradient_norm_can_be_taken_inside_a_model_that_adds_tensors_itself(name):
    class Residual(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner, self.out = layers.Dense(4, name="inner"), layers.Dense(1)

        def call(self, x):
            return self.out(self.inner(x) + ops.cast(x, self.inner.compute_dtype))

    use(name)
    model = Residual()
    model.compile("sgd", "mse", run_eagerly=True)
    wrapper = OracleWrapper(model, BiasedReweightingPolicy(), "gnorm", layer="inner")
    y = np.ones((ROWS, 1))
    scores = wrapper.score(X, y)
    kernel = np.asarray(model.out.get_weights()[0], "float64")
    residuals = ops.convert_to_numpy(ops.cast(model(X), "float32")).astype("float64") - y
    np.testing.assert_allclose(scores, 2 * np.abs(residuals[:, 0]) * np.linalg.norm(kernel), rtol=0.05, atol=0.05)


def scores_of_masked_sequences():
    recurrent = layers.LSTM(4, return_sequences=True, recurrent_initializer="glorot_uniform")
    return OracleWrapper(tagger(recurrent), BiasedReweightingPolicy(), "gnorm").score(TOKENS, TOKENS)


scores_of_masked_sequences_in_float32 = functools.cache(scores_of_masked_sequences)


@pytest.mark.parametrize("name", ["float64", "mixed_bfloat16"])
def test_scores_of_masked_sequences_are_those_in_float32(name):
    expected = scores_of_masked_sequences_in_float32()
    use(name)
    np.testing.assert_allclose(scores_of_masked_sequences(), expected, rtol=2 * tolerance(name))


# Draws


OPTIONS = {
    "systematic": {},
    "multinomial": {"resampling": "multinomial"},
    "reshuffle": {"sampler": "reshuffle"},
}


def draws(kind):
    drawn = []
    trainer = ImportanceTraining(linear(), tau_th=0.0, score=of_x, seed=1, **OPTIONS[kind])
    record = lambda sampler, indices, weights, scores: drawn.append((indices, weights))  # noqa: E731
    trainer.fit(EXACT, Y, batch_size=12, epochs=2, verbose=0, on_sample=record)
    return [np.stack(column) for column in zip(*drawn, strict=True)]


draws_in_float32 = functools.cache(draws)


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("name", ["float64", "bfloat16"])
def test_equal_scores_draw_the_same_rows_with_the_same_weights(name, kind):
    expected_indices, expected_weights = draws_in_float32(kind)
    use(name)
    indices, weights = draws(kind)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(weights, expected_weights)
    assert weights.dtype == "float32"


# Training

WAYS = {
    "pool": lambda model: ImportanceTraining(model, tau_th=0.0, seed=1),
    "loss": lambda model: ImportanceTraining(model, tau_th=0.0, score="loss", resampling="multinomial", seed=1),
    "reshuffle": lambda model: ImportanceTraining(model, tau_th=0.0, sampler="reshuffle", seed=1),
    "history": lambda model: HistoryImportanceTraining(model, seed=1),
    "svrg": lambda model: SVRG(model, B=2, B_over_b=4, seed=1),
    "katyusha": lambda model: Katyusha(model, B=2, B_over_b=4, seed=1),
}


def trained(way, model=None, x=X, y=Y, epochs=2, **options):
    model = model or linear()
    history = WAYS[way](model).fit(x, y, batch_size=12, epochs=epochs, verbose=0, **options).history
    return weights_of(model), [float(loss) for loss in history["loss"]]


trained_in_float32 = functools.cache(trained)


@pytest.mark.parametrize(("name", "way"), [*(("float64", way) for way in WAYS), ("policy float64", "pool")])
def test_training_in_float64_ends_where_training_in_float32_ends(name, way):
    weights, losses = trained_in_float32(way)
    use(name)
    same_weights, same_losses = trained(way)
    np.testing.assert_allclose(same_weights, weights, atol=1e-5)
    np.testing.assert_allclose(same_losses, losses, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "way"),
    [
        *((name, "pool") for name in HALVES),
        *((name, way) for name in ("bfloat16", "mixed_float16") for way in ("reshuffle", "svrg", "katyusha")),
    ],
)
def test_training_in_half_precision_ends_near_training_in_float32(name, way):
    weights, losses = trained_in_float32(way)
    use(name)
    near_weights, near_losses = trained(way)
    np.testing.assert_allclose(near_weights, weights, atol=0.1)
    np.testing.assert_allclose(near_losses, losses, rtol=0.05)


@pytest.mark.parametrize("way", ["pool", "reshuffle"])
def test_masked_sequences_in_float64_end_where_float32_ends(way):
    weights, losses = trained(way, tagger(run_eagerly=True), TOKENS, TOKENS)
    use("float64")
    same_weights, same_losses = trained(way, tagger(run_eagerly=True), TOKENS, TOKENS)
    np.testing.assert_allclose(same_weights, weights, atol=1e-4)
    np.testing.assert_allclose(same_losses, losses, rtol=1e-4)


@pytest.mark.parametrize("name", ["float64", "bfloat16", "float16", "mixed_float16"])
def test_switched_off_training_equals_fit_bit_for_bit(name):
    use(name)
    model, other = linear(), linear()
    keras.utils.set_random_seed(6)  # the order of the rows
    history = model.fit(X, Y, batch_size=12, verbose=0).history
    keras.utils.set_random_seed(6)
    other_history = ImportanceTraining(other, tau_th=float("inf")).fit(X, Y, batch_size=12, verbose=0).history
    np.testing.assert_array_equal(weights_of(other), weights_of(model))
    assert [float(loss) for loss in other_history["loss"]] == [float(loss) for loss in history["loss"]]


@pytest.mark.parametrize("name", ["float64", "bfloat16", "mixed_float16"])
def test_a_probe_in_every_dtype_measures_the_same_signals_and_leaves_training_unchanged(name):
    def tau(model):
        keras.utils.set_random_seed(6)  # the order of the rows
        history = ImportanceTraining(model, tau_th=1e9, seed=1).fit(X, Y, batch_size=12, epochs=2, verbose=0).history
        return history["tau"][-1]

    expected = tau(linear())
    use(name)
    model, plain = linear(), linear()
    assert tau(model) == pytest.approx(expected, rel=tolerance(name))
    keras.utils.set_random_seed(6)
    plain.fit(X, Y, batch_size=12, epochs=2, verbose=0)
    np.testing.assert_array_equal(weights_of(model), weights_of(plain))


# Data


@pytest.mark.parametrize(("name", "way"), [("float64", "pool"), ("float64", "reshuffle"), ("bfloat16", "pool")])
def test_sample_weights_of_every_dtype_have_the_same_effect(name, way):
    use(name)
    integers = 1 + Y  # exact in every dtype
    expected, _ = trained(way, epochs=1, sample_weight=integers.astype("float32"))
    for dtype in ("float16", "int32"):
        np.testing.assert_array_equal(trained(way, epochs=1, sample_weight=integers.astype(dtype))[0], expected)
    of_classes, _ = trained(way, epochs=1, class_weight={0: 1.0, 1: 2.0, 2: 3.0})
    np.testing.assert_array_equal(of_classes, expected)


@pytest.mark.parametrize(("name", "way"), [("float64", "pool"), ("float16", "reshuffle")])
def test_inputs_and_targets_of_every_dtype_give_the_same_training(name, way):
    use(name)
    bytes_ = np.abs(np.round(X)).astype("uint8")
    expected, _ = trained(way, epochs=1, x=bytes_.astype("float32"), y=Y.astype("int32"))
    np.testing.assert_allclose(trained(way, epochs=1, x=bytes_, y=Y.astype("uint8"))[0], expected, atol=1e-6)
    np.testing.assert_allclose(
        trained(way, epochs=1, x=bytes_.astype("float64"), y=Y.astype("float64"))[0], expected, atol=1e-6
    )


@pytest.mark.parametrize("name", ["float64", "bfloat16"])
def test_a_memory_map_of_every_dtype_gives_the_training_of_the_array(name, tmp_path):
    mapped = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype="float64", shape=X.shape)
    mapped[:] = X
    use(name)
    np.testing.assert_array_equal(trained("reshuffle", x=mapped, epochs=1)[0], trained("reshuffle", epochs=1)[0])


@pytest.mark.parametrize("name", ["float64", "bfloat16"])
def test_a_recorder_counts_every_draw_in_every_dtype(name):
    use(name)
    recorder = SamplingRecorder()
    trained("pool", epochs=1, callbacks=[recorder])
    assert recorder.draws.sum() == ROWS
    assert np.isfinite(recorder.last_score[recorder.draws > 0]).all()
    assert recorder.weights.sum() == pytest.approx(ROWS, rel=0.3)


# Snapshots


def test_the_mean_gradient_of_a_snapshot_keeps_moving_in_half_precision():
    use("bfloat16")
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile("sgd", "mse")
    wrapper = SVRGWrapper(model)
    targets = [-4.0] * 100 + [-4.5] * 100  # gradients of 8 and 9, between which bfloat16 has steps of 1/16
    wrapper.update_grad((np.ones((1, 1)), np.full((1, 1), target)) for target in targets)
    np.testing.assert_allclose(np.ravel(wrapper.mean[0]), 8.5, rtol=1e-3)


def test_a_state_with_snapshots_in_bfloat16_can_be_saved_and_restored(tmp_path):
    use("bfloat16")
    model = linear()
    trainer = WAYS["svrg"](model)
    trainer.fit(X, Y, batch_size=12, epochs=1, verbose=0)
    trainer.save_state(tmp_path / "state.npz")
    resumed = linear()
    resumed.set_weights(model.get_weights())
    other = WAYS["svrg"](resumed)
    other.load_state(tmp_path / "state.npz")
    for each in (trainer, other):
        keras.utils.set_random_seed(9)
        each.fit(X, Y, batch_size=12, epochs=1, verbose=0)
    np.testing.assert_array_equal(weights_of(resumed), weights_of(model))


# A program


def test_in_float64_the_default_gate_opens_and_training_continues():
    use("float64")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1600, 8))
    y = (x[:, 0] > 2.5).astype("int64")

    def model():
        keras.utils.set_random_seed(1)
        stack = [keras.Input((8,)), layers.Dense(16, "relu"), layers.Dense(2, "softmax")]
        model = keras.Sequential(stack)
        model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
        return model

    plain, sampled = model(), model()
    plain.fit(x, y, batch_size=32, epochs=4, verbose=0)
    history = ImportanceTraining(sampled).fit(x, y, batch_size=32, epochs=4, verbose=0).history
    assert history["importance"][-1] > 0.5
    reached, by_fit = (m.evaluate(x, y, verbose=0) for m in (sampled, plain))
    assert history["loss"][-1] == pytest.approx(reached, abs=0.02)
    assert reached < 1.2 * by_fit + 0.01
