"""The fused step: its mean is the full gradient, and the figures it reports are those of the data."""

import keras
import numpy as np
import pytest
from frameworks import gradient_function, host
from keras import layers, ops

from importance_sampling import ImportanceTraining, backend
from importance_sampling.backend import keras_internals
from importance_sampling.core.logits import Logits
from importance_sampling.core.scoring import Scorer, Scoring
from importance_sampling.fit.state import TrainerState
from importance_sampling.reweighting import BiasedReweightingPolicy
from importance_sampling.samplers import PoolSampler, resampling
from importance_sampling.strategies.pool import PoolStep, PoolStrategy

ROWS, BATCH, POOL, TIME = 48, 8, 24, 5
DRAWS = 800


def dense_case():
    """Labels and losses that lean to one side of the inputs, one of them far out."""
    rng = np.random.default_rng(2)
    x = rng.exponential(size=(ROWS, 4)).astype("float32")
    x[0] = 8
    return [keras.Input((4,)), layers.Dense(3, "softmax")], x, (x[:, 0] > 1.5).astype("int64") * 2


def masked_tokens():
    """Sequences whose length goes with their loss: long ones have one label, short ones any."""
    rng = np.random.default_rng(2)
    lengths = np.where(np.arange(ROWS) % 4 == 0, TIME, 1)
    tokens = np.where(np.arange(TIME) < lengths[:, None], rng.integers(1, 6, (ROWS, TIME)), 0)
    return tokens, np.where(lengths[:, None] == TIME, 1, rng.integers(0, 3, (ROWS, TIME)))


def embedded_case():
    stack = [keras.Input((TIME,), dtype="int32"), layers.Embedding(6, 4, mask_zero=True), layers.Dense(3, "softmax")]
    return stack, *masked_tokens()


def recurrent_case():
    tokens, y = masked_tokens()
    x = np.eye(6, dtype="float32")[tokens] * (tokens > 0)[..., None]
    stack = [
        keras.Input((TIME, 6)),
        layers.Masking(),
        layers.SimpleRNN(3, return_sequences=True),
        layers.Dense(3, "softmax"),
    ]
    return stack, x, y


def input_sum(model, x, y):
    return keras.ops.sum(x, axis=1)


def build(case, score="gnorm", scheme="systematic", alpha=0.1, listening=False, **options):
    keras.utils.set_random_seed(4)
    stack, x, y = case()
    model = keras.Sequential(stack)
    model.compile(**{"optimizer": keras.optimizers.SGD(1.0), "loss": "sparse_categorical_crossentropy", **options})
    keras_internals.build_on_batch(model, batch(x, y, POOL))
    points = Logits(model)
    sampler = PoolSampler(POOL, BATCH, alpha, resampling.get(scheme), BiasedReweightingPolicy())
    step = PoolStep(model, Scorer(model, score, points), sampler, TrainerState(5), listening)
    return model, step, x, y


def compiled(model, step):
    """Return a step as trainers take it, a function of the rows and the batch: on torch, it records no gradients."""
    take = backend.compile_step(lambda rows, x, y: step(rows, (x, y, None)), model)
    return lambda rows, data: take(rows, *data[:2])


def steps_and_gradients(model, step, x, y):
    """What SGD with a rate of 1 followed, weights put back after every step, and every pool's own gradient."""
    weights = model.trainable_variables
    start = [host(v) for v in weights]
    compute = gradient_function(lambda x, y: model.compute_loss(x, y, model(x, training=False)), weights, constants=2)
    take = compiled(model, step)
    rng, followed, whole = np.random.default_rng(9), [], []
    for _ in range(DRAWS):
        rows = rng.choice(ROWS, POOL, replace=False)
        data = batch(x[rows], y[rows], POOL)
        whole.append(flatten(compute(*data[:2])))
        take(ops.convert_to_tensor(rows), data)
        followed.append(flatten([before - host(v) for before, v in zip(start, weights, strict=True)]))
        for v, value in zip(weights, start, strict=True):
            v.assign(value)
    return np.array(followed, "float64"), np.array(whole, "float64"), flatten(compute(x, y))


def flatten(arrays):
    return np.concatenate([array.ravel() for array in arrays])


def batch(x, y, rows):
    return ops.convert_to_tensor(x[:rows]), ops.convert_to_tensor(y[:rows]), None


@pytest.mark.parametrize("scheme", ["systematic", "multinomial"])
@pytest.mark.parametrize("score", ["gnorm", "loss", "full_gnorm", input_sum], ids=["gnorm", "loss", "full", "callable"])
def test_the_mean_importance_step_over_new_pools_is_the_full_gradient(score, scheme):
    followed, _, full = steps_and_gradients(*build(dense_case, score, scheme))
    error = followed.std(axis=0) / np.sqrt(DRAWS)
    assert (np.abs(followed.mean(axis=0) - full) < 5 * error).all()
    assert np.linalg.norm(error) < 0.06 * np.linalg.norm(full)


@pytest.mark.parametrize(
    ("case", "score", "scheme"),
    [
        (embedded_case, "gnorm", "systematic"),
        (embedded_case, "loss", "multinomial"),
        (recurrent_case, "gnorm", "multinomial"),
        (recurrent_case, "loss", "systematic"),
    ],
)
def test_the_mean_importance_step_on_masked_sequences_is_the_gradient_of_the_pools(case, score, scheme):
    """Keras divides a pool's loss by its valid entries: given the pool, the draw adds nothing on average."""
    followed, whole, _ = steps_and_gradients(*build(case, score, scheme))
    added = followed - whole
    moves = added.std(axis=0) > 1e-9
    error = added.std(axis=0)[moves] / np.sqrt(DRAWS)
    assert (np.abs(added.mean(axis=0)[moves]) < 5 * error).all()
    assert np.linalg.norm(error) < 0.06 * np.linalg.norm(whole.mean(axis=0))


def test_an_importance_step_returns_indices_weights_and_scores_if_there_are_listeners():
    model, step, x, y = build(dense_case, input_sum, alpha=0.2, listening=True)
    rows = np.arange(POOL) + 100
    data = batch(x, y, POOL)
    _, (indices, weights, picked, pool) = compiled(model, step)(ops.convert_to_tensor(rows), data)
    sums = x[:POOL].sum(1)
    np.testing.assert_allclose(pool, sums, rtol=1e-5)
    np.testing.assert_allclose(picked, sums[np.array(indices) - 100], rtol=1e-5)
    share = 0.8 * np.array(picked) / sums.sum() + 0.2 / POOL
    np.testing.assert_allclose(weights, 1 / (POOL * share), rtol=1e-4)
    model, step, *_ = build(dense_case)
    assert compiled(model, step)(ops.convert_to_tensor(rows), data)[1] == ()


def test_an_importance_step_records_its_signals_and_its_weights_in_the_state():
    model, step, x, y = build(dense_case)
    take = compiled(model, step)
    take(ops.arange(POOL), batch(x, y, POOL))
    steps, effective, largest, useless = host(step.state.totals)
    assert (steps, useless) == (1, 0) and 1 < effective <= BATCH and 1 < largest <= 10
    for _ in range(16):
        take(ops.arange(POOL), batch(x, y, POOL))
    signals = step.state.signals
    assert signals.tau > 1 and signals.score > 0 and 0.5 < signals.discount < 2


def test_equal_scores_without_dropout_have_a_variance_gain_and_a_discount_of_one():
    # All scores equal: what is seen is what was said, and nothing is discounted.
    model, step, x, y = build(dense_case)
    take = compiled(model, step)
    same = batch(np.tile(x[1:2], (POOL, 1)), np.tile(y[1:2], POOL), POOL)
    for _ in range(17):
        take(ops.arange(POOL), same)
    assert step.state.signals.discount == pytest.approx(1, rel=1e-5)
    assert step.state.signals.gain == pytest.approx(1, rel=1e-5)


def test_unusable_scores_give_a_uniform_step_that_is_counted():
    model, step, x, y = build(dense_case, lambda model, x, y: keras.ops.zeros((POOL,)), listening=True)
    _, (_, weights, _, _) = compiled(model, step)(ops.arange(POOL), batch(x, y, POOL))
    np.testing.assert_allclose(weights, np.ones(BATCH), rtol=1e-6)
    assert host(step.state.totals)[3] == 1
    assert np.isfinite(model.get_weights()[0]).all()


def test_a_probe_scores_for_the_gate_and_changes_no_variable_of_the_model():
    model, step, x, y = build(dense_case, metrics=["accuracy"])
    strategy = PoolStrategy(model, step.sampler, step.state, Scoring())
    variables = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    before = [host(v) for v in variables]
    scores = ops.convert_to_numpy(strategy.probe(batch(x, y, BATCH), steps=1).scores)
    assert step.state.signals.score == pytest.approx(np.mean(scores), rel=1e-5)
    assert np.isnan(step.state.signals.discount)
    for v, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(host(v), value, err_msg=v.path)


# Figures


class Largest(keras.metrics.Metric):
    """A figure that is no sum over samples."""

    def __init__(self):
        super().__init__(name="largest")
        self.value = self.add_weight(name="value", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.value.assign(keras.ops.maximum(self.value, keras.ops.max(y_pred)))

    def result(self):
        return self.value


def binary(loss="binary_crossentropy", metrics=(), weighted_metrics=(), regularizer=None):
    keras.utils.set_random_seed(4)
    rng = np.random.default_rng(2)
    x = rng.exponential(size=(ROWS, 4)).astype("float32")
    y = (x[:, :1] + rng.normal(size=(ROWS, 1)) > 1).astype("float32")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, "sigmoid", kernel_regularizer=regularizer)])
    model.compile(keras.optimizers.SGD(0.0), loss, metrics=[*metrics], weighted_metrics=[*weighted_metrics])
    return model, x, y


def figures(model, x, y, sample_weight=None, batch_size=BATCH):
    """Of an epoch that moves nothing, whose 6 steps read every row three times; and what `evaluate` says."""
    arguments = dict(sample_weight=sample_weight, batch_size=batch_size, verbose=0)
    history = ImportanceTraining(model, tau_th=0, seed=1).fit(x, y, **arguments).history
    assert history["importance"] == [1.0]
    return {name: values[-1] for name, values in history.items()}, model.evaluate(x, y, return_dict=True, **arguments)


def test_loss_and_metrics_of_importance_steps_are_those_of_evaluate_and_not_of_the_drawn_batch():
    metrics = ["accuracy", keras.metrics.AUC(name="auc"), Largest()]
    model, x, y = binary(metrics=metrics, weighted_metrics=[keras.metrics.Recall(name="recall")], regularizer="l2")
    said, true = figures(model, x, y, np.linspace(0.1, 3, ROWS))
    assert true["accuracy"] not in (0, 1) and 0 < true["recall"] < 1
    for name in ("loss", "accuracy", "auc", "recall"):
        assert said[name] == pytest.approx(true[name], rel=1e-4), name
    # Only fed as many rows as a plain step would feed it, it can but come close.
    assert 0 < said["largest"] <= true["largest"] + 1e-6


@pytest.mark.parametrize("reduction", ["sum", None])
def test_a_loss_that_is_not_a_mean_is_reported_for_a_batch(reduction):
    model, x, y = binary(keras.losses.BinaryCrossentropy(reduction=reduction))
    said, true = figures(model, x, y)
    assert said["loss"] == pytest.approx(true["loss"], rel=1e-4)


def test_every_output_reports_its_own_loss():
    _, x, y = binary()
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [layers.Dense(1, name="a")(inputs), layers.Dense(1, name="b")(inputs)])
    losses = [keras.losses.MeanSquaredError(reduction="sum"), "mae"]
    model.compile(keras.optimizers.SGD(0.0), losses, loss_weights=[0.5, 2])
    said, true = figures(model, x, [y, 3 * y])
    for name in ("loss", "a_loss", "b_loss"):
        assert said[name] == pytest.approx(true[name], rel=1e-4), name
