"""The wrapper for scripts of one's own: scores, figures and weighted steps, batch by batch."""

import keras
import numpy as np
import pytest
from frameworks import CALLS_PER_TRACE, dtype_policy, host, lacks
from keras import layers, ops

from importance_sampling import events
from importance_sampling.model_wrappers import OracleWrapper

# A linear model z = x . kernel with kernel (1, -1), and the squared loss (z - y)^2:
X = np.array([[1, 0], [0, 1], [2, 1]], "float32")
Y = np.array([[0], [1], [4]], "float32")
RESIDUALS = np.array([1.0, -2.0, -3.0])  # z = (1, -1, 1)
LOSSES = [1.0, 4.0, 9.0]
NORMS = [2.0, 4.0, 6.0]  # |dloss/dz| = |2 (z - y)|


class Even:
    """Weights as they are."""

    weight_size = 1

    def weight_layer(self):
        return layers.Lambda(lambda inputs: inputs[0][:, 0])


class Corrected:
    """Weights times what was predicted over what was measured."""

    weight_size = 2

    def weight_layer(self):
        return layers.Lambda(lambda inputs: inputs[0][:, 0] * inputs[0][:, 1] / inputs[1])


def linear(**options):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, use_bias=False)])
    model.compile(**{"optimizer": keras.optimizers.SGD(0.5), "loss": "mse", "metrics": ["mae"], **options})
    model.set_weights([np.array([[1.0], [-1.0]])])
    return model


def deep(policy=None, **options):
    keras.utils.set_random_seed(4)
    stack = [keras.Input((4,)), layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dropout(0.3)]
    model = keras.Sequential([*stack, layers.Dense(3, "softmax", kernel_regularizer="l2", dtype=policy)])
    model.compile(**{"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], **options})
    x = np.random.default_rng(2).normal(size=(11, 4))
    return model, x, (x[:, 0] > 0.5).astype("int64")


def input_sum(model, x, y):
    return ops.sum(x, axis=1)


# |d loss/d kernel| = |2 (z - y) x|
@pytest.mark.parametrize(
    ("score", "expected"),
    [("loss", LOSSES), ("gnorm", NORMS), ("full_gnorm", NORMS * np.sqrt([1, 1, 5])), (input_sum, [1, 1, 3])],
    ids=["loss", "gnorm", "full_gnorm", "callable"],
)
def test_the_wrapper_returns_the_score_of_every_sample_and_its_step_measures_the_same_scores(score, expected):
    wrapper = OracleWrapper(linear(), Even(), score)
    np.testing.assert_allclose(wrapper.score(X, Y, batch_size=2), expected, rtol=1e-6)
    np.testing.assert_allclose(wrapper.score_batch(X[1:], Y[1:]), expected[1:], rtol=1e-6)
    losses, metrics, scores = wrapper.train_batch(X, Y, np.ones(3))
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    np.testing.assert_allclose(losses, LOSSES, rtol=1e-6)
    assert metrics == [pytest.approx(2.0)]  # the mean of 1, 2, 3


@pytest.mark.parametrize(
    ("policy", "score", "w", "weights"),
    [
        (Even(), "gnorm", [2.0, 0.5, 1.0], [2, 0.5, 1]),
        # 2 * 1/1, 0.5 * 8/4, 1 * 3/9 by losses; by norms the measured are 2, 4, 6
        (Corrected(), "loss", [[2.0, 1.0], [0.5, 8.0], [1.0, 3.0]], [2, 1, 1 / 3]),
        (Corrected(), "gnorm", [[2.0, 1.0], [0.5, 8.0], [1.0, 3.0]], [1, 1, 1 / 2]),
    ],
)
def test_the_step_of_the_wrapper_applies_the_weights_of_the_policy(policy, score, w, weights):
    model = linear()
    losses, _, _ = OracleWrapper(model, policy, score).train_batch(X, Y, np.array(w))
    gradient = (np.array(weights) * 2 * RESIDUALS) @ X / 3
    np.testing.assert_allclose(model.get_weights()[0][:, 0], [1, -1] - 0.5 * gradient, rtol=1e-5)
    np.testing.assert_allclose(losses, LOSSES, rtol=1e-6)


@pytest.mark.parametrize(
    "loss", ["sparse_categorical_crossentropy", keras.losses.SparseCategoricalCrossentropy(reduction="sum")]
)
@pytest.mark.slow
def test_with_weights_of_one_the_step_of_the_wrapper_is_that_of_keras(loss):
    model, x, y = deep(loss=loss)
    wrapper = OracleWrapper(model, Even(), "gnorm")
    figures = [wrapper.train_batch(x, y, np.ones(11)) for _ in range(2)]
    twin, x, y = deep(loss=loss)
    for _, metrics, _ in figures:
        twin.reset_metrics()
        assert twin.train_on_batch(x, y)[1:] == metrics
    moved, true = ([*one.variables, *one.optimizer.variables] for one in (model, twin))
    for a, b in zip(moved, true, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)


@pytest.mark.slow
def test_under_loss_scaling_losses_and_scores_are_those_before_scaling():
    with dtype_policy("mixed_float16"):
        model, x, y = deep("float32")
        wrapper = OracleWrapper(model, Even())
        losses, _, scores = wrapper.train_batch(x, y, np.ones(11))
        twin, x, y = deep("float32")
        total = twin.train_on_batch(x, y)[0]
    kernel = twin.layers[-1].kernel
    assert losses.mean() < total
    np.testing.assert_array_equal(scores, losses)
    np.testing.assert_array_equal(model.layers[-1].kernel, kernel)


def test_the_wrapper_evaluates_as_keras_does_and_sends_the_results_as_signals():
    model, x, y = deep()
    wrapper = OracleWrapper(model, Even())
    told = []

    def hear(sender, figures):
        told.append((sender, figures))

    np.testing.assert_array_equal(wrapper.evaluate(x, y, batch_size=4), model.evaluate(x, y, batch_size=4, verbose=0))
    with events.EVALUATION.connected_to(hear), events.EVALUATE_BATCH.connected_to(hear):
        whole = wrapper.evaluate(x, y)
        part = wrapper.evaluate_batch(x[:3], y[:3])
    assert [sender for sender, _ in told] == [wrapper, wrapper]
    np.testing.assert_array_equal(told[0][1], whole)
    np.testing.assert_array_equal(told[1][1], part)
    assert part[1] in (0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1) and part[0] != whole[0]
    alone = linear(metrics=None)
    assert OracleWrapper(alone, Even()).evaluate(X, Y).shape == (1,)


def test_scoring_changes_no_variable_and_a_short_last_batch_needs_no_further_trace(monkeypatch):
    model, x, y = deep()
    wrapper = OracleWrapper(model, Even(), "gnorm")
    traces = []
    run = wrapper.scorer.__class__.__call__
    monkeypatch.setattr(type(wrapper.scorer), "__call__", lambda *args: traces.append(1) or run(*args))
    whole = wrapper.score(x, y)
    before = [host(v) for v in [*model.variables, *model.metrics_variables]]
    np.testing.assert_allclose(wrapper.score(x, y, batch_size=4), whole, rtol=1e-5)
    for _ in range(2):
        wrapper.score(x[:9], y[:9], batch_size=4)
    assert len(traces) == 2 * CALLS_PER_TRACE or lacks("compiled steps")  # of 11 rows, and of 4
    for v, value in zip([*model.variables, *model.metrics_variables], before, strict=True):
        np.testing.assert_array_equal(host(v), value)


def test_the_wrapper_sets_the_learning_rate_and_uses_the_loss_compiled_last():
    model = linear()
    wrapper = OracleWrapper(model, Even())
    wrapper.set_lr(0.0)
    wrapper.train_batch(X, Y, np.ones(3))
    np.testing.assert_array_equal(model.get_weights()[0][:, 0], [1, -1])
    model.compile("sgd", "mae")
    np.testing.assert_allclose(wrapper.train_batch(X, Y, np.ones(3))[0], np.abs(RESIDUALS))


def test_the_wrapper_refuses_models_that_are_not_compiled_or_have_no_compiled_loss():
    with pytest.raises(ValueError, match="must be a compiled"):
        OracleWrapper(keras.Sequential([layers.Dense(1)]), Even())
    with pytest.raises(ValueError, match="Pass one; `add_loss` alone"):
        OracleWrapper(linear(loss=None), Even())


def test_the_wrapper_refuses_unknown_scores():
    with pytest.raises(ValueError, match="`score` must be one of"):
        OracleWrapper(linear(), Even(), "accuracy")


def test_the_wrapper_refuses_losses_and_weights_that_are_not_one_per_sample():
    with pytest.raises(ValueError, match="one per sample"):
        OracleWrapper(linear(loss=lambda t, p: ops.mean(t - p)), Even()).train_batch(X, Y, np.ones(3))
    with pytest.raises(ValueError, match="2 weights for each of the 3 samples"):
        OracleWrapper(linear(), Corrected()).train_batch(X, Y, np.ones(3))


def test_a_callback_of_a_fit_scores_with_the_current_weights_and_does_not_change_training():
    model, alone, scores = linear(), linear(), []
    wrapper = OracleWrapper(model, Even(), "loss")
    after_a_step = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: scores.append(wrapper.score(X, Y))
    )
    for one, callbacks in ((model, [after_a_step]), (alone, [])):
        one.fit(X, Y, batch_size=2, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    assert len(scores) == 4 and len(np.unique(scores, axis=0)) == 4
    np.testing.assert_array_equal(scores[-1], wrapper.score(X, Y))
    for with_scores, without in zip(model.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_array_equal(with_scores, without)
