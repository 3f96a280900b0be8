"""SVRG and Katyusha: a linear model worked out by hand, the mean of the gradient, and what a step moves of the model."""

import keras
import numpy as np
import pytest
from keras import layers

from importance_sampling.model_wrappers import KatyushaWrapper, SVRGWrapper

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


def test_svrg_over_three_steps_by_hand():
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


def test_the_optimizer_of_the_model_follows_and_a_new_snapshot_is_the_full_gradient():
    model = linear(keras.optimizers.SGD(RATE, momentum=0.5))
    wrapper = SVRGWrapper(model)
    wrapper.update_grad(batches())
    wrapper.train_batch(X[:1], Y[:1])
    at = weights_of(model)
    wrapper.update_grad(batches(size=4))
    wrapper.train_batch(X[3:], Y[3:])
    velocity = 0.5 * -RATE * gradient(W, slice(None)) - RATE * gradient(at, slice(None))
    np.testing.assert_allclose(weights_of(model), at + velocity, rtol=1e-5)


def test_the_mean_over_samples_is_the_full_gradient_and_its_variance_is_less():
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
def test_katyusha_over_three_steps_and_two_snapshots(t1, t2):
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


def test_katyusha_keeps_to_constraints():
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
    model.compile(keras.optimizers.SGD(RATE), "sparse_categorical_crossentropy", metrics=["accuracy"])
    x = np.random.default_rng(2).normal(size=(12, 3)).astype("float32")
    return model, x, (x[:, 0] > 0.5).astype("int64")


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_both_gradients_see_the_same_dropout_and_batch_statistics_move_once(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model, x, y = deep("float32")
        wrapper = SVRGWrapper(model)
        before = model.get_weights()
        wrapper.update_grad(batches(x, y, 12))
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)  # batch statistics included
        mean = [np.array(v) for v in wrapper.mean]
        seeds = [np.array(v) for v in model.variables if "seed" in v.path]
        wrapper.train_batch(x[:5], y[:5])
        twin, x, y = deep("float32")
        for v, seed in zip([v for v in twin.variables if "seed" in v.path], seeds, strict=True):
            v.assign(seed)
        twin.train_on_batch(x[:5], y[:5])
    finally:
        keras.config.set_dtype_policy("float32")
    # At the snapshot the two gradients cancel only if their masks are the same; m alone is left.
    start = deep()[0].trainable_variables
    for v, w, m in zip(model.trainable_variables, start, mean, strict=True):
        np.testing.assert_allclose(v, w - RATE * m, rtol=1e-5, atol=1e-7, err_msg=v.path)
    for a, b in zip(model.non_trainable_variables, twin.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)  # once, as Keras moves them


def test_batches_of_the_mean_gradient_have_dropout_masks_of_their_own():
    model, x, y = deep()
    wrapper = SVRGWrapper(model)
    means = []
    for _ in range(2):
        wrapper.update_grad([(x[:6], y[:6])])
        means.append(np.array(wrapper.mean[0]))
    assert (means[0] != means[1]).any()


def test_embeddings_and_weights_that_the_loss_does_not_see():
    inputs = keras.Input((2,), dtype="int32")
    embedded = layers.Flatten()(layers.Embedding(5, 2)(inputs))
    model = keras.Model(inputs, [layers.Dense(1, use_bias=False)(embedded), layers.Dense(1, name="idle")(embedded)])
    model.compile(keras.optimizers.SGD(RATE), ["mse", None])
    x, y = np.array([[0, 1], [1, 3]]), np.ones((2, 1), "float32")
    before = model.get_weights()
    wrapper = SVRGWrapper(model)
    wrapper.update_grad([(x, y)])
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        wrapper.train_batch(x[:1], y[:1])
    after = model.get_weights()
    assert (before[0][[0, 1, 3]] != after[0][[0, 1, 3]]).all() and (before[0][[2, 4]] == after[0][[2, 4]]).all()
    np.testing.assert_array_equal(before[2], after[2])


def test_a_state_that_was_saved_goes_on_alike():
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


def test_what_means_nothing_is_refused():
    wrapper = SVRGWrapper(linear())
    with pytest.raises(ValueError, match="call `update_grad` first"):
        wrapper.train_batch(X, Y)
    with pytest.raises(ValueError, match="at least one batch"):
        wrapper.update_grad([])
    model = linear()
    model.compile("sgd", keras.losses.MeanSquaredError(reduction="sum"))
    wrapper = SVRGWrapper(model)
    with pytest.raises(ValueError, match="sum over the batch"):
        wrapper.update_grad(batches())
    assert not wrapper.has_snapshot
    with pytest.raises(ValueError, match="their sum at most 1"):
        KatyushaWrapper(linear(), 0.7, 0.5)
    with pytest.warns(UserWarning, match="momentum of its own"):
        KatyushaWrapper(linear(keras.optimizers.Adam()))
