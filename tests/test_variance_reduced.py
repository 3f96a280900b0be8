"""SVRG and Katyusha: a linear model worked out by hand, the mean gradient, and what a step moves of the model."""

import contextlib

import keras
import numpy as np
import pytest
from frameworks import dtype_policy, host, is_traced, lacks, needs
from keras import layers

from importance_sampling.backend import keras_internals
from importance_sampling.model_wrappers import KatyushaWrapper, SVRGWrapper
from importance_sampling.training import SVRG, Katyusha

# z = x . w with three weights and the loss (z - y)^2, whose gradient is 2 (z - y) x.
X = np.array([[1, 0, 0], [0, 2, 0], [1, 0, 1], [0, 1, 3]], "float32")
Y = np.array([[1], [0], [3], [1]], "float32")
W = np.array([1.0, 1.0, 0.0])
RATE = 0.1


def linear(optimizer=None, **options):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1, use_bias=False, **options)])
    model.compile(optimizer or keras.optimizers.SGD(RATE), "mse", metrics=["mae"])
    model.set_weights([W[:, None]])
    return model


def weights_of(model):
    return model.get_weights()[0][:, 0]


def gradient(w, rows):
    x, y = X[rows].astype("float64"), Y[rows, 0]
    return 2 * (x @ w - y) @ x / len(x)


def batches(x=X, y=Y, size=3):
    return ((x[i : i + size], y[i : i + size]) for i in range(0, len(x), size))


@pytest.mark.fast
def test_three_steps_of_svrg_are_those_computed_by_hand():
    model = linear()
    wrapper = SVRGWrapper(model)
    wrapper.update_grad(batches())
    # z = (1, 2, 1, 1), residuals (0, 2, -2, 0): m = 2 (2 (0, 2, 0) - 2 (1, 0, 1)) / 4 = (-1, 2, -1), though the last
    # batch has one row and the first has three.
    np.testing.assert_allclose(np.ravel(wrapper.mean[0]), [-1, 2, -1], rtol=1e-6)
    # At the snapshot any batch moves by m: w = (1, 1, 0) - 0.1 (-1, 2, -1).
    losses, metrics, scores = wrapper.train_batch(X[:2], Y[:2], np.ones(2))
    np.testing.assert_allclose(weights_of(model), [1.1, 0.8, 0.1], rtol=1e-6)
    np.testing.assert_allclose(losses, [0, 4], atol=1e-6)
    np.testing.assert_array_equal(scores, losses)
    assert metrics == [pytest.approx(1.0)]
    # Row 2, z = 1.2: 2 (-1.8) (1, 0, 1) now, 2 (-2) (1, 0, 1) at the snapshot: (0.4, 0, 0.4) + m = (-0.6, 2, -0.6).
    wrapper.train_batch(X[2:3], Y[2:3], np.ones(1))
    np.testing.assert_allclose(weights_of(model), [1.16, 0.6, 0.16], rtol=1e-6)
    # Row 1 with a weight of 1/2, z = 1.2 now and 2 then: (1.2 - 2) (0, 2, 0) + m = (-1, 0.4, -1).
    losses, _, _ = wrapper.train_batch(X[1:2], Y[1:2], np.array([0.5]))
    np.testing.assert_allclose(weights_of(model), [1.26, 0.56, 0.26], rtol=1e-6)
    np.testing.assert_allclose(losses, [1.44], rtol=1e-6)


@pytest.mark.parametrize("trainer", [SVRG, Katyusha])
def test_a_negative_loss_is_trained_on_as_the_same_loss_with_a_constant_added(trainer):
    trained = []
    for constant in (0.0, 100.0):
        model = linear()
        model.compile(
            keras.optimizers.SGD(RATE),
            lambda y, p, constant=constant: keras.ops.mean(keras.ops.square(y - p), axis=-1) - constant,
        )
        history = trainer(model, B=0, B_over_b=2, seed=1).fit(X, Y, batch_size=4, epochs=2, verbose=0).history
        trained.append((weights_of(model), history["loss"][0]))
    np.testing.assert_allclose(trained[1][0], trained[0][0], rtol=1e-5)
    # The residuals at the first step are (0, 2, -2, 0): a mean square of 2.
    assert [loss for _, loss in trained] == pytest.approx([2, -98])


def test_svrg_steps_use_the_optimizer_of_the_model_and_are_full_gradient_steps_at_a_new_snapshot():
    model = linear(keras.optimizers.SGD(RATE, momentum=0.5))
    wrapper = SVRGWrapper(model)
    wrapper.update_grad(batches())
    wrapper.train_batch(X[:1], Y[:1])
    at = weights_of(model)
    wrapper.update_grad(batches(size=4))
    wrapper.train_batch(X[3:], Y[3:])
    velocity = 0.5 * -RATE * gradient(W, slice(None)) - RATE * gradient(at, slice(None))
    np.testing.assert_allclose(weights_of(model), at + velocity, rtol=1e-5)


@pytest.mark.fast
def test_svrg_gradients_are_unbiased_and_vary_less_than_those_of_single_samples():
    model = linear(keras.optimizers.SGD(1.0))
    wrapper = SVRGWrapper(model)
    wrapper.update_grad(batches())
    away = (W + np.array([0.2, -0.1, 0.3])).astype("float32")
    followed = []
    for i in range(4):
        model.set_weights([away[:, None]])
        wrapper.train_batch(X[i : i + 1], Y[i : i + 1])
        followed.append(away - weights_of(model))
    np.testing.assert_allclose(np.mean(followed, axis=0), gradient(away, slice(None)), atol=1e-5)
    plain = np.array([gradient(away, [i]) for i in range(4)])
    assert np.var(followed, axis=0).sum() < 0.5 * np.var(plain, axis=0).sum()


@pytest.mark.parametrize(("t1", "t2"), [(0.5, 0.5), (0.4, 0.25)])
@pytest.mark.fast
def test_three_steps_of_katyusha_with_two_snapshots_are_those_of_the_formulas(t1, t2):
    model = linear()
    wrapper = KatyushaWrapper(model, t1, t2)
    y, z = W.copy(), W.copy()
    for snapshot, rows in ((True, [0, 1]), (False, [2, 3]), (True, [1, 2])):
        if snapshot:
            wrapper.update_grad(batches())
            w, m = y.copy(), gradient(y, slice(None))
        losses, _, _ = wrapper.train_batch(X[rows], Y[rows], np.ones(2))
        x = t1 * z + t2 * w + (1 - t1 - t2) * y
        v = gradient(x, rows) - gradient(w, rows) + m
        z, y = z - RATE * v / t1, x - RATE * v
        np.testing.assert_allclose(losses, (X[rows] @ x - Y[rows, 0]) ** 2, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(weights_of(model), y, rtol=1e-5)
        np.testing.assert_allclose(np.ravel(wrapper.z[0]), z, rtol=1e-5)
    assert int(model.optimizer.iterations) == 3
    # By hand, the first step at the snapshot for (0.5, 0.5): y = w - 0.1 m = (1.1, 0.8, 0.1), z = w - 0.2 m.


@pytest.mark.fast
def test_katyusha_steps_and_counts_on_every_batch_also_if_the_optimizer_accumulates_gradients():
    # t1 = t2 = 0.5. The first step moves y by -rate m and z by -2 rate m, so the next x, (z + w) / 2, is y.
    rates = keras.optimizers.schedules.PiecewiseConstantDecay([0], [RATE, RATE / 2])  # of the first step, of the others
    model = linear(keras.optimizers.SGD(rates, gradient_accumulation_steps=3))
    with pytest.warns(UserWarning, match="gradient_accumulation_steps=3"):
        wrapper = KatyushaWrapper(model)
    wrapper.update_grad(batches())
    wrapper.train_batch(X[:2], Y[:2])
    np.testing.assert_allclose(weights_of(model), [1.1, 0.8, 0.1], rtol=1e-6)  # m = (-1, 2, -1), see the first test
    wrapper.train_batch(X[2:3], Y[2:3])  # v = (-0.6, 2, -0.6), as there, at half of the rate
    np.testing.assert_allclose(weights_of(model), [1.13, 0.7, 0.13], rtol=1e-6)
    assert int(host(keras_internals.optimizer_steps(model.optimizer))) == 2


def test_katyusha_applies_the_constraints_of_weights():
    model = linear(kernel_constraint=keras.constraints.NonNeg())
    wrapper = KatyushaWrapper(model)
    model.set_weights([np.array([[1.0], [0.01], [0.0]])])
    wrapper.update_grad([(X[1:2], Y[1:2] - 5)])
    wrapper.train_batch(X[1:2], Y[1:2] - 5)
    assert weights_of(model)[1] == 0 and np.ravel(wrapper.z[0])[1] == 0


def deep(policy=None):
    keras.utils.set_random_seed(4)
    stack = [keras.Input((3,)), layers.Dense(6, "relu", kernel_regularizer="l2"), layers.BatchNormalization()]
    model = keras.Sequential([*stack, layers.Dropout(0.5), layers.Dense(2, "softmax", dtype=policy)])
    optimizer = keras.optimizers.SGD(RATE)
    if keras.config.dtype_policy().name == "mixed_float16":  # Keras's first scale makes gradients overflow here
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=256.0)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    x = np.random.default_rng(2).normal(size=(12, 3)).astype("float32")
    return model, x, (x[:, 0] > 0.5).astype("int64")


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_both_gradients_of_a_step_have_the_same_dropout_masks_and_batch_statistics_are_updated_once(policy):
    with dtype_policy(policy):
        model, x, y = deep("float32")
        wrapper = SVRGWrapper(model)
        before = model.get_weights()
        wrapper.update_grad(batches(x, y, 12))
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)  # batch statistics included
        mean = [host(v) for v in wrapper.mean]
        seeds = [host(v) for v in model.variables if "seed" in v.path]
        wrapper.train_batch(x[:5], y[:5])
        twin, x, y = deep("float32")
        for v, seed in zip([v for v in twin.variables if "seed" in v.path], seeds, strict=True):
            v.assign(seed)
        twin.train_on_batch(x[:5], y[:5])
    # At the snapshot the two gradients cancel only if their masks are the same; m alone is left.
    start = deep()[0].trainable_variables
    for v, w, m in zip(model.trainable_variables, start, mean, strict=True):
        np.testing.assert_allclose(host(v), host(w) - RATE * m, rtol=1e-5, atol=1e-7, err_msg=v.path)
    for a, b in zip(model.non_trainable_variables, twin.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(host(a), host(b), err_msg=a.path)  # once, as Keras moves them


def test_two_batches_of_the_mean_gradient_have_different_dropout_masks():
    model, x, y = deep()
    wrapper = SVRGWrapper(model)
    means = []
    for _ in range(2):
        wrapper.update_grad([(x[:6], y[:6])])
        means.append(np.array(wrapper.mean[0]))
    assert (means[0] != means[1]).any()


def test_svrg_trains_the_used_rows_of_embeddings_and_leaves_weights_without_a_gradient_unchanged():
    inputs = keras.Input((2,), dtype="int32")
    embedded = layers.Flatten()(layers.Embedding(5, 2)(inputs))
    model = keras.Model(inputs, [layers.Dense(1, use_bias=False)(embedded), layers.Dense(1, name="idle")(embedded)])
    model.compile(keras.optimizers.SGD(RATE), ["mse", None])
    x, y = np.array([[0, 1], [1, 3]]), np.ones((2, 1), "float32")
    before = model.get_weights()
    wrapper = SVRGWrapper(model)
    wrapper.update_grad([(x, y)])
    with_zeros = lacks("missing gradients")  # instead of a warning
    with contextlib.nullcontext() if with_zeros else pytest.warns(UserWarning, match="Gradients do not exist"):
        wrapper.train_batch(x[:1], y[:1])
    after = model.get_weights()
    assert (before[0][[0, 1, 3]] != after[0][[0, 1, 3]]).all() and (before[0][[2, 4]] == after[0][[2, 4]]).all()
    np.testing.assert_array_equal(before[2], after[2])


def test_a_restored_wrapper_takes_the_same_steps():
    model = linear()
    wrapper = KatyushaWrapper(model)
    wrapper.update_grad(batches())
    wrapper.train_batch(X[:2], Y[:2])
    other = linear()
    other.set_weights(model.get_weights())
    resumed = KatyushaWrapper(other)
    resumed.restore(wrapper.state())
    for one in (wrapper, resumed):
        one.train_batch(X[2:], Y[2:])
    np.testing.assert_array_equal(weights_of(model), weights_of(other))


@pytest.mark.fast
def test_svrg_refuses_steps_without_a_snapshot_and_snapshots_without_a_batch():
    wrapper = SVRGWrapper(linear())
    with pytest.raises(ValueError, match="Call `update_grad` first"):
        wrapper.train_batch(X, Y)
    with pytest.raises(ValueError, match="at least one batch"):
        wrapper.update_grad([])


@pytest.mark.fast
def test_svrg_refuses_a_loss_that_is_a_sum_over_the_batch():
    model = linear()
    model.compile("sgd", keras.losses.MeanSquaredError(reduction="sum"))
    wrapper = SVRGWrapper(model)
    with pytest.raises(ValueError, match="sum over the batch"):
        wrapper.update_grad(batches())
    assert wrapper.snapshot_rows == 0


@pytest.mark.fast
def test_katyusha_refuses_shares_above_one():
    with pytest.raises(ValueError, match="their sum at most 1"):
        KatyushaWrapper(linear(), 0.7, 0.5)


@pytest.mark.parametrize(
    "options",
    [
        dict(momentum=0.9),
        dict(weight_decay=0.01),
        dict(clipnorm=1.0),
        dict(clipvalue=1.0),
        dict(global_clipnorm=1.0),
        dict(use_ema=True),
        dict(gradient_accumulation_steps=2),
    ],
    ids=" ".join,
)
@pytest.mark.fast
def test_katyusha_names_the_options_of_the_optimizer_that_have_no_effect(options):
    ((name, value),) = options.items()
    with pytest.warns(UserWarning, match=f"uses only the learning rate.*'sgd[_0-9]*', {name}={value}$"):
        KatyushaWrapper(linear(keras.optimizers.SGD(RATE, **options)))


@pytest.mark.fast
def test_katyusha_warns_of_an_optimizer_other_than_sgd():
    with pytest.warns(UserWarning, match="computes its own momentum.*optimizer='adam[_0-9]*'$"):
        KatyushaWrapper(linear(keras.optimizers.Adam()))


# The trainers


def data(rows=60):
    """A noisy linear boundary: a logistic regression that no batch of ten settles."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(rows, 4)).astype("float32")
    return x, (x @ [1, -2, 0.5, 0] + 2 * rng.normal(size=rows) > 0).astype("float32")


def logistic(rate=0.5, loss="binary_crossentropy"):
    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy"])
    return model


def losses_of(model):
    x, y = data()
    return model.evaluate(x, y, verbose=0)[0]


def test_svrg_with_a_snapshot_of_all_rows_at_every_step_is_gradient_descent():
    x, y = data(25)
    weights = np.linspace(0.2, 2, 25)
    model = logistic()
    kernel, bias = (np.ravel(v).astype("float64") for v in model.get_weights())
    trainer = SVRG(model, B=0, B_over_b=1)
    trainer.fit(x, y, batch_size=10, epochs=2, sample_weight=weights, verbose=0)
    for _ in range(6):  # three steps an epoch, as Keras makes
        slope = weights * (1 / (1 + np.exp(-(x @ kernel + bias))) - y) / 25
        kernel, bias = kernel - 0.5 * slope @ x, bias - 0.5 * slope.sum()
    np.testing.assert_allclose(np.ravel(model.get_weights()[0]), kernel, rtol=1e-4)
    np.testing.assert_allclose(model.get_weights()[1], bias, rtol=1e-4)
    assert trainer.summary() == (
        "SVRG took 100% of 6 steps, with a new snapshot every 1; the last one's mean gradient is over 25 of 25 samples."
    )
    # In plain steps on 10 rows: two for each of the six, and 2.5 for each snapshot.
    assert trainer.forward_equivalents == pytest.approx(3 * 6 * (2 + 2.5))


@pytest.mark.parametrize("trainer", [SVRG, Katyusha])
def test_the_loss_of_a_logistic_regression_is_below_that_of_sgd_after_the_same_steps(trainer):
    x, y = data()
    plain, reduced = logistic(), logistic()
    plain.fit(x, y, batch_size=3, epochs=8, verbose=0)
    history = trainer(reduced, B=0, B_over_b=20, seed=1).fit(x, y, batch_size=3, epochs=8, verbose=0).history
    kernel, bias = np.zeros(4), 0.0
    for _ in range(3000):
        slope = (1 / (1 + np.exp(-(x @ kernel + bias))) - y) / 60
        kernel, bias = kernel - slope @ x, bias - slope.sum()
    least = np.logaddexp(0, np.where(y > 0, -1, 1) * (x @ kernel + bias)).mean()
    assert least < losses_of(reduced) < least + 0.05 * (losses_of(plain) - least)
    # What is measured are losses, and the regression has nothing else in its loss.
    assert history["importance"] == [1.0] * 8
    assert history["score"][-1] == pytest.approx(history["loss"][-1], abs=0.15)


@needs("compiled steps")
@needs("traces of any shape")
def test_growing_snapshots_are_not_traced_again():
    model, traces, after_steps = logistic(), [], []
    call = model.call

    def counted(inputs, **options):
        traces.extend([1] * is_traced(inputs))
        return call(inputs, **options)

    model.call = counted
    trainer = SVRG(model, B=1, B_rate=1.4, B_over_b=1)
    x, y = data()
    counts = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: after_steps.append(len(traces)))
    trainer.fit(x, y, batch_size=10, epochs=2, verbose=0, callbacks=[counts])
    # Snapshots of 10, 14, 19.6, ... rows: batches of 10 are one trace, and rests of any size share another.
    assert len(after_steps) == 12 and len(set(after_steps[1:])) == 1
    assert "over 60 of 60" in trainer.summary()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["new", "after other rows"])
@pytest.mark.parametrize("trainer", [SVRG, Katyusha])
def test_a_variance_reduced_trainer_continues_from_a_saved_state(trainer, elsewhere, tmp_path):
    x, y = data()
    arguments = dict(batch_size=10, verbose=0)
    whole = logistic()
    trainer(whole, B=2, B_over_b=4, seed=1).fit(x, y, epochs=2, **arguments)
    half = logistic()
    first = trainer(half, B=2, B_over_b=4, seed=1)
    first.fit(x, y, **arguments)
    first.save_state(tmp_path / "state.npz")
    second = trainer(half, B=2, B_over_b=4, seed=5)
    if elsewhere:
        weights = half.get_weights()
        second.fit(x[::-1], y, **arguments)
        half.set_weights(weights)
    second.load_state(tmp_path / "state.npz")
    second.fit(x, y, **arguments)
    for a, b in zip(whole.get_weights(), half.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_further_fit_on_other_rows_starts_with_a_new_snapshot():
    x, y = data()
    model, twin = logistic(), logistic()
    trainer = SVRG(model, B=0, B_over_b=4, seed=1)
    trainer.fit(x, y, batch_size=10, verbose=0)
    twin.set_weights(model.get_weights())
    for one in (trainer, SVRG(twin, B=0, B_over_b=4, seed=1)):
        one.fit(x[:20], y[:20], batch_size=10, verbose=0)
        assert "over 20 of 20 samples" in one.summary()
    np.testing.assert_array_equal(model.get_weights()[0], twin.get_weights()[0])


def test_svrg_on_a_memory_map_trains_as_on_the_array(tmp_path):
    x, y = data()
    mapped = np.memmap(tmp_path / "x", "float32", "w+", shape=x.shape)
    mapped[:] = x
    model, twin = logistic(), logistic()
    for one, rows in ((model, mapped), (twin, x)):
        SVRG(one, B=2, B_over_b=2, seed=1).fit(rows, y, batch_size=10, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], twin.get_weights()[0])


def test_a_summed_loss_trains_uniformly_with_a_warning():
    x, y = data()
    model, twin = (logistic(0.01, keras.losses.BinaryCrossentropy(reduction="sum")) for _ in range(2))
    with pytest.warns(UserWarning, match="its mean gradient depends on the batch size"):
        SVRG(model).fit(x, y, shuffle=False, verbose=0)
    twin.fit(x, y, shuffle=False, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], twin.get_weights()[0])


@pytest.mark.fast
def test_options_of_svrg_and_katyusha_out_of_range_are_refused():
    for name, value in (("B", -1), ("B_rate", 0.5), ("B_over_b", 0)):
        with pytest.raises(ValueError, match=f"`{name}` must be .* Received: {name}={value}"):
            SVRG(logistic(), **{name: value})
    with pytest.raises(ValueError, match="`t1` must be"):
        Katyusha(logistic(), t1=0)
