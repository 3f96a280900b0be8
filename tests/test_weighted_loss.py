"""The weighted loss, its gradients and the descriptions of losses, against closed forms.

The models compute p = w x entry by entry with one weight w, so that the loss values are v = (y - w x)^2 and their
derivatives dv/dw = -2 x (y - w x).
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from importance_sampling.backend import keras_internals
from importance_sampling.core import loss_specs
from importance_sampling.core.logits import Logits
from importance_sampling.core.loss_specs import LossSpecs, Unsupported
from importance_sampling.core.scoring import Scorer
from importance_sampling.core.weighted_loss import weighted_loss
from importance_sampling.fit import eligibility

B = T = 4  # as many time steps as samples: weights of samples can't be told from those of time steps by their shape
W = 0.5
MULTIPLIER = np.array([0.25, 3.0, 1.0, 0.5], "float32")


class Squares(keras.losses.Loss):
    """A value per entry: (batch, ..., 1) to (batch, ...)."""

    def call(self, y_true, y_pred):
        return ops.squeeze(ops.square(y_true - y_pred), -1)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (B, *shape)).astype("float32")


def linear(name=None):
    return layers.Dense(1, use_bias=False, kernel_initializer=keras.initializers.Constant(W), name=name)


def compiled(model, loss, batch, **options):
    model.compile("sgd", loss, **options)
    eligibility.build(model, batch)
    return model


def single(shape, reduction="sum_over_batch_size", first=()):
    """A model of one output, with its batch; the loss values have the shape `(B, *shape)`."""
    x, y = numbers(*shape, 1), numbers(*shape, 1, seed=1)
    model = keras.Sequential([keras.Input((*shape, 1)), *first, linear()])
    return compiled(model, Squares(reduction=reduction), (x, y)), x, y


def weighted(model, x, y, user=None, multiplier=MULTIPLIER, training=False):
    """The total, its gradient at the weight, and its gradient at the multiplier."""
    x, y, user, multiplier = (
        keras.tree.map_structure(lambda t: None if t is None else tf.constant(t), t) for t in (x, y, user, multiplier)
    )
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(multiplier)
        y_pred = model(x, training=training)
        loss = weighted_loss(LossSpecs(model), x, y, y_pred, user, lambda *_: multiplier, training)
    weight = model.trainable_variables[0].value
    return (
        float(loss.total),
        tape.gradient(loss.total, weight).numpy().item(),
        tape.gradient(loss.total, multiplier).numpy(),
    )


def rows_of(t):
    """Reshape `(B,)` to `(B, 1, ...)`."""
    return lambda like: t.reshape(-1, *[1] * (like.ndim - 1))


def closed_form(x, y, user=1.0, divisor=1.0):
    """What `weighted` returns, by hand: `user` has the shape of the loss values or is a number."""
    x, error = x[..., 0], (y - W * x)[..., 0]
    m = rows_of(MULTIPLIER)(x)
    axes = tuple(range(1, x.ndim))
    return (
        (m * user * error**2).sum() / divisor,
        (m * user * -2 * x * error).sum() / divisor,
        (user * error**2 * np.ones_like(x)).sum(axis=axes) / divisor,
    )


def assert_equal(results, expected):
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, value, rtol=2e-6, atol=1e-7)


SHAPES = {"a value per sample": (), "as many time steps as samples": (T,), "pixels": (2, 3)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean", "sum", None])
def test_loss_and_gradients_are_the_sums_of_those_of_single_samples_times_their_multipliers(reduction, shape):
    model, x, y = single(shape, reduction)
    divisor = 1.0 if reduction in ("sum", None) else x.size
    assert_equal(weighted(model, x, y), closed_form(x, y, divisor=divisor))


USER_WEIGHTS = {
    "(B,) on (B,)": ((), ()),
    "(B, 1) on (B,)": ((), (1,)),
    "(B, 1) on (B, T)": ((T,), (1,)),
    "(B, T) on (B, T)": ((T,), (T,)),
    "(B, T, 1) on (B, T)": ((T,), (T, 1)),
    "(B,) on (B, 1)": ((1,), ()),
    "(B, 1, 1) on (B, H, W)": ((2, 3), (1, 1)),
    "(B, H, W) on (B, H, W)": ((2, 3), (2, 3)),
}


@pytest.mark.parametrize("name", USER_WEIGHTS)
def test_multipliers_and_user_weights_of_every_rank_that_keras_accepts_multiply(name):
    shape, user_shape = USER_WEIGHTS[name]
    model, x, y = single(shape)
    user = numbers(*user_shape, seed=2) + 1.5
    by_entry = user.reshape(-1) if not shape else user.reshape(*user.shape[: len(shape) + 1])
    by_entry = np.broadcast_to(
        by_entry.reshape(B, *by_entry.shape[1:], *[1] * (len(shape) + 1 - by_entry.ndim)), (B, *shape)
    )
    assert_equal(weighted(model, x, y, user), closed_form(x, y, by_entry, x.size))


@pytest.mark.parametrize("name", USER_WEIGHTS)
def test_multipliers_of_one_give_the_loss_of_keras_bit_for_bit(name):
    shape, user_shape = USER_WEIGHTS[name]
    model, x, y = single(shape)
    user = numbers(*user_shape, seed=2) + 1.5
    total, _, _ = weighted(model, x, y, user, np.ones(B, "float32"))
    assert total == float(model.compute_loss(x, y, model(x), user))


@pytest.mark.parametrize("user_shape", [None, (1,), (T,)])
def test_masked_entries_count_for_nothing_and_the_valid_ones_are_averaged(user_shape):
    model, x, y = single((T,), first=[layers.Masking()])
    x[0, 1:] = x[2, 3:] = 0.0
    valid = (x[..., 0] != 0).astype("float32")
    user = None if user_shape is None else numbers(*user_shape, seed=2) + 1.5
    by_entry = valid * (1.0 if user is None else user)
    assert_equal(weighted(model, x, y, user), closed_form(x, y, by_entry, valid.sum()))


def test_a_loss_that_masks_its_own_values_tells_how_many_are_valid():
    model = compiled(
        keras.Sequential([keras.Input((T, 3)), layers.Dense(3, "softmax")]),
        keras.losses.SparseCategoricalCrossentropy(ignore_class=0),
        (numbers(T, 3), np.zeros((B, T))),
    )
    x, y = numbers(T, 3), np.array([[0, 1, 2, 1], [0, 0, 0, 2], [1, 1, 1, 1], [0, 0, 0, 0]])
    y_pred = model(x)
    loss = weighted_loss(LossSpecs(model), x, y, y_pred, None, lambda *_: MULTIPLIER, training=False)
    np.testing.assert_array_equal(loss.outputs[0].entries, [3, 1, 4, 0])
    values = -np.log(np.take_along_axis(y_pred.numpy(), y[..., None], -1)[..., 0])
    expected = (MULTIPLIER[:, None] * values * (y != 0)).sum() / 8
    np.testing.assert_allclose(float(loss.total), expected, rtol=1e-5)


# Several outputs


def two_outputs(names, **options):
    """One output with a value per sample and one with a value per time step, which share the weight."""
    inputs, share = keras.Input((T, 1)), linear("share")
    every = share(inputs)
    outputs = [every[:, 0], every]
    model = keras.Model(inputs, outputs if names is None else dict(zip(names, outputs, strict=True)))
    return model


@pytest.mark.parametrize("names", [None, ("first", "every")])
def test_each_output_gets_weights_of_the_rank_of_its_own_loss(names):
    x = numbers(T, 1)
    targets, weights = [numbers(1, seed=1), numbers(T, 1, seed=2)], [numbers(seed=3) + 2, numbers(T, seed=4) + 2]
    losses, shares = [Squares(), Squares(reduction="sum")], [0.5, 2.0]
    named = (lambda values: values) if names is None else (lambda values: dict(zip(names, values, strict=True)))
    model = compiled(two_outputs(names), named(losses), (x, named(targets)), loss_weights=named(shares))
    first = closed_form(x[:, 0], targets[0], weights[0], B)
    every = closed_form(x, targets[1], weights[1])
    expected = [0.5 * a + 2.0 * b for a, b in zip(first, every, strict=True)]
    assert_equal(weighted(model, x, named(targets), named(weights)), expected)


def test_an_output_without_a_loss_gets_no_weights():
    x, y = numbers(T, 1), numbers(T, 1, seed=1)
    model = compiled(two_outputs(None), [None, Squares()], (x, [numbers(1), y]))
    assert_equal(weighted(model, x, [numbers(1), y]), closed_form(x, y, divisor=B * T))


def test_one_array_of_user_weights_applies_to_all_outputs():
    x, user = numbers(T, 1), numbers(seed=3) + 2
    targets = [numbers(1, seed=1), numbers(1, seed=2)]
    inputs, share = keras.Input((T, 1)), linear()
    every = share(inputs)
    model = compiled(keras.Model(inputs, [every[:, 0], every[:, 1]]), Squares(), (x, targets))
    first, second = closed_form(x[:, 0], targets[0], user, B), closed_form(x[:, 1], targets[1], user, B)
    assert_equal(weighted(model, x, targets, user), [a + b for a, b in zip(first, second, strict=True)])


# Scores


@pytest.mark.parametrize("user_shape", [None, (1,), (T,)])
@pytest.mark.parametrize("score", ["loss", "gnorm"])
def test_scores_are_those_of_batches_of_one(score, user_shape):
    model, x, y = single((T,))
    user = None if user_shape is None else numbers(*user_shape, seed=2) + 1.5
    scores = Scorer(model, score, Logits(model))(tuple(None if t is None else tf.constant(t) for t in (x, y, user)))
    expected = []
    for i in range(B):
        with tf.GradientTape() as tape:
            logits = model(x[i : i + 1])
            tape.watch(logits)
            loss = model.compute_loss(x[i : i + 1], y[i : i + 1], logits, None if user is None else user[i : i + 1])
        expected.append(float(loss if score == "loss" else tf.norm(tape.gradient(loss, logits))))
    np.testing.assert_allclose(scores.scores, expected, rtol=1e-6)


# Descriptions


def test_losses_are_intercepted_once_for_each_kind_of_batch(monkeypatch):
    calls, run = [], loss_specs.intercept
    monkeypatch.setattr(loss_specs, "intercept", lambda *args: calls.append(1) or run(*args))
    model, x, y = single((T,))
    specs = LossSpecs(model)
    for rows in (4, 2, 4):
        specs.describe(x[:rows], y[:rows], model(x[:rows]), None, training=False)
    assert len(calls) == 1
    specs.describe(x[:, :2], y[:, :2], model(x[:, :2]), None, training=False)
    assert len(calls) == 2
    model.compile("sgd", Squares(reduction="sum"))
    eligibility.build(model, (x, y))
    assert specs.describe(x, y, model(x), None, training=False)[0].reduction == "sum"


def test_no_loss_is_replaced_after_the_check(monkeypatch):
    model, x, y = single((T,))
    scorer = Scorer(model, "gnorm", Logits(model))
    batch = (tf.constant(x), tf.constant(y), None)
    eligibility.check_loss(scorer.loss_specs, batch)
    monkeypatch.setattr(keras_internals, "replaced_losses", lambda *_: pytest.fail("a loss was replaced"))
    assert scorer(batch).scores.shape == (B,)


def test_a_loss_in_half_precision_is_computed_in_single_precision_in_inference_mode_and_stays_as_it_is():
    x = np.full((B, 1), 600.0, "float32")  # squared errors of 90000 are beyond float16
    loss = Squares(dtype="float16")
    model = compiled(keras.Sequential([keras.Input((1,)), linear()]), loss, (x, 0 * x))
    before = dict(vars(loss))
    total, _, _ = weighted(model, x, 0 * x)
    assert total == 90000.0 * MULTIPLIER.mean()
    assert vars(loss) == before
    assert np.isinf(weighted(model, x, 0 * x, training=True)[0])


# Losses and models that weights can't be passed to


class Unweighted(Squares):
    def __call__(self, y_true, y_pred, sample_weight=None):
        return ops.mean(self.call(y_true, y_pred))


class Doubled(Squares):
    def __call__(self, y_true, y_pred, sample_weight=None):
        return 2.0 * super().__call__(y_true, y_pred, sample_weight)


class Summed(keras.Model):
    """A linear model with its own `compute_loss`."""

    def __init__(self, weights):
        super().__init__()
        self.out = linear()
        self.passed_on = weights

    def call(self, x):
        return self.out(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return super().compute_loss(x, y, y_pred, self.passed_on(sample_weight))


def refuse(sample_weight):
    if sample_weight is not None:
        raise NotImplementedError("no weights here")


def check(model, x, y):
    eligibility.check_loss(LossSpecs(model), (tf.constant(x), tf.constant(y), None))


def test_a_loss_that_ignores_sample_weight_is_named():
    x, y = numbers(1), numbers(1, seed=1)
    model = compiled(keras.Sequential([keras.Input((1,)), linear()]), Unweighted(name="squares"), (x, y))
    with pytest.raises(Unsupported, match="the loss `squares` overrides `__call__` and doesn't scale its values"):
        check(model, x, y)


def test_a_loss_that_passes_sample_weight_on_is_accepted():
    x, y = numbers(1), numbers(1, seed=1)
    model = compiled(keras.Sequential([keras.Input((1,)), linear()]), Doubled(), (x, y))
    check(model, x, y)
    assert_equal(weighted(model, x, y), [2 * value for value in closed_form(x, y, divisor=B)])


@pytest.mark.parametrize(
    "passed_on",
    [lambda weights: None, lambda weights: None if weights is None else weights / ops.mean(weights)],
    ids=["ignored", "normalised"],
)
def test_a_compute_loss_that_changes_sample_weight_is_found(passed_on):
    x, y = numbers(1), numbers(1, seed=1)
    model = compiled(Summed(passed_on), Squares(), (x, y))
    with pytest.raises(Unsupported, match="`compute_loss` of the model doesn't pass `sample_weight`"):
        check(model, x, y)


def test_a_compute_loss_that_raises_for_sample_weight_is_no_error_of_the_check():
    x, y = numbers(1), numbers(1, seed=1)
    model = compiled(Summed(refuse), Squares(), (x, y))
    with pytest.raises(Unsupported, match="NotImplementedError: no weights here"):
        check(model, x, y)


def test_a_loss_with_random_numbers_that_cannot_be_repeated_is_not_judged():
    rng = np.random.default_rng(0)
    x, y = numbers(1), numbers(1, seed=1)

    def noisy(y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred), axis=-1) * rng.uniform(0.5, 1.5)

    check(compiled(keras.Sequential([keras.Input((1,)), linear()]), noisy, (x, y)), x, y)


def test_losses_of_one_output_share_its_weights_if_their_values_have_one_shape():
    x, y = numbers(T, 1), {"a": numbers(T, 1, seed=1)}
    inputs = keras.Input((T, 1))

    def model(*losses):
        return compiled(keras.Model(inputs, {"a": linear("a")(inputs)}), {"a": list(losses)}, (x, y))

    summed = model(Squares(), Squares())
    expected = closed_form(x, y["a"], divisor=x.size / 2)
    assert_equal(weighted(summed, x, y), expected)
    with pytest.raises(Unsupported, match="the losses of one output differ"):
        weighted(model(Squares(), lambda y_true, y_pred: ops.mean(y_pred, axis=(1, 2))), x, y)
